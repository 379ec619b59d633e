//! `pillion run`: one command with a sidecar of its own. The sidecar is there before the command starts and goes after
//! it; the exit code is the command's, so that jobs finish.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{CommandFactory, Parser};
use pillion_proxy::app::flags::Flags;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::demo::fleet::Ports;
use super::demo::keeper::Keeper;
use super::demo::own_program;
use super::demo::process::{Phase, Probe, Process, Recipe, STOP_GRACE};
use crate::intent::Restart;

/// How long the sidecar may take to get its identity and its first configuration.
const WARM_LIMIT: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);
/// What a shell says of a command that is not there, and of one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;
/// What a shell adds to the number of the signal that ended a command.
const BY_SIGNAL: i32 = 128;

/// Runs `args`: those of a sidecar, `--`, and a command.
///
/// # Errors
/// When the arguments are not understood, or the sidecar does not get ready.
pub async fn run(args: Vec<OsString>) -> anyhow::Result<ExitCode> {
    let (sidecar_args, command) = split(args);
    let flags = match parse(&sidecar_args) {
        Ok(flags) => flags,
        Err(error) => {
            error.print().context("cannot print")?;
            return Ok(ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1)));
        }
    };
    let Some((program, command_args)) = command.split_first() else {
        bail!("expected a command after `--`, as in `pillion run --service web -- ./web`");
    };
    let plan = Plan::new(sidecar_args, &flags)?;
    let (stop, stopped) = watch::channel(false);
    let mut sidecar = Process::start(plan.recipe, stopped);
    // From here on Ctrl-C and the like are the command's, and before it starts they end us.
    let mut signals = listen()?;
    tokio::select! {
        warm = warm(&sidecar) => warm?,
        Some(early) = signals.recv() => {
            stop.send_replace(true);
            sidecar.gone().await;
            return Ok(exit_code(BY_SIGNAL + early.as_raw()));
        }
    }
    let mut command = Command::new(program);
    command.args(command_args).envs(plan.environment).kill_on_drop(true);
    let keeper = Keeper::start(&own_program()).context("cannot start a keeper")?;
    let alone = has_terminal();
    if !alone {
        // So that whatever it starts can be ended with it. In a terminal it has to be where the terminal is ours.
        command.process_group(0);
    }
    let code = match command.spawn() {
        Ok(child) => {
            // If we are killed, the command does not go on without its sidecar.
            let _kept = child.id().map(|pid| match alone {
                true => keeper.keep_alone(pid, STOP_GRACE),
                false => keeper.keep(pid, STOP_GRACE),
            });
            code_of(attend(child, &mut signals).await?)
        }
        Err(error) => {
            eprintln!("pillion: cannot run {}: {error}", program.display());
            let found = error.kind() != std::io::ErrorKind::NotFound;
            ExitCode::from(if found { NOT_RUN } else { NOT_FOUND })
        }
    };
    stop.send_replace(true);
    sidecar.gone().await;
    Ok(code)
}

/// What stands before and after the first `--`.
fn split(mut args: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    match args.iter().position(|arg| arg == "--") {
        Some(at) => {
            let command = args.split_off(at + 1);
            args.pop();
            (args, command)
        }
        None => (args, Vec::new()),
    }
}

/// The sidecar's own flags, under our name.
fn parse(args: &[OsString]) -> Result<Flags, clap::Error> {
    let mut named = Flags::command()
        .name("pillion run")
        .bin_name("pillion run")
        .override_usage("pillion run --service NAME [SIDECAR OPTIONS] -- COMMAND [ARGUMENTS]")
        .about("Runs one command in the mesh: its sidecar first, then the command.")
        .long_about(None::<&str>);
    let all =
        std::iter::once(OsStr::new("pillion run")).chain(args.iter().map(OsString::as_os_str));
    named.try_get_matches_from_mut(all.clone())?;
    let flags = Flags::try_parse_from(all)?;
    if flags.config.is_some() || flags.config_yaml.is_some() {
        let what = "a bootstrap of its own is for `pillion proxy`; `run` makes that of a sidecar\n";
        return Err(named.error(clap::error::ErrorKind::ArgumentConflict, what));
    }
    if flags.sidecar.service.is_none() || flags.sidecar.control_plane.is_none() {
        let what =
            "expected --service and --control-plane (or PILLION_SERVICE, PILLION_CONTROL_PLANE)\n";
        return Err(named.error(clap::error::ErrorKind::MissingRequiredArgument, what));
    }
    Ok(flags)
}

/// How the sidecar is started, and what the command is told.
struct Plan {
    recipe: Recipe,
    environment: Vec<(&'static str, String)>,
}

impl Plan {
    /// Ports that nobody asked for are free ones, so that several commands can run on one machine.
    fn new(mut args: Vec<OsString>, flags: &Flags) -> anyhow::Result<Self> {
        let mut ports = Ports::take(3)?;
        let mut port = |flag: &str, said: u16| {
            let given = args.iter().any(|arg| {
                let text = arg.to_string_lossy();
                text == flag || text.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
            });
            if given {
                return said;
            }
            let free = ports.next();
            args.extend([flag.into(), free.to_string().into()]);
            free
        };
        let admin = port("--admin-port", flags.admin_port);
        let outbound = port("--outbound-port", flags.sidecar.outbound_port);
        port("--inbound-port", flags.sidecar.inbound_port);
        let proxy = format!("http://{}", SocketAddr::from((Ipv4Addr::LOCALHOST, outbound)));
        let mut environment = vec![
            ("HTTP_PROXY", proxy.clone()),
            ("http_proxy", proxy.clone()),
            ("MESH_PROXY", proxy),
            ("NO_PROXY", "localhost,127.0.0.1,::1".to_owned()),
            ("no_proxy", "localhost,127.0.0.1,::1".to_owned()),
        ];
        if let Some(app) = flags.sidecar.main_port() {
            environment.push(("PORT", app.to_string()));
        }
        let recipe = Recipe {
            name: "sidecar".to_owned(),
            program: own_program(),
            args: ["--exit-with-stdin".into(), "proxy".into()].into_iter().chain(args).collect(),
            env: Vec::new(),
            dir: None,
            log: None,
            probe: Probe::Answers(admin, "/ready".into()),
            check: None,
            restart: Restart::Always,
            grace: STOP_GRACE,
            leashed: true,
            keeper: None,
        };
        Ok(Self { recipe, environment })
    }
}

async fn warm(sidecar: &Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + WARM_LIMIT;
    loop {
        let status = sidecar.status();
        if status.phase == Phase::Ready {
            return Ok(());
        }
        if status.deaths > 0 {
            bail!("the sidecar {}", status.last_end.unwrap_or_default());
        }
        if Instant::now() > deadline {
            bail!(
                "the sidecar is not ready within {} s: is the control plane there?",
                WARM_LIMIT.as_secs()
            );
        }
        sleep(POLL_EVERY).await;
    }
}

/// Whether somebody sits in front of this command.
fn has_terminal() -> bool {
    std::io::stdin().is_terminal()
        || std::io::stdout().is_terminal()
        || std::io::stderr().is_terminal()
}

/// Signals that people and supervisors send. Those that a terminal sends to the whole group, the command gets from
/// there.
fn listen() -> std::io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let terminal = has_terminal();
    for (kind, number, of_terminal) in [
        (SignalKind::terminate(), Signal::TERM, false),
        (SignalKind::hangup(), Signal::HUP, false),
        (SignalKind::user_defined1(), Signal::USR1, false),
        (SignalKind::user_defined2(), Signal::USR2, false),
        (SignalKind::interrupt(), Signal::INT, true),
        (SignalKind::quit(), Signal::QUIT, true),
    ] {
        let mut stream = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if !(of_terminal && terminal) && sender.send(number).is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

/// Until the command ends, handing signals on to it.
async fn attend(
    mut child: tokio::process::Child,
    signals: &mut mpsc::UnboundedReceiver<Signal>,
) -> std::io::Result<ExitStatus> {
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    loop {
        tokio::select! {
            ended = child.wait() => return ended,
            Some(received) = signals.recv() => {
                if let Some(pid) = pid {
                    // It may have ended this moment.
                    let _ = kill_process(pid, received);
                }
            }
        }
    }
}

fn code_of(status: ExitStatus) -> ExitCode {
    exit_code(status.code().unwrap_or_else(|| BY_SIGNAL + status.signal().unwrap_or(0)))
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_command_begins_after_the_first_dashes() {
        let (own, command) = split(os(&["--service", "a", "--", "sh", "--", "x"]));
        assert_eq!((own, command), (os(&["--service", "a"]), os(&["sh", "--", "x"])));
        assert_eq!(split(os(&["--service", "a"])).1, os(&[]));
    }

    #[test]
    fn ports_are_free_ones_unless_they_are_said() {
        let args = os(&["--service", "a", "--control-plane", "x:1", "--outbound-port=4711"]);
        let plan = Plan::new(args.clone(), &parse(&args).unwrap()).unwrap();
        let proxy = plan.environment.iter().find(|(name, _)| *name == "HTTP_PROXY").unwrap();
        assert_eq!(proxy.1, "http://127.0.0.1:4711");
        let has = |flag: &str| plan.recipe.args.iter().filter(|arg| *arg == flag).count();
        assert_eq!((has("--admin-port"), has("--inbound-port"), has("--outbound-port")), (1, 1, 0));
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = parse(&os(&["--service", "a"])).unwrap_err().to_string();
        assert!(error.contains("--control-plane"), "{error}");
        let error = parse(&os(&["--servce", "a"])).unwrap_err().to_string();
        assert!(error.contains("--servce"), "{error}");
    }
}
