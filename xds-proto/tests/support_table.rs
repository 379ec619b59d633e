//! The published support table is the one that the marks make.

#[test]
fn the_page_is_what_the_marks_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/support.md");
    let page = std::fs::read_to_string(path).expect("docs/support.md");
    assert!(
        page == pillion_xds::support::markdown(),
        "docs/support.md is not what the marks say: \
         cargo run -p pillion-xds --example support_table > docs/support.md"
    );
}
