//! `pillion-proxy gateway`: hands over to `pillion gateway`, which has the compiler of gateway files; a sidecar carries
//! none.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Becomes `pillion gateway` with these arguments: the `pillion` beside this program, or the one in `PATH`. Comes back
/// only when there is none.
pub(super) fn run(args: &[OsString]) -> ExitCode {
    let beside = std::env::current_exe().ok();
    let beside = beside.and_then(|own| Some(own.parent()?.join("pillion")));
    let program = beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from("pillion"));
    let error = Command::new(&program).arg("gateway").args(args).exec();
    eprintln!(
        "pillion-proxy: cannot run {} gateway: {error}\n\
         Gateway files are compiled by `pillion`. Without it: `pillion gateway -f FILE --print-bootstrap` elsewhere \
         makes a bootstrap for `pillion-proxy -c`.",
        program.display()
    );
    ExitCode::FAILURE
}
