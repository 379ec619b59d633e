//! Prints the support table, which is `docs/support.md`.

fn main() {
    print!("{}", pillion_xds::support::markdown());
}
