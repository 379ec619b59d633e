//! The command line and the environment.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, Subcommand, ValueEnum};

use super::ask_health::Health;
use super::redirect::Redirect;

/// A light proxy that speaks Envoy's xDS v3.
///
/// With -c it runs an Envoy v3 bootstrap (YAML or JSON). Without, the flags make the bootstrap of
/// a sidecar that joins a Pillion control plane.
#[derive(Clone, Debug, Parser)]
#[command(name = "pillion-proxy", version, about, args_conflicts_with_subcommands = true)]
pub struct Flags {
    /// Something else than to run the proxy.
    #[command(subcommand)]
    pub command: Option<Command>,
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
    /// Unix socket (this path) by which a new process takes over from this one without refusing a
    /// connection: start it with the same flags, or send SIGUSR2. None: no hot restart.
    #[arg(long, value_name = "PATH", env = "PILLION_HOT_RESTART_SOCKET")]
    pub hot_restart_socket: Option<PathBuf>,
    /// How long connections may go on after another process took over, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub parent_shutdown_time_s: u64,
    /// Memory that the proxy may take, in bytes, or with Ki, Mi or Gi: from 92 % of it connections end after their
    /// request, from 95 % requests are answered with 503. None: no such limit.
    #[arg(long, value_name = "BYTES", env = "PILLION_MAX_MEMORY")]
    pub max_memory: Option<Bytes>,
    /// Connections that clients may have open, over all listeners; more are closed at once. None: no limit.
    #[arg(long, value_name = "N", env = "PILLION_MAX_CONNECTIONS", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_connections: Option<u64>,
    /// Log level: off, error, warn, info, debug or trace, or a filter such as `info,hyper=warn`.
    #[arg(short, long, value_name = "LEVEL", default_value = "info", env = "PILLION_LOG")]
    pub log_level: String,
    /// Accept fields that are not known in a static bootstrap.
    #[arg(long)]
    pub allow_unknown_static_fields: bool,
    /// Port of the admin endpoint on loopback (a sidecar's; a bootstrap says its own). 0: any.
    #[arg(long, value_name = "PORT", default_value_t = 15000, env = "PILLION_ADMIN_PORT")]
    pub admin_port: u16,
    /// Port, at the sidecar's address, of /healthz/ready, /healthz/live and the application's own probes, in plain
    /// HTTP. None: no such port.
    #[arg(long, value_name = "PORT", env = "PILLION_HEALTH_PORT")]
    pub health_port: Option<u16>,
    /// Probes of the application that the health port answers at /app-health/CONTAINER/PROBE; `pillion inject` writes
    /// them.
    #[arg(long, value_name = "JSON", default_value = "{}", env = "PILLION_APP_PROBES")]
    pub app_probes: String,
    /// What a sidecar needs to know.
    #[command(flatten)]
    pub sidecar: Sidecar,
}

/// What the program can do besides running the proxy.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run a gateway of one file, with nothing else running: `pillion gateway`, which has to be installed.
    #[command(disable_help_flag = true)]
    Gateway {
        /// The arguments of `pillion gateway`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<std::ffi::OsString>,
    },
    /// Bring this machine's TCP connections to its sidecar, by nftables; needs root.
    Redirect(Box<Redirect>),
    /// Take the running sidecar's instance out of the mesh's endpoints; it goes on serving.
    Leave(Leave),
    /// Ask the proxy that runs here whether it is ready; for health checks of containers.
    Health(Health),
}

/// What `pillion-proxy leave` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Leave {
    /// Port of the sidecar's admin endpoint.
    #[arg(long, value_name = "PORT", default_value_t = 15000)]
    pub admin_port: u16,
    /// How long to wait then, so that callers have heard of it, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    pub wait_s: u64,
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
    /// Gateway that this proxy runs, in place of a service beside it.
    #[arg(long, value_name = "NAME", env = "PILLION_GATEWAY", conflicts_with = "service")]
    pub gateway: Option<String>,
    /// Folder with `<namespace>/<name>/tls.crt` and `tls.key` for the gateway's Secrets.
    #[arg(long, value_name = "DIR", requires = "gateway", env = "PILLION_CERTIFICATE_DIR")]
    pub certificate_dir: Option<PathBuf>,
    /// Its namespace.
    #[arg(long, default_value = "default", env = "PILLION_NAMESPACE")]
    pub namespace: String,
    /// Service account of its identity. Default: the service's name.
    #[arg(long, env = "PILLION_SERVICE_ACCOUNT")]
    pub service_account: Option<String>,
    /// Name of this instance. Default: service, machine and process id.
    #[arg(long, env = "PILLION_INSTANCE")]
    pub name: Option<String>,
    /// Where the application listens: PORT (on loopback), NAME=PORT, or unix:PATH. None: a client
    /// without a service of its own. Several, the main one first, where connections are captured.
    #[arg(long, value_name = "PORT", value_delimiter = ',', env = "PILLION_APP_PORT")]
    pub app: Vec<App>,
    /// A place of its own for one service: SERVICE.NAMESPACE:PORT=WHERE, which is a port on
    /// loopback, IP:PORT, or unix:PATH; may be repeated, or several with commas between them.
    #[arg(
        long = "upstream",
        value_name = "SERVICE=WHERE",
        value_parser = upstream,
        value_delimiter = ',',
        env = "PILLION_UPSTREAMS"
    )]
    pub upstreams: Vec<(String, String)>,
    /// How the application's connections come here, as `pillion-proxy redirect` has arranged it.
    #[arg(long, value_enum, default_value = "none", env = "PILLION_INTERCEPTION")]
    pub interception: Interception,
    /// File with the join token, or with the token of a Kubernetes service account (audience `pillion`), which is
    /// read again whenever it is needed.
    #[arg(long, value_name = "FILE", env = "PILLION_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// File with the root certificate (PEM) of the control plane. A join token needs none.
    #[arg(long, value_name = "FILE", env = "PILLION_ROOT_CA_FILE")]
    pub root_ca_file: Option<PathBuf>,
    /// Address that other sidecars reach this one at. Default: the one that this machine uses
    /// towards the control plane.
    #[arg(long, value_name = "IP", env = "PILLION_ADDRESS")]
    pub address: Option<IpAddr>,
    /// Port for requests from other sidecars.
    #[arg(long, value_name = "PORT", default_value_t = 15006, env = "PILLION_INBOUND_PORT")]
    pub inbound_port: u16,
    /// Port, on loopback, for requests of the application.
    #[arg(long, value_name = "PORT", default_value_t = 15001, env = "PILLION_OUTBOUND_PORT")]
    pub outbound_port: u16,
    /// Label of this instance, KEY=VALUE; may be repeated, or several with commas between them.
    #[arg(
        long = "label",
        value_name = "KEY=VALUE",
        value_parser = label,
        value_delimiter = ',',
        env = "PILLION_LABELS"
    )]
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

/// How the application's connections come to the sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Interception {
    /// They name it.
    None,
    /// All are redirected to it.
    Redirect,
    /// All are redirected to it; incoming ones by TPROXY, which needs CAP_NET_ADMIN.
    Tproxy,
}

impl Interception {
    /// As the control plane calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Redirect => "REDIRECT",
            Self::Tproxy => "TPROXY",
        }
    }
}

/// A number of bytes: `67108864`, `64Mi`, `1Gi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
        let unit = units.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
        let (number, bits) = unit.unwrap_or((text, 0));
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << bits));
        bytes
            .filter(|bytes| *bytes > 0)
            .map(Self)
            .ok_or_else(|| format!("`{text}`: expected bytes, such as 67108864, 64Mi or 1Gi"))
    }
}

/// Where the application listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum App {
    /// A port on loopback, with a name if it has one.
    Port(Option<String>, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for App {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}`: expected PORT, NAME=PORT or unix:PATH");
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let (name, port) = match text.split_once('=') {
            Some((name, port)) => (Some(name.to_owned()), port),
            None => (None, text),
        };
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(bad)?;
        Ok(Self::Port(name, port))
    }
}

impl Sidecar {
    /// The port of the application that its service means; for a Unix socket, the inbound port
    /// stands in.
    pub fn main_port(&self) -> Option<u16> {
        Some(match self.app.first()? {
            App::Port(_, port) => *port,
            App::Unix(_) => self.inbound_port,
        })
    }

    /// The socket that the application listens at, if it is one.
    pub fn app_socket(&self) -> Option<&std::path::Path> {
        match self.app.first()? {
            App::Port(..) => None,
            App::Unix(path) => Some(path),
        }
    }

    /// Ports with names, and those behind the main one.
    pub fn named_ports(&self) -> BTreeMap<String, u16> {
        let named = self.app.iter().enumerate().filter_map(|(index, app)| match app {
            App::Port(Some(name), port) => Some((name.clone(), *port)),
            App::Port(None, port) if index > 0 => Some((format!("port-{port}"), *port)),
            App::Port(..) | App::Unix(_) => None,
        });
        named.collect()
    }

    /// Labels by name.
    pub fn label_map(&self) -> HashMap<String, String> {
        self.labels.iter().cloned().collect()
    }
}

/// The place is understood by the control plane too: here it is only made complete.
fn upstream(text: &str) -> Result<(String, String), String> {
    let bad = || {
        format!("`{text}`: expected SERVICE.NAMESPACE:PORT=WHERE, such as catalog.default:80=9001")
    };
    let (service, place) = text.split_once('=').ok_or_else(bad)?;
    let named = service.rsplit_once(':').is_some_and(|(host, port)| {
        host.contains('.') && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let found = place.strip_prefix("unix:").is_some_and(|path| path.starts_with(['/', '@']))
        || place.parse::<u16>().is_ok_and(|port| port > 0)
        || place.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    if !named || !found {
        return Err(bad());
    }
    Ok((service.to_owned(), place.to_owned()))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
