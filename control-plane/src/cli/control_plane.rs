//! `pillion control-plane`.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pillion_proxy::app::systemd::{Activated, Notifier};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

use crate::app::files::{write_atomically, write_ports};
use crate::app::kubernetes::InCluster;
use crate::app::{ControlPlane, Options, Sockets, WebhookOptions};
use crate::inject::{self, Join};
use crate::intent::{AccessLog, AccessLogFormat, Parsed, Tracing};
use crate::source;
use crate::source::kubernetes::Cluster;

/// How often the service manager may hear a new status.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// Where a collector listens on its own machine (IANA: otlp).
const OTLP_PORT: u16 = 4317;

/// What `pillion control-plane` can be told.
#[derive(Debug, clap::Args)]
pub struct ControlPlaneArgs {
    /// Folder (or file) with the mesh's YAML; watched for changes.
    #[arg(
        long,
        value_name = "DIR",
        env = "PILLION_CONFIG",
        required_unless_present = "kubernetes"
    )]
    pub config: Option<PathBuf>,
    /// Reads the mesh from the Kubernetes API as well: by kubeconfig or, in a pod, by its service account.
    #[arg(long)]
    pub kubernetes: bool,
    /// Namespace of the control plane's own objects on Kubernetes. Default: that of the pod, or of the kubeconfig.
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    pub kubernetes_namespace: Option<String>,
    /// Where the root key, the registered workloads and the join token are kept. Made with mode 0700.
    #[arg(
        long,
        value_name = "DIR",
        env = "PILLION_DATA_DIR",
        default_value = super::DEFAULT_DATA_DIR
    )]
    pub data_dir: PathBuf,
    /// Address of the TLS port. The plain xDS port and the administration port are on loopback always.
    #[arg(
        long,
        value_name = "IP",
        env = "PILLION_CONTROL_PLANE_ADDRESS",
        default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST)
    )]
    pub address: IpAddr,
    /// Port of xDS in plain text, for Envoy and gRPC on this machine. 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 15010)]
    pub xds_port: u16,
    /// Port of xDS over TLS, for sidecars. 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 15012)]
    pub xds_tls_port: u16,
    /// Port of the API, metrics and status. 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 15080)]
    pub admin_port: u16,
    /// Writes the ports to this file once everything listens, as {"xds":N,"xds_tls":N,"admin":N}.
    #[arg(long, value_name = "FILE")]
    pub print_ports_file: Option<PathBuf>,
    /// Writes the join token to this file too, with mode 0600, for sidecars that share this folder but not the root key.
    #[arg(long, value_name = "FILE", env = "PILLION_JOIN_TOKEN_FILE")]
    pub join_token_file: Option<PathBuf>,
    /// Life of the certificates that are issued, such as 24h; sidecars renew at half of it.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = super::duration)]
    pub certificate_ttl: Duration,
    /// A workload without a sign of life for this long leaves the endpoints.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::duration)]
    pub lease_ttl: Duration,
    /// A DNS name or address that sidecars reach this control plane by, for its certificate. Can be repeated.
    #[arg(
        long = "server-name",
        value_name = "NAME",
        value_delimiter = ',',
        env = "PILLION_SERVER_NAMES"
    )]
    pub server_names: Vec<String>,
    /// Port of HTTPS on Kubernetes: the webhook that injects sidecars, /healthz, /readyz and /metrics; `pillion install`
    /// uses 15017. 0 takes a free one. None: no such port.
    #[arg(long, value_name = "PORT", requires = "proxy_image")]
    pub webhook_port: Option<u16>,
    /// Image of the sidecars that the webhook injects.
    #[arg(long, value_name = "IMAGE", env = "PILLION_PROXY_IMAGE")]
    pub proxy_image: Option<String>,
    /// Image of the containers that redirect connections: that of the sidecars, with nft. Empty or none: the same image.
    #[arg(long, value_name = "IMAGE", env = "PILLION_REDIRECT_IMAGE")]
    pub redirect_image: Option<String>,
    /// Where the sidecars that the webhook injects reach the control plane.
    #[arg(long, value_name = "HOST:PORT", default_value = "pillion.pillion-system.svc:15012")]
    pub advertise: String,
    /// File, such as /dev/stdout, that sidecars write a line for each request to, in JSON; unless the Mesh says otherwise.
    /// Requests have the id of a trace then, of which spans are recorded if the caller asks for it (127.0.0.1:4317).
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<String>,
    /// Form of the log on stderr; what it shows is set with RUST_LOG (default: info).
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text each.
    Text,
    /// One JSON object each.
    Json,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; the message names the port, file or setting.
pub async fn run(args: ControlPlaneArgs) -> anyhow::Result<ExitCode> {
    // Before anything starts a thread.
    let mut activated = Activated::from_env();
    start_logging(args.log_format);
    let manager = Notifier::from_env();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let options = options(&args);
    let sockets = Sockets::bind(&options, &mut activated).await?;
    let (intents, cluster) = tokio::select! {
        sources = sockets.meanwhile(&options, sources(&args)) => sources??,
        // What is read from an API may be long in coming.
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    let intents = match args.access_log.clone() {
        Some(file) => with_access_log(intents, file),
        None => intents,
    };
    for problem in &intents.borrow().problems {
        tracing::warn!("{problem}");
    }
    let control_plane = ControlPlane::start_in(&options, sockets, intents, cluster).await?;
    announce(&control_plane, args.join_token_file.as_deref(), args.print_ports_file.as_deref())?;
    let (name, code) = tokio::select! {
        _ = terminate.recv() => ("SIGTERM", ExitCode::SUCCESS),
        _ = interrupt.recv() => ("SIGINT", ExitCode::SUCCESS),
        () = control_plane.outdated() => {
            tracing::error!(
                "Secret pillion-ca has another root certificate than the copy in --data-dir: has to start anew"
            );
            ("none", ExitCode::FAILURE)
        }
        () = attend(&manager, &control_plane) => ("none", ExitCode::SUCCESS),
    };
    manager.stopping();
    tracing::info!(signal = name, "shuts down");
    control_plane.stop().await;
    Ok(code)
}

/// Tells people and programs where it is.
fn announce(
    control_plane: &ControlPlane,
    copy: Option<&Path>,
    ports_file: Option<&Path>,
) -> anyhow::Result<()> {
    let addresses = control_plane.addresses();
    tracing::info!(
        xds = %addresses.xds,
        xds_tls = %addresses.xds_tls,
        admin = %addresses.admin,
        join_token = %control_plane.join_token().display(),
        "the control plane is ready"
    );
    if let Some(copy) = copy {
        std::fs::read(control_plane.join_token())
            .and_then(|token| write_atomically(copy, &token, 0o600))
            .with_context(|| format!("cannot write the join token to {}", copy.display()))?;
    }
    if let Some(file) = ports_file {
        write_ports(file, addresses.into())?;
    }
    Ok(())
}

fn options(args: &ControlPlaneArgs) -> Options {
    let webhook =
        args.webhook_port.zip(args.proxy_image.clone()).map(|(port, image)| WebhookOptions {
            port,
            inject: inject::Options {
                image,
                redirect_image: args.redirect_image.clone().filter(|image| !image.is_empty()),
                control_plane: args.advertise.clone(),
                join: Join::ServiceAccount,
            },
        });
    Options {
        address: args.address,
        xds_port: args.xds_port,
        xds_tls_port: args.xds_tls_port,
        admin_port: args.admin_port,
        data_dir: args.data_dir.clone(),
        certificate_ttl: args.certificate_ttl,
        lease_ttl: args.lease_ttl,
        server_names: args.server_names.clone(),
        webhook,
    }
}

/// The intent of the folder, of the cluster, or of both.
async fn sources(
    args: &ControlPlaneArgs,
) -> anyhow::Result<(watch::Receiver<Arc<Parsed>>, Option<InCluster>)> {
    let cannot = |config: &PathBuf| format!("cannot watch {}", config.display());
    if !args.kubernetes {
        let config = args.config.as_ref().context("--config is missing")?;
        let intents = source::watch::watch(config).with_context(|| cannot(config))?;
        return Ok((intents, None));
    }
    let watched = args
        .config
        .as_ref()
        .map(|config| source::watch::watch_documents(config).with_context(|| cannot(config)));
    let cluster = Cluster::find(args.kubernetes_namespace.clone()).await?;
    let (cluster, intents) =
        InCluster::follow(cluster, watched.transpose()?, &args.data_dir).await?;
    Ok((intents, Some(cluster)))
}

/// The same intent, with an access log where it has none.
fn with_access_log(
    mut intents: watch::Receiver<Arc<Parsed>>,
    file: String,
) -> watch::Receiver<Arc<Parsed>> {
    let added = move |parsed: &Parsed| {
        let mut parsed = parsed.clone();
        let mesh = Arc::make_mut(&mut parsed.intent.mesh);
        let log = AccessLog { file: file.clone(), format: AccessLogFormat::Json };
        mesh.access_log.get_or_insert(log);
        // Every request has the id of a trace then, which its lines share. Spans are for callers who ask for them.
        mesh.tracing.get_or_insert_with(|| Tracing {
            host: "127.0.0.1".to_owned(),
            port: OTLP_PORT,
            sampling_percent: 0.0,
            tail: None,
        });
        Arc::new(parsed)
    };
    let sender = watch::Sender::new(added(&intents.borrow_and_update()));
    let receiver = sender.subscribe();
    tokio::spawn(async move {
        while intents.changed().await.is_ok() {
            sender.send_replace(added(&intents.borrow_and_update()));
        }
    });
    receiver
}

/// Tells the service manager that the control plane serves, and then, for ever, that it is alive and what it is at: on
/// the thread that serves, so that one that hangs is silent.
async fn attend(manager: &Notifier, control_plane: &ControlPlane) {
    let mut told = control_plane.summary();
    manager.ready(&told);
    let pause = manager.watchdog().map_or(STATUS_EVERY, |watchdog| watchdog / 2);
    loop {
        tokio::time::sleep(pause.min(STATUS_EVERY)).await;
        manager.alive();
        let now = control_plane.summary();
        if now != told {
            manager.status(&now);
            told = now;
        }
    }
}

fn start_logging(format: LogFormat) {
    let asked = std::env::var("RUST_LOG").ok().and_then(|levels| levels.parse().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => {
            lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
        }
        LogFormat::Json => lines.json().boxed(),
    };
    // Fails only if a logger was set before: then that one stays.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
}
