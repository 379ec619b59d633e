//! What the admin endpoint sees of the running proxy.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pillion_xds::envoy::config::core::v3::Node;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use super::Logs;
use super::hot_restart;
use crate::admin::{
    ClusterView, DrainListeners, HostView, ListenerView, Readiness, ServerInfo, ServerState,
    Source, Thresholds,
};
use crate::cluster::{Clusters, view};
use crate::model::Name;
use crate::model::listener::Address;
use crate::model::tls::{Secret, SecretKind};
use crate::serve::{Own, Server};
use crate::telemetry::access_log::Sinks;
use crate::telemetry::stats::Registry;
use crate::tls::PeerIdentity;
use crate::xds::dump;
use crate::xds::status::Status;

/// The parts of a running proxy that people ask about.
#[derive(Debug)]
pub(super) struct State {
    pub(super) registry: Registry,
    pub(super) clusters: Arc<Clusters>,
    pub(super) server: Arc<Server>,
    pub(super) sinks: Sinks,
    pub(super) status: Arc<Status>,
    pub(super) node: Node,
    /// The bootstrap, encoded.
    pub(super) bootstrap: Bytes,
    pub(super) started: Instant,
    /// The first snapshot is in force.
    pub(super) published: AtomicBool,
    pub(super) draining: AtomicBool,
    pub(super) own: Arc<Own>,
    pub(super) quit: Notify,
    pub(super) drain: Notify,
    /// Only what comes in is drained.
    pub(super) drain_inbound: Notify,
    pub(super) deregister: Notify,
    /// No other process stands before this one any more: admin endpoint and health port are ours.
    pub(super) in_charge: CancellationToken,
    /// Another process has taken over.
    pub(super) succeeded: CancellationToken,
    /// Sockets of the admin endpoint and the health port.
    pub(super) own_sockets: Mutex<Vec<hot_restart::Socket>>,
    /// Listeners of the bootstrap itself: without them the proxy does not start.
    pub(super) fixed: Vec<Name>,
    /// Why it does not start.
    pub(super) fatal: Mutex<Option<String>>,
    /// Listeners that could not be made, by the last attempt.
    pub(super) trouble: Mutex<Vec<String>>,
    /// For `/server_info`.
    pub(super) options: Value,
    /// Changes the log level. None: the embedding program's.
    pub(super) logs: Option<Logs>,
}

impl State {
    fn trouble(&self) -> Vec<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl State {
    /// Every bound socket.
    pub(super) fn sockets(&self) -> Vec<hot_restart::Socket> {
        let own = self.own_sockets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_listener = |(name, asked, socket): (Name, _, _)| (name.to_string(), asked, socket);
        own.into_iter().chain(self.server.sockets().into_iter().map(of_listener)).collect()
    }

    /// Full days until the first certificate of the secrets expires; none: 4294967295, as in Envoy.
    pub(super) fn days_until_expiry(&self) -> i64 {
        let live = self.clusters.load();
        let now = SystemTime::now();
        let left = live.snapshot.secrets.values().filter_map(|secret| {
            let SecretKind::Certificate(certificate) = &secret.kind else { return None };
            let ends = PeerIdentity::of_source(&certificate.chain)?.not_after?;
            Some(ends.duration_since(now).map_or(0, |left| left.as_secs() / 86400))
        });
        left.min().and_then(|days| i64::try_from(days).ok()).unwrap_or_else(|| i64::from(u32::MAX))
    }

    /// What is still missing before the proxy is ready. None: it is.
    pub(super) fn waiting_for(&self) -> Option<String> {
        if !self.published.load(Ordering::Acquire) {
            return Some("the first configuration is being read".to_owned());
        }
        let trouble = self.trouble();
        if !trouble.is_empty() {
            return Some(trouble.join("; "));
        }
        if !self.clusters.load().is_resolved() {
            return Some("waiting for DNS".to_owned());
        }
        if let Some(name) = self.clusters.load().unchecked() {
            return Some(format!("waiting for the first health checks of cluster {name}"));
        }
        self.status.waiting_for()
    }
}

impl Source for State {
    fn readiness(&self) -> Readiness {
        let leaving = self.draining.load(Ordering::Relaxed) || self.own.is_failing();
        let waiting_for: Vec<String> = self.waiting_for().into_iter().collect();
        let state = match (leaving, waiting_for.is_empty()) {
            (true, _) => ServerState::Draining,
            (false, true) => ServerState::Live,
            (false, false) => ServerState::PreInitializing,
        };
        Readiness { state, waiting_for }
    }

    fn registry(&self) -> Registry {
        self.registry.clone()
    }

    fn clusters(&self) -> Vec<ClusterView> {
        self.clusters.load().view().into_iter().map(cluster_view).collect()
    }

    fn listeners(&self) -> Vec<ListenerView> {
        let views = self.server.listeners().into_iter();
        views.map(|one| ListenerView { name: one.name.to_string(), address: one.address }).collect()
    }

    fn config_dump(&self) -> Value {
        let started = SystemTime::now() - self.started.elapsed();
        let mut configs = dump::configs(&self.status, &self.bootstrap, started);
        if let Some(own) = configs.last_mut() {
            own["listener_errors"] = json!(self.trouble());
        }
        json!({"configs": configs})
    }

    fn certs(&self) -> Value {
        let live = self.clusters.load();
        let certificates = live.snapshot.secrets.values().filter_map(|secret| certificate(secret));
        json!({"certificates": certificates.collect::<Vec<_>>()})
    }

    fn server_info(&self) -> ServerInfo {
        ServerInfo {
            version: concat!("pillion-proxy/", env!("CARGO_PKG_VERSION")).to_owned(),
            state: self.readiness().state,
            uptime: self.started.elapsed(),
            node: json!({"id": self.node.id, "cluster": self.node.cluster}),
            command_line_options: self.options.clone(),
        }
    }

    fn log_levels(&self) -> Vec<(String, LevelFilter)> {
        vec![("pillion".to_owned(), LevelFilter::current())]
    }

    fn set_log_level(&self, logger: Option<&str>, level: LevelFilter) -> Result<(), String> {
        let directive = match logger {
            Some(logger) if logger != "pillion" => format!("info,{logger}={level}"),
            _ => level.to_string(),
        };
        let filter = EnvFilter::try_new(&directive).map_err(|error| error.to_string())?;
        let logs = self.logs.as_ref().ok_or("the log level belongs to the embedding program")?;
        logs.reload(filter).map_err(|error| error.to_string())
    }

    fn drain_listeners(&self, what: DrainListeners) {
        if what.inbound_only {
            self.drain_inbound.notify_one();
            return;
        }
        self.draining.store(true, Ordering::Relaxed);
        self.drain.notify_one();
    }

    fn fail_health_check(&self, fail: bool) {
        self.own.fail(fail);
    }

    fn deregister(&self) {
        self.deregister.notify_one();
    }

    fn reopen_logs(&self) {
        self.sinks.reopen();
    }

    fn quit(&self) {
        self.quit.notify_one();
    }
}

fn cluster_view(view: view::ClusterView) -> ClusterView {
    ClusterView {
        name: view.name.to_string(),
        observability_name: view.name.to_string(),
        default_priority: thresholds(&view.default_priority),
        high_priority: thresholds(&view.high_priority),
        outliers: view.detects_outliers.then_some(view.averages),
        hosts: view.endpoints.into_iter().map(host_view).collect(),
        ..ClusterView::default()
    }
}

fn thresholds(limits: &[(&'static str, u32)]) -> Thresholds {
    let of = |name: &str, default| {
        limits.iter().find(|(key, _)| *key == name).map_or(default, |(_, limit)| *limit)
    };
    let defaults = Thresholds::default();
    Thresholds {
        max_connections: of("max_connections", defaults.max_connections),
        max_pending_requests: of("max_pending_requests", defaults.max_pending_requests),
        max_requests: of("max_requests", defaults.max_requests),
        max_retries: of("max_retries", defaults.max_retries),
    }
}

fn host_view(view: view::EndpointView) -> HostView {
    let address = match view.address.parse() {
        Ok(address) => Address::Socket(address),
        Err(_) => Address::Pipe(view.address.to_string().into()),
    };
    HostView {
        hostname: view.hostname.to_string(),
        weight: view.weight,
        priority: view.priority,
        locality: view.locality,
        health: view.health,
        found: view.found,
        success_rate: view.rates[0],
        local_origin_success_rate: view.rates[1],
        cx_active: view.cx_active.into(),
        cx_connect_fail: view.cx_connect_fail,
        cx_total: view.cx_total,
        rq_active: view.rq_active.into(),
        rq_error: view.rq_error,
        rq_success: view.rq_success,
        rq_timeout: view.rq_timeout,
        rq_total: view.rq_total,
        ..HostView::new(address)
    }
}

/// What a certificate says of itself; its key is never looked at.
fn certificate(secret: &Secret) -> Option<Value> {
    let SecretKind::Certificate(certificate) = &secret.kind else { return None };
    let identity = PeerIdentity::of_source(&certificate.chain)?;
    let seconds = |time: Option<SystemTime>| {
        time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs())
    };
    let dns = identity.dns_sans.iter().map(|name| json!({"dns": name}));
    let names = identity.uri_sans.iter().map(|uri| json!({"uri": uri})).chain(dns);
    Some(json!({"cert_chain": [{
        "name": &*secret.name,
        "serial_number": identity.serial,
        "subject_alt_names": names.collect::<Vec<_>>(),
        "valid_from_unix": seconds(identity.not_before),
        "expiration_unix": seconds(identity.not_after),
    }]}))
}
