//! `pillion health`: the question of whoever watches a control plane's process, such as a container engine.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context;

use super::demo::http_get;

/// What `pillion health` can be told.
#[derive(Debug, clap::Args)]
pub struct HealthArgs {
    /// The control plane's administration address.
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 15080))]
    pub admin: SocketAddr,
}

/// Asks for `/ready`. The exit code is 0 when the control plane serves, 1 when it does not.
///
/// # Errors
/// When nobody answers.
pub async fn run(args: HealthArgs) -> anyhow::Result<ExitCode> {
    let reply = http_get::get(args.admin, "/ready")
        .await
        .with_context(|| format!("the control plane does not answer at {}", args.admin))?;
    println!("{}", String::from_utf8_lossy(&reply.body).trim());
    Ok(if reply.status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
