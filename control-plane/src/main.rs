//! `pillion`: the control plane, and the person's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    pillion::cli::main()
}
