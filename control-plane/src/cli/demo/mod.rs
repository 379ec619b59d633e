//! `pillion demo`: a shop of plain processes in a mesh of its own, traffic through it, and a live picture of that.
//!
//! [`fleet`] starts and supervises the processes, [`load`] sends the traffic, [`scrape`] and [`monitor`] ask the
//! sidecars, [`screen`] and [`progress`] show, [`summary`] is what remains.

pub(crate) mod fleet;
pub(crate) mod http_get;
pub(super) mod keeper;
mod leash;
mod load;
mod monitor;
pub(crate) mod process;
mod progress;
mod scrape;
mod screen;
mod shop;
mod summary;
mod topology;

pub use leash::end_with_stdin;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, sleep};

use fleet::{Fleet, FleetPlan};
use load::{Load, LoadPlan};
use monitor::Monitor;
use progress::{Progress, front_door, parts_of};
use screen::{Key, Screen};
use summary::{Summary, millis, share};

/// Requests a second while somebody watches, unless `--rate` says otherwise.
const WATCHING_RATE: f64 = 100.0;
/// So many good answers in a row, before anything is counted, say that every part knows every other.
const WARM_ANSWERS: u32 = 20;
const WARM_LIMIT: Duration = Duration::from_secs(60);
const DRAW_EVERY: Duration = Duration::from_millis(200);
const SECOND: Duration = Duration::from_secs(1);
/// Without a screen there is a line of numbers every so many seconds.
const LINE_EVERY: u64 = 5;

/// What `pillion demo` can be told.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Ends after this many requests, with exit code 1 if one of them failed. Without it, runs until it is stopped.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// What the summary on stdout looks like.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Sends the traces of every tenth request there (OTLP over gRPC, as Jaeger takes it on port 4317).
    #[arg(long, value_name = "URL", conflicts_with = "dir")]
    pub otlp: Option<http::Uri>,
    /// Connections to the front, each with one request at a time.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub concurrency: usize,
    /// Requests a second. Default: 100, or as fast as the answers come with `--requests`.
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
    /// The mesh's YAML files. Default: a copy of the example's, in a folder that is removed at the end.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Instances of every service.
    #[arg(long, default_value_t = 2, value_parser = at_least_one)]
    pub replicas: usize,
    /// No live picture, as when stdout is not a terminal.
    #[arg(long)]
    pub no_tui: bool,
    /// Writes what the processes log into this folder, and keeps it; beside that, once everything is ready,
    /// `fleet.json` with the processes' ids and ports.
    #[arg(long, value_name = "DIR")]
    pub keep_logs: Option<PathBuf>,
}

/// The form of the summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table, for people.
    Text,
    /// One JSON object, for scripts.
    Json,
}

/// Runs the demo to its end. Exit code 1 when `--requests` was given, and one of them failed or was not sent.
///
/// # Errors
/// When the mesh does not start, or its front does not answer; the message says which part it was and has the end
/// of its log.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut interrupt = Interrupt::listen()?;
    let stage = Stage::prepare(&args)?;
    let mut progress = Progress::new();
    progress.say(&format!(
        "Pillion demo: a shop of five services (one in two versions), {} instances each, in a mesh of its own\n  \
         mesh files: {}\n  logs: {}",
        args.replicas,
        stage.mesh_dir.display(),
        stage.log_dir.display()
    ));
    let outcome = play(&args, &stage, &mut progress, &mut interrupt).await;
    let good = outcome.as_ref().is_ok_and(|summary| summary.is_good(args.requests));
    if !good && !outcome.as_ref().is_err_and(|error| error.is::<Stopped>()) {
        progress.say(&format!("the logs are kept in {}", stage.keep().display()));
    }
    let summary = outcome?;
    match args.output {
        Output::Text => print!("\n{}", summary.to_text()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&summary)?),
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts the fleet, attends to it, and stops it whatever happened.
async fn play(
    args: &DemoArgs,
    stage: &Stage,
    progress: &mut Progress,
    interrupt: &mut Interrupt,
) -> anyhow::Result<Summary> {
    let fleet = tokio::select! {
        fleet = Fleet::start(stage.plan(args.replicas)) => fleet?,
        () = interrupt.wait() => bail!(Stopped),
    };
    let outcome = attend(&fleet, args, stage, progress, interrupt).await;
    fleet.stop().await;
    outcome
}

/// From the first process to the last answer.
async fn attend(
    fleet: &Fleet,
    args: &DemoArgs,
    stage: &Stage,
    progress: &mut Progress,
    interrupt: &mut Interrupt,
) -> anyhow::Result<Summary> {
    let plan = load_plan(fleet, args);
    tokio::select! {
        warm = warm_up(fleet, &plan, progress) => warm?,
        () = interrupt.wait() => bail!(Stopped),
    }
    let description = stage.log_dir.join("fleet.json");
    std::fs::write(&description, format!("{:#}\n", fleet.describe()))
        .with_context(|| format!("cannot write {}", description.display()))?;
    let monitor = Monitor::start(fleet, args.requests, stage.mesh_dir.clone()).await;
    let watched = !args.no_tui && args.output == Output::Text && std::io::stdout().is_terminal();
    let screen = watched.then(Screen::open).transpose().context("cannot draw on this terminal")?;
    let load = Load::start(plan);
    Show { fleet, load, monitor, screen }.run(interrupt).await
}

fn load_plan(fleet: &Fleet, args: &DemoArgs) -> LoadPlan {
    let client = fleet.instances.iter().find(|instance| instance.plan.group == shop::CLIENT);
    LoadPlan {
        target: client.expect("the shop has a client").outbound,
        host: shop::FRONT.to_owned(),
        path: "/".to_owned(),
        concurrency: args.concurrency,
        rate: args.rate.or_else(|| args.requests.is_none().then_some(WATCHING_RATE)),
        requests: args.requests,
    }
}

/// Until every process is ready, and the front has answered well some times in a row.
async fn warm_up(fleet: &Fleet, plan: &LoadPlan, progress: &mut Progress) -> anyhow::Result<()> {
    fleet.wait_until_ready(|fleet| progress.show(&parts_of(fleet))).await?;
    let deadline = tokio::time::Instant::now() + WARM_LIMIT;
    let (mut good, mut last_error) = (0, None);
    while good < WARM_ANSWERS {
        match load::probe(plan).await {
            Ok(()) => good += 1,
            Err(error) => {
                (good, last_error) = (0, Some(error));
                sleep(Duration::from_millis(100)).await;
            }
        }
        let mut parts = parts_of(fleet);
        parts.push(front_door(good, WARM_ANSWERS, last_error.as_deref()));
        progress.show(&parts);
        if let Some(error) = &last_error
            && tokio::time::Instant::now() > deadline
        {
            bail!(
                "the front does not answer well within {} s; last: {error}",
                WARM_LIMIT.as_secs()
            );
        }
    }
    Ok(())
}

/// The running demo.
struct Show<'a> {
    fleet: &'a Fleet,
    load: Load,
    monitor: Monitor,
    screen: Option<Screen>,
}

/// What woke the demo up.
enum Wake {
    Finished,
    Stop,
    Key(Key),
    Draw,
    Second,
}

impl Show<'_> {
    /// Until the load is over, or somebody stops it.
    async fn run(mut self, interrupt: &mut Interrupt) -> anyhow::Result<Summary> {
        let mut draws = interval(DRAW_EVERY);
        let mut seconds = interval(SECOND);
        for ticks in [&mut draws, &mut seconds] {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut passed = 0;
        loop {
            let wake = tokio::select! {
                () = self.load.finished() => Wake::Finished,
                () = interrupt.wait() => Wake::Stop,
                key = next_key(&mut self.screen) => Wake::Key(key),
                _ = draws.tick() => Wake::Draw,
                _ = seconds.tick() => Wake::Second,
            };
            match wake {
                Wake::Finished => break,
                Wake::Stop | Wake::Key(Key::Quit) => {
                    self.load.stop();
                    self.load.finished().await;
                    break;
                }
                Wake::Key(Key::Kill) => self.kill_one(),
                Wake::Key(Key::Weights) => self.shift_weights(),
                Wake::Draw => self.draw()?,
                Wake::Second => {
                    self.monitor.tick(self.fleet, &self.load).await;
                    passed += 1;
                    if self.screen.is_none() && passed % LINE_EVERY == 0 {
                        self.print_line();
                    }
                }
            }
        }
        let elapsed = self.load.elapsed();
        self.monitor.tick(self.fleet, &self.load).await;
        Ok(self.monitor.summary(self.fleet, &self.load, elapsed))
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        let Some(screen) = &mut self.screen else { return Ok(()) };
        screen.draw(&self.monitor.view(self.fleet, &self.load)).context("cannot draw")
    }

    fn print_line(&mut self) {
        let view = self.monitor.view(self.fleet, &self.load);
        eprintln!(
            "{:>5} s  {:>8} requests  {:>7.1}/s  {} failed  p50 {}  p99 {}  {} mTLS",
            view.elapsed.as_secs(),
            view.done,
            view.per_second,
            view.failed,
            millis(view.p50_ms),
            millis(view.p99_ms),
            share(view.mtls_percent),
        );
        for event in self.monitor.take_events() {
            eprintln!("         {event}");
        }
    }

    /// Kills an instance whose service has another one that is ready.
    fn kill_one(&mut self) {
        let groups = self.fleet.groups();
        let ready: Vec<_> = groups
            .iter()
            .filter(|(_, members)| members.iter().filter(|i| i.is_ready()).count() > 1)
            .flat_map(|(_, members)| members.iter().filter(|i| i.is_ready()))
            .collect();
        if ready.is_empty() {
            self.monitor.note("no instance can be spared now");
            return;
        }
        let instance = ready[fastrand::usize(..ready.len())];
        instance.kill();
        self.monitor.note(&format!("killed {} and its sidecar", instance.plan.name));
    }

    fn shift_weights(&mut self) {
        let note = match shop::shift_weights(self.monitor.mesh_dir()) {
            Ok(note) => note,
            Err(error) => format!("{error:#}"),
        };
        self.monitor.note(&note);
    }
}

async fn next_key(screen: &mut Option<Screen>) -> Key {
    match screen {
        Some(screen) => screen.key().await,
        None => std::future::pending().await,
    }
}

/// The folders of one demo. What lies in `temporary` is removed at the end.
struct Stage {
    mesh_dir: PathBuf,
    data_dir: PathBuf,
    log_dir: PathBuf,
    temporary: tempfile::TempDir,
}

impl Stage {
    fn prepare(args: &DemoArgs) -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new()
            .prefix("pillion-demo-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let mesh_dir = match &args.dir {
            Some(dir) => dir.canonicalize().with_context(|| format!("--dir {}", dir.display()))?,
            None => {
                let dir = temporary.path().join("mesh");
                shop::write_mesh(&dir, args.otlp.as_ref().map(ToString::to_string).as_deref())?;
                dir
            }
        };
        let log_dir = match &args.keep_logs {
            Some(dir) => std::path::absolute(dir)?,
            None => temporary.path().join("logs"),
        };
        let data_dir = temporary.path().join("data");
        Ok(Self { mesh_dir, data_dir, log_dir, temporary })
    }

    /// Leaves everything where it is, and says where the logs are.
    fn keep(self) -> PathBuf {
        let _ = self.temporary.keep();
        self.log_dir
    }

    fn plan(&self, replicas: usize) -> FleetPlan {
        FleetPlan {
            program: own_program(),
            mesh_dir: self.mesh_dir.clone(),
            data_dir: self.data_dir.clone(),
            log_dir: self.log_dir.clone(),
            instances: shop::instances(replicas),
        }
    }
}

/// The program that this process is, even if its file was replaced since.
pub(crate) fn own_program() -> PathBuf {
    let link = Path::new("/proc/self/exe");
    if link.exists() {
        return link.to_owned();
    }
    std::env::current_exe().unwrap_or_else(|_| "pillion".into())
}

/// Somebody did not want it any more before it had begun.
#[derive(Debug, thiserror::Error)]
#[error("stopped while it was starting")]
struct Stopped;

/// Ctrl-C, or a polite request to stop.
struct Interrupt([Signal; 3]);

impl Interrupt {
    fn listen() -> std::io::Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        Ok(_) => Err("must be more than 0".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
