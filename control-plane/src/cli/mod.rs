//! The person's command line.

pub mod ca;
pub mod check;
pub mod control_plane;
pub mod demo;
pub mod gateway;
pub mod health;
pub mod image;
pub mod inject;
pub mod install;
mod proof;
pub mod run;
pub mod status;
pub mod up;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Pillion: a light service mesh.
#[derive(Debug, Parser)]
#[command(name = "pillion", version)]
struct Cli {
    /// Ends this process when its standard input closes, that is, when whoever started it is gone.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a little shop of services in a mesh of its own, sends traffic through it, and shows what happens.
    Demo(demo::DemoArgs),
    /// Checks mesh files: what is wrong with them, and where.
    Check(check::CheckArgs),
    /// Runs the control plane: reads the mesh's YAML, issues certificates, and feeds sidecars, Envoys and gRPC
    /// clients over xDS.
    ControlPlane(Box<control_plane::ControlPlaneArgs>),
    /// Runs the sidecar proxy; takes the arguments of `pillion-proxy`.
    #[command(disable_help_flag = true)]
    Proxy {
        /// The arguments of `pillion-proxy`; see `pillion proxy --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Runs a gateway of one file, with nothing else running: HTTP, HTTPS and routes before instances of services.
    Gateway(gateway::GatewayArgs),
    /// Runs one command in the mesh: its sidecar first, then the command, which may ask for services by HTTP_PROXY.
    ///
    /// `pillion run --service NAME --control-plane HOST:PORT --token-file FILE [--app PORT] -- COMMAND`
    #[command(disable_help_flag = true)]
    Run {
        /// The arguments of a sidecar, `--`, and the command; see `pillion run --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Runs the processes of a mesh on this machine, each instance with its sidecar.
    Up(up::UpArgs),
    /// Shows the instances of a running `pillion up`.
    Ps(up::PsArgs),
    /// Shows what a process of a running `pillion up` wrote.
    Logs(up::LogsArgs),
    /// Replaces the instances of a process one by one, without a failed request.
    Restart(up::RestartArgs),
    /// Changes the number of instances of a process.
    Scale(up::ScaleArgs),
    /// Stops a running `pillion up`.
    Down(up::DownArgs),
    /// Prints Kubernetes manifests with sidecars in their pods.
    Inject(inject::InjectArgs),
    /// Prints what runs Pillion on Kubernetes, or writes a Helm chart of it.
    Install(install::InstallArgs),
    /// Shows what is connected to a control plane, what it has, and what is wrong.
    Status(status::StatusArgs),
    /// Tells by its exit code whether the control plane on this machine serves; for health checks of containers.
    Health(health::HealthArgs),
    /// Makes a container image of a program, without an engine and without a base image.
    Image(Box<image::ImageArgs>),
    /// The certificate authority: shows the root, issues certificates into files.
    Ca(ca::CaArgs),
    /// Enters a control group and becomes a program; `up` starts programs with limits by this.
    #[command(name = "__in-group", hide = true, disable_help_flag = true)]
    InGroup {
        /// How many groups, their folders, the program, its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Ends the programs that it is told of on its standard input, when that closes; `up` starts it.
    #[command(name = "__keeper", hide = true)]
    Keeper,
    /// One service of the example shop; `demo` starts these.
    #[command(name = "__shop", hide = true)]
    Shop(Box<pillion_shop::Args>),
}

/// Where the control plane keeps its data unless it is told otherwise, below the working directory.
pub(crate) const DEFAULT_DATA_DIR: &str = "pillion-data";

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.exit_with_stdin {
        demo::end_with_stdin();
    }
    let outcome = match cli.command {
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Check(args) => Ok(check::run(&args)),
        Command::ControlPlane(args) => block_on(control_plane::run(*args)),
        Command::Proxy { args } => {
            Ok(pillion_proxy::app::run([OsString::from("pillion-proxy")].into_iter().chain(args)))
        }
        Command::Gateway(args) => gateway::run(args),
        Command::Run { args } => block_on(run::run(args)),
        Command::Up(args) => block_on(up::run(args)),
        Command::Ps(args) => block_on(up::ps(args)),
        Command::Logs(args) => block_on(up::logs(args)),
        Command::Restart(args) => block_on(up::restart(args)),
        Command::Scale(args) => block_on(up::scale(args)),
        Command::Down(args) => block_on(up::down(args)),
        Command::Inject(args) => inject::run(args),
        Command::Install(args) => install::run(&args),
        Command::Status(args) => block_on(status::run(args)),
        Command::Health(args) => block_on(health::run(args)),
        Command::Image(args) => image::run(&args),
        Command::Ca(args) => block_on(ca::run(args)),
        Command::InGroup { args } => Ok(up::enter_group(&args)),
        Command::Keeper => Ok(demo::keeper::run()),
        Command::Shop(args) => {
            block_on(async { pillion_shop::run(*args).await.map(|()| ExitCode::SUCCESS) })
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("pillion: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs `command` on a runtime of one thread: what the person's commands do is wait.
fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Reads `90s`, `10m`, `24h` or `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is no time: expected a number and ms, s, m or h, such as 24h");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    let millis = number.checked_mul(millis).filter(|millis| *millis > 0).ok_or_else(bad)?;
    Ok(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_proxy_gets_its_arguments_as_they_are() {
        let cli = Cli::parse_from(["pillion", "proxy", "-c", "x.yaml", "--help"]);
        match cli.command {
            Command::Proxy { args } => assert_eq!(args, ["-c", "x.yaml", "--help"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn times_are_read() {
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for bad in ["", "10", "h", "0s", "10 s", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
