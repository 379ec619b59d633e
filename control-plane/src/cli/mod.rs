//! The person's command line.

pub mod check;
pub mod demo;

use std::process::ExitCode;

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
    /// One service of the example shop; `demo` starts these.
    #[command(name = "__shop", hide = true)]
    Shop(Box<pillion_shop::Args>),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.exit_with_stdin {
        demo::end_with_stdin();
    }
    let outcome = match cli.command {
        Command::Demo(args) => block_on(demo::run(args)),
        Command::Check(args) => Ok(check::run(&args)),
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
