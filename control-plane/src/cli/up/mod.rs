//! `pillion up`: the processes of this machine, each instance with its sidecar, and a control plane for them.
//!
//! [`supervisor`] starts, replaces and stops instances, [`control`] lets other commands talk to it over a Unix socket,
//! [`tail`] shows what the processes write, [`look`] how, [`limits`] puts them into control groups.

mod commands;
mod control;
mod limits;
mod look;
mod supervisor;
mod tail;

pub use commands::{
    DownArgs, LogsArgs, PsArgs, RestartArgs, ScaleArgs, down, logs, ps, restart, scale,
};

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::intent::{Parsed, Process, Severity};
use crate::source;
use look::{Columns, Look};
use supervisor::Supervisor;

pub(super) use control::admin_of;
pub(super) use limits::enter as enter_group;

/// What `pillion up` can be told.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Folder (or file) with the mesh's YAML, among it the `Process` documents. The control plane watches it.
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub file: PathBuf,
    /// Where the control plane, the sidecars and the logs are kept.
    #[arg(long, value_name = "DIR", env = "PILLION_DATA_DIR", default_value = super::DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
    /// Shows only what `pillion up` itself has to say, not what the processes write.
    #[arg(long)]
    pub quiet: bool,
    /// Sidecars write a line for each request with the ids of its trace, unless the Mesh says otherwise. Default: where a
    /// terminal shows it.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub access_log: Option<bool>,
}

/// Starts everything and attends to it until Ctrl-C, SIGTERM or `pillion down`.
///
/// # Errors
/// When the files have errors, or a process does not get ready; the message has the end of its log.
pub async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let files = source::watch::watch(&args.file)
        .with_context(|| format!("cannot watch {}", args.file.display()))?;
    let processes = read(&files.borrow(), &args.file)?;
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot make {}", args.data_dir.display()))?;
    let data_dir = args.data_dir.canonicalize()?;
    let (lines, shown) = mpsc::unbounded_channel();
    let look = Look::of_stdout();
    let requests = args.access_log.unwrap_or(look.terminal && !args.quiet);
    let columns = Columns::new(look, names(&processes, requests).iter().map(String::as_str));
    let printer = tokio::spawn(tail::print(shown, columns, args.quiet));
    let socket = control::Socket::bind(&data_dir)?;
    let supervisor = Supervisor::start((&args.file, requests), &data_dir, lines).await?;
    let supervisor = Arc::new(supervisor);
    let (down, mut asked_down) = mpsc::channel(1);
    let serving = tokio::spawn(socket.serve(Arc::clone(&supervisor), down));
    let started = tokio::select! {
        started = supervisor.bring_up(processes) => started.map(|()| true),
        _ = interrupt.recv() => Ok(false),
        _ = terminate.recv() => Ok(false),
    };
    if let Ok(true) = started {
        supervisor.say("everything is up; `pillion ps` shows it, Ctrl-C stops it");
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = asked_down.recv() => {}
            () = follow(&supervisor, files) => {}
        }
    }
    supervisor.say("stopping");
    supervisor.stop().await;
    serving.abort();
    let _ = serving.await;
    drop(supervisor);
    let _ = printer.await;
    let _ = std::io::stdout().flush();
    started.map(|_| ExitCode::SUCCESS)
}

/// Who will write lines.
fn names(processes: &[Arc<Process>], requests: bool) -> Vec<String> {
    let suffix = if requests { "-sidecar" } else { "" };
    let of =
        |process: &Arc<Process>| format!("{}-{}{suffix}", process.name.name, process.instances);
    processes.iter().map(of).chain(["control-plane".to_owned()]).collect()
}

/// Does what the edited files say, for ever.
async fn follow(supervisor: &Supervisor, mut files: watch::Receiver<Arc<Parsed>>) {
    loop {
        let parsed = Arc::clone(&files.borrow_and_update());
        match errors(&parsed) {
            None => supervisor.apply(parsed.intent.processes.values()).await,
            Some(errors) => supervisor.say(&format!("nothing is changed:\n{errors}")),
        }
        if files.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

fn errors(parsed: &Parsed) -> Option<String> {
    let errors = parsed.problems.iter().filter(|problem| problem.severity == Severity::Error);
    let errors: Vec<String> = errors.map(ToString::to_string).collect();
    (!errors.is_empty()).then(|| errors.join("\n"))
}

/// The processes of the files, in the order of their names.
fn read(parsed: &Parsed, path: &Path) -> anyhow::Result<Vec<Arc<Process>>> {
    if let Some(errors) = errors(parsed) {
        bail!("{errors}");
    }
    let processes: Vec<_> = parsed.intent.processes.values().cloned().collect();
    if processes.is_empty() {
        bail!("{}: expected at least one document of kind Process", path.display());
    }
    Ok(processes)
}
