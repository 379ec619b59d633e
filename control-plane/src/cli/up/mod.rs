//! `pillion up`: the processes of this machine, each instance with its sidecar, and a control plane for them.
//!
//! [`supervisor`] starts, replaces and stops instances, [`control`] lets other commands talk to it over a Unix socket,
//! [`tail`] shows what the processes write.

mod commands;
mod control;
mod supervisor;
mod tail;

pub use commands::{
    DownArgs, LogsArgs, PsArgs, RestartArgs, ScaleArgs, down, logs, ps, restart, scale,
};

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::intent::{Process, Severity};
use crate::source::files::Files;
use supervisor::Supervisor;

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
}

/// Starts everything and attends to it until Ctrl-C, SIGTERM or `pillion down`.
///
/// # Errors
/// When the files have errors, or a process does not get ready; the message has the end of its log.
pub async fn run(args: UpArgs) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let processes = read(&args.file)?;
    std::fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot make {}", args.data_dir.display()))?;
    let data_dir = args.data_dir.canonicalize()?;
    let (lines, shown) = mpsc::unbounded_channel();
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let printer = tokio::spawn(tail::print(shown, colour, args.quiet));
    let socket = control::Socket::bind(&data_dir)?;
    let supervisor = Supervisor::start(&args.file, &data_dir, lines).await?;
    let supervisor = Arc::new(supervisor);
    let (down, mut asked_down) = mpsc::channel(1);
    let serving = tokio::spawn(socket.serve(Arc::clone(&supervisor), down));
    let started = tokio::select! {
        started = bring_up(&supervisor, processes) => started.map(|()| true),
        _ = interrupt.recv() => Ok(false),
        _ = terminate.recv() => Ok(false),
    };
    if let Ok(true) = started {
        supervisor.say("everything is up; `pillion ps` shows it, Ctrl-C stops it");
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = asked_down.recv() => {}
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

async fn bring_up(supervisor: &Supervisor, processes: Vec<Arc<Process>>) -> anyhow::Result<()> {
    for process in processes {
        supervisor.add(process).await?;
    }
    Ok(())
}

/// The processes of the files, in the order of their names.
fn read(path: &Path) -> anyhow::Result<Vec<Arc<Process>>> {
    let parsed = Files::new(path).reload().context("nothing could be read")?;
    let errors: Vec<String> = parsed
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    if !errors.is_empty() {
        bail!("{}", errors.join("\n"));
    }
    let processes: Vec<_> = parsed.intent.processes.into_values().collect();
    if processes.is_empty() {
        bail!("{}: expected at least one document of kind Process", path.display());
    }
    Ok(processes)
}
