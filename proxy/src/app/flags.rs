//! The command line and the environment.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// A light proxy that speaks Envoy's xDS v3.
///
/// With -c it runs an Envoy v3 bootstrap (YAML or JSON). Without, the flags make the bootstrap of
/// a sidecar that joins a Pillion control plane.
#[derive(Clone, Debug, Parser)]
#[command(name = "pillion-proxy", version, about)]
pub struct Flags {
    /// Envoy v3 bootstrap, YAML or JSON.
    #[arg(short = 'c', long = "config-path", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Bootstrap given as text, in place of a file.
    #[arg(long, value_name = "YAML", conflicts_with = "config")]
    pub config_yaml: Option<String>,
    /// Serve, or only check the bootstrap.
    #[arg(long, value_enum, default_value = "serve")]
    pub mode: Mode,
    /// Worker threads. Default: by the CPU quota, 1 or 2.
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// How long requests under way may take to finish after SIGTERM, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub drain_time_s: u64,
    /// Folder for the last good configuration and the identity.
    #[arg(long, value_name = "DIR", env = "PILLION_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Log level: off, error, warn, info, debug or trace, or a filter such as `info,hyper=warn`.
    #[arg(short, long, value_name = "LEVEL", default_value = "info", env = "PILLION_LOG")]
    pub log_level: String,
    /// Accept fields that are not known in a static bootstrap.
    #[arg(long)]
    pub allow_unknown_static_fields: bool,
    /// Port of the admin endpoint on loopback (a sidecar's; a bootstrap says its own). 0: any.
    #[arg(long, value_name = "PORT", default_value_t = 15000)]
    pub admin_port: u16,
    /// What a sidecar needs to know.
    #[command(flatten)]
    pub sidecar: Sidecar,
}

/// What a sidecar without a bootstrap needs to know.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Sidecar of a Pillion mesh")]
pub struct Sidecar {
    /// Control plane: HOST:PORT or https://HOST:PORT (TLS), http://HOST:PORT (loopback only).
    #[arg(long, value_name = "ADDRESS", env = "PILLION_CONTROL_PLANE")]
    pub control_plane: Option<String>,
    /// Service that this sidecar stands beside.
    #[arg(long, env = "PILLION_SERVICE")]
    pub service: Option<String>,
    /// Its namespace.
    #[arg(long, default_value = "default", env = "PILLION_NAMESPACE")]
    pub namespace: String,
    /// Service account of its identity. Default: the service's name.
    #[arg(long, env = "PILLION_SERVICE_ACCOUNT")]
    pub service_account: Option<String>,
    /// Name of this instance. Default: service and process id.
    #[arg(long, env = "PILLION_INSTANCE")]
    pub name: Option<String>,
    /// Port of the application on loopback. None: a client without a service of its own.
    #[arg(long, value_name = "PORT", env = "PILLION_APP_PORT")]
    pub app: Option<u16>,
    /// File with the join token.
    #[arg(long, value_name = "FILE", env = "PILLION_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Address that other sidecars reach this one at.
    #[arg(long, default_value = "127.0.0.1", env = "PILLION_ADDRESS")]
    pub address: IpAddr,
    /// Port for requests from other sidecars.
    #[arg(long, value_name = "PORT", default_value_t = 15006)]
    pub inbound_port: u16,
    /// Port, on loopback, for requests of the application.
    #[arg(long, value_name = "PORT", default_value_t = 15001)]
    pub outbound_port: u16,
    /// Label of this instance, KEY=VALUE; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Where to send traces, in place of what the mesh says.
    #[arg(long, value_name = "URL", env = "PILLION_OTLP")]
    pub otlp: Option<String>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Serve.
    Serve,
    /// Check the bootstrap, print what is wrong, end.
    Validate,
}

impl Sidecar {
    /// Labels by name.
    pub fn label_map(&self) -> HashMap<String, String> {
        self.labels.iter().cloned().collect()
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
