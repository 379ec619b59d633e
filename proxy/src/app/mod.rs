//! Putting the proxy together: flags, bootstrap, threads, signals.

mod address;
pub mod ask_health;
mod attend;
mod certs;
pub mod flags;
mod footprint;
mod gateway;
mod health;
mod hot_restart;
mod leave;
mod loggers;
mod own_ports;
mod proxy;
mod publish;
pub mod redirect;
mod scarce;
mod server_stats;
mod sidecar;
mod signals;
mod spans;
mod state;
pub mod systemd;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use flags::{Command, Flags, Mode};
use hot_restart::Heritage;
use pillion_xds::json::{self, UnknownFields};
use proxy::Proxy;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{oneshot, watch};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cluster;
use crate::model::Map;
use crate::net::{cgroup, rlimit};
use crate::tls::{self, TlsError};
use crate::xds::local::Everything;
use crate::xds::translate::bootstrap::{self, Bootstrap};
use crate::xds::translate::{Refused, Resource};

/// Run the proxy with these arguments (the first is the program's name).
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            let code = u8::from(error.use_stderr());
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match &flags.command {
        Some(Command::Gateway { args }) => return gateway::run(args),
        Some(Command::Redirect(args)) => return redirect::run(args),
        Some(Command::Leave(args)) => return leave::run(args),
        Some(Command::Health(args)) => return ask_health::run(args),
        None => {}
    }
    let logs = start_logging(&flags);
    let heritage = match flags.mode {
        Mode::Serve => hot_restart::inherit(&mut flags),
        Mode::Validate => Ok(Heritage::default()),
    };
    let heritage = match heritage {
        Ok(heritage) => heritage,
        Err(error) => {
            eprintln!("pillion-proxy: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (bootstrap, plan) = match read(&flags) {
        Ok(read) => read,
        Err(problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            return ExitCode::FAILURE;
        }
    };
    if flags.mode == Mode::Validate {
        let problems = unusable(&bootstrap);
        if !problems.is_empty() {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            return ExitCode::FAILURE;
        }
        let place = flags.config.as_ref().map_or_else(String::new, |p| p.display().to_string());
        println!("configuration '{place}' OK");
        return ExitCode::SUCCESS;
    }
    code(serve(&flags, (bootstrap, plan), None, logs, heritage))
}

/// Run the proxy within a program that makes its resources itself, and says anew what there shall be whenever that
/// changes. `bootstrap` is a node and an admin endpoint, and whatever is not going to change. Its listeners that are
/// there from the start must be served, or it does not start.
pub fn embed(flags: &Flags, bootstrap: &str, given: watch::Receiver<Arc<Everything>>) -> ExitCode {
    let logs = start_logging(flags);
    let mut flags = flags.clone();
    let heritage = match hot_restart::inherit(&mut flags) {
        Ok(heritage) => heritage,
        Err(error) => return code(Err(error)),
    };
    match compile(bootstrap, "the bootstrap", &flags) {
        Ok(bootstrap) => code(serve(&flags, (bootstrap, None), Some(given), logs, heritage)),
        Err(problems) => {
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            ExitCode::FAILURE
        }
    }
}

fn code(served: Result<(), String>) -> ExitCode {
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pillion-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Changes what is logged while the proxy runs.
type Logs = reload::Handle<Targets, tracing_subscriber::Registry>;

/// None: there is a logger already (`pillion proxy`).
fn start_logging(flags: &Flags) -> Option<Logs> {
    let info = |_| Targets::new().with_default(LevelFilter::INFO);
    let filter = flags.log_level.parse().unwrap_or_else(info);
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).try_init().ok().map(|()| handle)
}

/// The bootstrap, from a file, from text, or made for a sidecar. Errors are one a line.
fn read(flags: &Flags) -> Result<(Bootstrap, Option<sidecar::Plan>), Vec<String>> {
    let (text, place) = match (&flags.config, &flags.config_yaml) {
        (Some(path), _) => {
            let place = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| vec![format!("{place}: {e}")])?;
            (text, place)
        }
        (None, Some(text)) => (text.clone(), "--config-yaml".to_owned()),
        (None, None) => {
            let plan = sidecar::plan(flags).map_err(|error| vec![error])?;
            let text = plan.bootstrap.to_string();
            return Ok((compile(&text, "the sidecar's bootstrap", flags)?, Some(plan)));
        }
    };
    Ok((compile(&text, &place, flags)?, None))
}

fn compile(text: &str, place: &str, flags: &Flags) -> Result<Bootstrap, Vec<String>> {
    let mut bootstrap = translate(text, place, flags)?;
    bootstrap.overload = scarce::manager(flags, bootstrap.overload.as_ref())
        .map_err(|problem| vec![format!("{place}: {problem}")])?;
    Ok(bootstrap)
}

fn translate(text: &str, place: &str, flags: &Flags) -> Result<Bootstrap, Vec<String>> {
    let unknown =
        if flags.allow_unknown_static_fields { UnknownFields::List } else { UnknownFields::Refuse };
    let parsed = json::parse(text, unknown).map_err(|error| {
        error.problems.iter().map(|problem| format!("{place}: {problem}")).collect::<Vec<_>>()
    })?;
    let unknown = parsed.unknown.len() as u64;
    let made = bootstrap::bootstrap(&parsed.message);
    made.map(|made| Bootstrap { unknown_fields: unknown, ..made }).map_err(|refused| {
        let line = |one: &Refused| match parsed.places.find(&one.field) {
            Some(at) => format!("{place}:{}:{}: {one}", at.line, at.column),
            None => format!("{place}: {one}"),
        };
        refused.iter().map(line).collect()
    })
}

/// Certificates and keys of the bootstrap that could not be used, one a line. Secrets that are still
/// to come count as good.
fn unusable(bootstrap: &Bootstrap) -> Vec<String> {
    let mut secrets = Map::default();
    for resource in &bootstrap.resources {
        if let Resource::Secret(secret) = resource {
            secrets.insert_mut(Arc::clone(&secret.name), Arc::clone(secret));
        }
    }
    let mut problems = Vec::new();
    let mut tell = |place: String, made: Result<(), TlsError>| match made {
        Ok(()) | Err(TlsError::MissingSecret(_)) => {}
        Err(error) => problems.push(format!("{place}: {error}")),
    };
    for resource in &bootstrap.resources {
        match resource {
            Resource::Listener(listener) => {
                let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
                for config in chains.filter_map(|chain| chain.tls.as_deref()) {
                    let place = format!("listener `{}`", listener.name);
                    tell(place, tls::server_config(config, &secrets).map(drop));
                }
            }
            Resource::Cluster(cluster, _) => {
                for config in cluster.tls_contexts() {
                    let place = format!("cluster `{}`", cluster.name);
                    tell(place, tls::client_config(config, &secrets).map(drop));
                }
            }
            _ => {}
        }
    }
    problems
}

/// The threads: one that controls, and workers that serve.
struct Threads {
    control: Runtime,
    workers: Vec<Handle>,
    /// Dropped at the end, which lets the workers end.
    _ends: Vec<oneshot::Sender<()>>,
}

fn start_threads(count: usize) -> std::io::Result<Threads> {
    let control = Builder::new_current_thread().enable_all().build()?;
    let mut workers = Vec::with_capacity(count);
    let mut ends = Vec::with_capacity(count);
    for index in 0..count {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        workers.push(runtime.handle().clone());
        let (end, ended) = oneshot::channel::<()>();
        ends.push(end);
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            cluster::set_worker(index);
            runtime.block_on(async {
                let _ = ended.await;
            });
        })?;
    }
    Ok(Threads { control, workers, _ends: ends })
}

fn serve(
    flags: &Flags,
    (bootstrap, plan): (Bootstrap, Option<sidecar::Plan>),
    given: Option<watch::Receiver<Arc<Everything>>>,
    logs: Option<Logs>,
    heritage: Heritage,
) -> Result<(), String> {
    if let Err(error) = rlimit::raise_nofile() {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    // The provider seeds its random source here, and not in the first handshake.
    tls::warm_up().map_err(|error| error.to_string())?;
    let count = flags.concurrency.unwrap_or_else(cgroup::default_workers).max(1);
    let threads = start_threads(count).map_err(|error| format!("cannot start threads: {error}"))?;
    threads.control.block_on(async {
        let given_flags = (flags, logs);
        let proxy =
            Proxy::new(&bootstrap, threads.workers.clone(), given_flags, &heritage).given(given);
        proxy.attend(threads.workers.clone(), heritage.epoch);
        proxy.run(flags, bootstrap, plan, heritage).await
    })
}
