//! Processes under test.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

use crate::wait;

/// A process in a group of its own, with what it writes in a file. Dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: Pid,
    child: Mutex<Child>,
}

impl Process {
    /// Starts `command`; stdout and stderr are appended to `log`, stdin stays open while this lives.
    ///
    /// # Errors
    /// When the program or the file is not to be had.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name}: cannot run {command:?}"))?;
        let pid = Pid::from_child(&child);
        Ok(Self { name: name.to_owned(), log: log.to_owned(), pid, child: Mutex::new(child) })
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Everything that it wrote so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Sends a signal to the process itself. One that is gone takes none, and that is fine.
    pub fn signal(&self, signal: Signal) {
        if self.status().is_none() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// How it ended; `None` while it runs.
    pub fn status(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after [`wait::LIMIT`]; the message has its log.
    pub async fn ended(&self) -> anyhow::Result<ExitStatus> {
        wait::until("the process ends", || async { self.status() })
            .await
            .with_context(|| self.describe())
    }

    /// Waits until `probe` has something, and no longer than the process lives.
    ///
    /// # Errors
    /// When it ends first, or [`wait::LIMIT`] passes; the message has its log.
    pub async fn ready<T, F>(&self, what: &str, mut probe: impl FnMut() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = Option<T>>,
    {
        let found = wait::until(what, || {
            let ended = self.status();
            let found = probe();
            async move {
                match ended {
                    Some(status) => Some(Err(status)),
                    None => found.await.map(Ok),
                }
            }
        });
        match found.await.with_context(|| self.describe())? {
            Ok(found) => Ok(found),
            Err(status) => bail!("ended before that ({status}): {what}\n{}", self.describe()),
        }
    }

    /// Name and log, for messages.
    pub fn describe(&self) -> String {
        format!("--- {} wrote:\n{}", self.name, self.log())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The group may have members left when the process itself is gone.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = child.wait();
    }
}
