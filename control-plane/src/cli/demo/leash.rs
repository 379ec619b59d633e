//! No process outlives the one that started it, however that one ended.
//!
//! The starter holds the writing end of a pipe that is our standard input. When it is gone (even by SIGKILL, or by
//! a panic), the system closes the pipe. Unlike `PR_SET_PDEATHSIG`, this does not depend on which thread started us.

use std::io::Read;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

/// How long an orderly stop may take before the process just ends.
const GRACE: Duration = Duration::from_secs(3);

/// Watches standard input on a thread of its own; when it closes, asks this process to stop (SIGTERM), and ends it
/// after three more seconds.
pub fn end_with_stdin() {
    let watch = || {
        let mut stdin = std::io::stdin().lock();
        let mut scrap = [0; 64];
        while let Ok(1..) = stdin.read(&mut scrap) {}
        // Sending ourselves a signal cannot fail in a way that the exit below does not mend.
        let _ = kill_process(getpid(), Signal::TERM);
        std::thread::sleep(GRACE);
        std::process::exit(1);
    };
    if let Err(error) = std::thread::Builder::new().name("leash".to_owned()).spawn(watch) {
        eprintln!("pillion: cannot watch standard input: {error}");
        std::process::exit(1);
    }
}
