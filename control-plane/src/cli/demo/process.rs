//! One process that is kept running: started, watched, started again when it ends, and stopped in order.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::http_get;
use super::keeper::Keeper;
use crate::intent::Restart;

/// What most processes get for [`Recipe::grace`].
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(5);
/// How often a starting process is asked whether it is ready.
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// How often what an ended program left behind is looked for.
const LEFT_EVERY: Duration = Duration::from_millis(20);
const FIRST_BACK_OFF: Duration = Duration::from_millis(200);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(5);
/// A process that ran this long starts its back-off anew.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// What to run, and how to know that it is ready.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// In messages, and the name of the log file.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    /// Where it runs. None: where we do.
    pub(crate) dir: Option<PathBuf>,
    /// Gets both stdout and stderr, appended. None: our own.
    pub(crate) log: Option<PathBuf>,
    pub(crate) probe: Probe,
    /// It is asked again and again after it was ready. None: never.
    pub(crate) check: Option<Check>,
    /// When it is started again.
    pub(crate) restart: Restart,
    /// How long it may take to stop after SIGTERM before it gets SIGKILL.
    pub(crate) grace: Duration,
    /// It ends when its standard input closes: ours do, and others are only killed when they are dropped.
    pub(crate) leashed: bool,
    /// Who ends it, when we are gone and it has no leash.
    pub(crate) keeper: Option<Keeper>,
}

/// How a process that was ready is asked whether it still is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    /// Between two questions, and for one.
    pub(crate) every: Duration,
    /// So many bad answers in a row make it unwell.
    pub(crate) failures: u32,
}

/// How to ask a process whether it is ready.
#[derive(Debug, Clone)]
pub(crate) enum Probe {
    /// It accepts connections on this loopback port.
    Accepts(u16),
    /// It answers 200 to GET of this path on this loopback port.
    Answers(u16, Cow<'static, str>),
    /// It runs.
    Runs,
}

/// Where a process stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Runs (or is about to), and does not answer its probe yet.
    Starting,
    /// Has answered its probe.
    Ready,
    /// Runs, and does not answer its probe any more.
    Unwell,
    /// Has ended, and will be started again.
    Down,
    /// Was stopped, or is not to be started again.
    Stopped,
}

/// What is known of a process now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    pub(crate) pid: Option<u32>,
    /// How often it ended without having been asked to.
    pub(crate) deaths: u32,
    /// How it ended the last time.
    pub(crate) last_end: Option<String>,
}

/// A supervised process. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) log: Option<PathBuf>,
    status: watch::Receiver<Status>,
    task: JoinHandle<()>,
}

impl Process {
    /// Starts `recipe`, and starts it again after a back-off (200 ms to 5 s) each time it ends, until `stop` turns
    /// true.
    pub(crate) fn start(recipe: Recipe, stop: watch::Receiver<bool>) -> Self {
        let first = Status { phase: Phase::Starting, pid: None, deaths: 0, last_end: None };
        let (report, status) = watch::channel(first);
        let (name, log) = (recipe.name.clone(), recipe.log.clone());
        let task = tokio::spawn(keep_running(recipe, report, stop));
        Self { name, log, status, task }
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Tells of every change.
    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Sends SIGKILL, as a crash would; the supervisor starts the process again. False when there is none now.
    pub(crate) fn kill(&self) -> bool {
        let pid = self.status.borrow().pid;
        pid.is_some_and(|pid| signal(pid, Signal::KILL))
    }

    /// The last `count` lines that the process wrote.
    pub(crate) fn last_lines(&self, count: usize) -> String {
        self.log.as_deref().map(|log| last_lines(log, count)).unwrap_or_default()
    }

    /// Waits for the process to be gone, after its `stop` turned true.
    pub(crate) async fn gone(&mut self) {
        // An error is a panic or an abort of the supervising task, and with it the child was killed.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_running(
    recipe: Recipe,
    report: watch::Sender<Status>,
    mut stop: watch::Receiver<bool>,
) {
    let mut back_off = FIRST_BACK_OFF;
    while !*stop.borrow() {
        let started = Instant::now();
        let end = match recipe.spawn() {
            Ok(child) => match run(&recipe, child, &report, &mut stop).await {
                Some(end) => end,
                None => break,
            },
            Err(error) => End { how: format!("cannot be started: {error}"), fine: false },
        };
        let again = match recipe.restart {
            Restart::Always => true,
            Restart::OnFailure => !end.fine,
            Restart::Never => false,
        };
        let how = end.how;
        report.send_modify(|status| {
            status.phase = Phase::Down;
            status.pid = None;
            status.deaths += u32::from(!end.fine || again);
            status.last_end = Some(how);
        });
        if !again {
            break;
        }
        if started.elapsed() > STEADY_AFTER {
            back_off = FIRST_BACK_OFF;
        }
        tokio::select! {
            () = sleep(back_off) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
    }
    report.send_modify(|status| {
        status.phase = Phase::Stopped;
        status.pid = None;
    });
}

/// How a process ended by itself.
struct End {
    how: String,
    /// With exit code 0.
    fine: bool,
}

/// Until the child ends by itself, or `stop` ended it (`None`).
async fn run(
    recipe: &Recipe,
    mut child: Child,
    report: &watch::Sender<Status>,
    stop: &mut watch::Receiver<bool>,
) -> Option<End> {
    // `Child::wait` would close it, and the child ends when it closes: see `leash`.
    let _leash = child.stdin.take();
    let _kept =
        recipe.keeper.as_ref().zip(child.id()).map(|(keeper, pid)| keeper.keep(pid, recipe.grace));
    report.send_modify(|status| {
        status.phase = Phase::Starting;
        status.pid = child.id();
    });
    let ready = async {
        while !recipe.probe.is_ready().await {
            sleep(PROBE_EVERY).await;
        }
        report.send_modify(|status| status.phase = Phase::Ready);
        match recipe.check {
            Some(check) => watch_over(&recipe.probe, check, report).await,
            None => std::future::pending().await,
        }
    };
    let group = group_of(&child);
    let ended = tokio::select! {
        ended = child.wait() => Some(ended),
        () = ready => None,
        _ = stop.wait_for(|stop| *stop) => None,
    };
    if let (Some(_), Some(group)) = (&ended, group) {
        // Whatever it has started would hold its port.
        clear(group, recipe.grace, async {}).await;
    }
    match ended {
        Some(Ok(status)) => Some(End { how: format!("ended: {status}"), fine: status.success() }),
        Some(Err(error)) => {
            Some(End { how: format!("cannot be waited for: {error}"), fine: false })
        }
        None => {
            end(&mut child, recipe.grace).await;
            None
        }
    }
}

/// Asks for ever, and reports what changes.
async fn watch_over(probe: &Probe, check: Check, report: &watch::Sender<Status>) {
    let mut bad = 0;
    loop {
        sleep(check.every).await;
        let is_well = timeout(check.every, probe.is_ready()).await.unwrap_or(false);
        bad = if is_well { 0 } else { bad + 1 };
        let phase = match bad {
            0 => Phase::Ready,
            bad if bad >= check.failures => Phase::Unwell,
            _ => continue,
        };
        report.send_if_modified(|status| std::mem::replace(&mut status.phase, phase) != phase);
    }
}

async fn end(child: &mut Child, grace: Duration) {
    if let Some(group) = group_of(child) {
        clear(group, grace, async { drop(child.wait().await) }).await;
    }
    // It can only fail when the child is gone already.
    let _ = child.kill().await;
}

/// Ends a process group: by SIGTERM, and after `grace` by SIGKILL. Its leader is waited for by `reaped`.
async fn clear(group: Pid, grace: Duration, reaped: impl Future<Output = ()>) {
    let _ = kill_process_group(group, Signal::TERM);
    let left = async {
        reaped.await;
        while test_kill_process_group(group).is_ok() && is_alive(group) {
            sleep(LEFT_EVERY).await;
        }
    };
    if timeout(grace, left).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Whether anybody of it is more than a zombie: in a container, perhaps nobody reaps those.
fn is_alive(group: Pid) -> bool {
    let group = group.as_raw_nonzero().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    // `PID (NAME) STATE PARENT GROUP …`, and a name may have anything in it.
    let mut fields =
        stats.filter_map(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.to_owned()));
    fields.any(|rest| {
        let mut fields = rest.split(' ');
        !matches!(fields.next(), Some("Z" | "X")) && fields.nth(1) == Some(group.as_str())
    })
}

/// The process group that it leads.
fn group_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(child.id()?.cast_signed())
}

fn signal(pid: u32, signal: Signal) -> bool {
    Pid::from_raw(pid.cast_signed()).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

impl Recipe {
    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        if let Some(log) = &self.log {
            let log = OpenOptions::new().create(true).append(true).open(log)?;
            command.stdout(log.try_clone()?).stderr(log);
        }
        if self.leashed {
            command.arg0("pillion").stdin(Stdio::piped());
        } else {
            command.stdin(Stdio::null());
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            // Ctrl-C in the terminal is for us alone; we stop the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }
}

impl Probe {
    async fn is_ready(&self) -> bool {
        match self {
            Self::Accepts(port) => tokio::net::TcpStream::connect(loopback(*port)).await.is_ok(),
            Self::Answers(port, path) => {
                http_get::get(loopback(*port), path).await.is_ok_and(|reply| reply.status == 200)
            }
            Self::Runs => true,
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn last_lines(log: &Path, count: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for a busy machine; nothing here waits for its end.
    const LIMIT: Duration = Duration::from_secs(30);

    fn recipe(dir: &Path, script: &str) -> Recipe {
        Recipe {
            name: "test".to_owned(),
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![],
            dir: None,
            restart: Restart::Always,
            grace: STOP_GRACE,
            leashed: false,
            keeper: None,
            log: Some(dir.join("test.log")),
            // Nobody listens there.
            probe: Probe::Accepts(1),
            check: None,
        }
    }

    async fn wait_for(process: &mut Process, condition: impl Fn(&Status) -> bool) -> Status {
        let status = timeout(LIMIT, process.status.wait_for(condition)).await;
        status.expect("in time").expect("supervised").clone()
    }

    #[tokio::test]
    async fn a_process_that_ends_is_started_again_until_it_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let (stop, stopped) = watch::channel(false);
        let mut process = Process::start(recipe(dir.path(), "echo here; exec sleep 1000"), stopped);
        let first = wait_for(&mut process, |status| status.pid.is_some()).await;
        assert!(process.kill());
        let second = wait_for(&mut process, |s| s.pid.is_some() && s.pid != first.pid).await;
        assert_eq!(second.deaths, 1);
        assert_eq!(second.last_end.as_deref(), Some("ended: signal: 9 (SIGKILL)"));

        stop.send_replace(true);
        timeout(LIMIT, process.gone()).await.unwrap();
        assert_eq!(process.status().phase, Phase::Stopped);
        let pid = Pid::from_raw(second.pid.unwrap().cast_signed()).unwrap();
        assert!(rustix::process::test_kill_process(pid).is_err(), "still there");
    }

    #[tokio::test]
    async fn how_it_ended_and_what_it_wrote_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let script = "echo one; echo two >&2; echo three; exit 7";
        let mut process = Process::start(recipe(dir.path(), script), stopped);
        let status = wait_for(&mut process, |status| status.deaths > 0).await;
        assert_eq!(status.last_end.as_deref(), Some("ended: exit status: 7"));
        assert_eq!(process.last_lines(2), "two\nthree");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_end_like_any_other() {
        let dir = tempfile::tempdir().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let mut recipe = recipe(dir.path(), "");
        recipe.program = dir.path().join("absent");
        let mut process = Process::start(recipe, stopped);
        let status = wait_for(&mut process, |status| status.deaths > 0).await;
        assert!(status.last_end.unwrap().starts_with("cannot be started: No such file"));
    }

    #[tokio::test]
    async fn what_it_started_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (stop, stopped) = watch::channel(false);
        let script = "sleep 1000 & echo $! >> started; wait";
        let mut recipe = recipe(dir.path(), script);
        recipe.dir = Some(dir.path().to_owned());
        let mut process = Process::start(recipe, stopped);
        let started = async |count: usize| {
            let found = async {
                loop {
                    let text = std::fs::read_to_string(dir.path().join("started"));
                    let pids: Vec<i32> =
                        text.iter().flat_map(|text| text.lines()).flat_map(str::parse).collect();
                    if pids.len() >= count {
                        return Pid::from_raw(pids[count - 1]).unwrap();
                    }
                    sleep(PROBE_EVERY).await;
                }
            };
            timeout(LIMIT, found).await.unwrap()
        };
        let gone = async |pid: Pid| {
            let gone = async {
                // A zombie, until its new parent looks.
                let state =
                    || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                while !(state().is_empty() || state().contains(") Z ")) {
                    sleep(PROBE_EVERY).await;
                }
            };
            timeout(LIMIT, gone).await.unwrap();
        };
        let first = started(1).await;
        assert!(process.kill());
        let second = started(2).await;
        gone(first).await;
        stop.send_replace(true);
        timeout(LIMIT, process.gone()).await.unwrap();
        gone(second).await;
    }

    #[tokio::test]
    async fn it_is_unwell_when_it_does_not_answer_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut recipe = recipe(dir.path(), "exec sleep 1000");
        recipe.probe = Probe::Accepts(address.port());
        recipe.check = Some(Check { every: Duration::from_millis(20), failures: 2 });
        let mut process = Process::start(recipe, stopped);
        wait_for(&mut process, |status| status.phase == Phase::Ready).await;
        drop(listener);
        wait_for(&mut process, |status| status.phase == Phase::Unwell).await;
        let _listener = tokio::net::TcpListener::bind(address).await.unwrap();
        wait_for(&mut process, |status| status.phase == Phase::Ready).await;
        assert_eq!(process.status().deaths, 0);
    }

    #[tokio::test]
    async fn it_is_ready_once_it_accepts() {
        let dir = tempfile::tempdir().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut recipe = recipe(dir.path(), "exec sleep 1000");
        recipe.probe = Probe::Accepts(listener.local_addr().unwrap().port());
        let mut process = Process::start(recipe, stopped);
        wait_for(&mut process, |status| status.phase == Phase::Ready).await;
    }
}
