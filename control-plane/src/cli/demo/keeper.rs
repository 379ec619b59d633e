//! Ends programs of others when we are gone without having done so.
//!
//! Our own programs watch their standard input (see `leash`); others do not. So a keeper watches its own for them: a
//! process that is told of each program, and ends those that it knows when the system closes the pipe.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, kill_process, kill_process_group, test_kill_process, test_kill_process_group,
};

/// How often the keeper looks whether a program is gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A keeper that runs beside us. Cheap to clone; it ends with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(Arc<Mutex<Pipe>>);

#[derive(Debug)]
struct Pipe {
    stdin: Option<ChildStdin>,
    child: Child,
}

/// A program that the keeper knows, until this is dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    keeper: Keeper,
    pid: u32,
}

impl Keeper {
    /// Starts one: `program` is ours.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(program: &Path) -> std::io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut child = Command::new(program)
            .arg0("pillion")
            .arg("__keeper")
            .stdin(Stdio::piped())
            // Ctrl-C in the terminal is for us alone.
            .process_group(0)
            .spawn()?;
        let stdin = child.stdin.take();
        Ok(Self(Arc::new(Mutex::new(Pipe { stdin, child }))))
    }

    /// Tells it of a program that leads a process group of its own, and how long that may take to end.
    pub(crate) fn keep(&self, pid: u32, grace: Duration) -> Kept {
        self.tell(&format!("+ {pid} {}\n", grace.as_millis()));
        Kept { keeper: self.clone(), pid }
    }

    /// The same for a program that shares our process group: it alone is ended.
    pub(crate) fn keep_alone(&self, pid: u32, grace: Duration) -> Kept {
        self.tell(&format!("1 {pid} {}\n", grace.as_millis()));
        Kept { keeper: self.clone(), pid }
    }

    fn tell(&self, line: &str) {
        let mut pipe = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stdin) = &mut pipe.stdin else { return };
        if let Err(error) = stdin.write_all(line.as_bytes()) {
            tracing::warn!(%error, "the keeper is gone: programs would outlive this process if it were killed");
            pipe.stdin = None;
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper.tell(&format!("- {}\n", self.pid));
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It ends as soon as it has ended what it still knows.
        let _ = self.child.wait();
    }
}

/// The keeper itself: reads what it is told until nobody can tell it anything any more, and then ends the programs that
/// it knows.
pub(crate) fn run() -> ExitCode {
    let mut known: BTreeMap<i32, Known> = BTreeMap::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            [how @ ("+" | "1"), pid, grace] => {
                if let (Ok(pid), Ok(grace)) = (pid.parse(), grace.parse()) {
                    let grace = Duration::from_millis(grace);
                    known.insert(pid, Known { grace, alone: *how == "1" });
                }
            }
            ["-", pid] => drop(pid.parse().map(|pid: i32| known.remove(&pid))),
            _ => {}
        }
    }
    end(known);
    ExitCode::SUCCESS
}

/// What is known of a program.
#[derive(Clone, Copy)]
struct Known {
    grace: Duration,
    /// It is no leader of a process group.
    alone: bool,
}

impl Known {
    fn send(self, pid: Pid, signal: Signal) -> bool {
        let sent =
            if self.alone { kill_process(pid, signal) } else { kill_process_group(pid, signal) };
        sent.is_ok()
    }

    fn is_there(self, pid: Pid) -> bool {
        let asked = if self.alone { test_kill_process(pid) } else { test_kill_process_group(pid) };
        asked.is_ok()
    }
}

fn end(known: BTreeMap<i32, Known>) {
    let begun = Instant::now();
    let pid = |(number, known)| Some((Pid::from_raw(number)?, known));
    let mut left: Vec<(Pid, Known)> = known.into_iter().filter_map(pid).collect();
    // One that is gone already cannot be told.
    left.retain(|(pid, known)| known.send(*pid, Signal::TERM));
    while !left.is_empty() {
        std::thread::sleep(LOOK_EVERY);
        left.retain(|(pid, known)| {
            if begun.elapsed() < known.grace {
                return known.is_there(*pid);
            }
            known.send(*pid, Signal::KILL);
            false
        });
    }
}
