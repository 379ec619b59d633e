//! What the admin endpoint sees of the running proxy.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::level_filters::LevelFilter;

use super::loggers::Loggers;
use super::{certs, hot_restart};
use crate::admin::{
    ClusterView, DrainListeners, HostView, ListenerView, Readiness, ServerInfo, ServerState,
    Source, Thresholds,
};
use crate::cluster::{Clusters, view};
use crate::model::Name;
use crate::model::listener::Address;
use crate::serve::{Own, Server};
use crate::telemetry::access_log::Sinks;
use crate::telemetry::stats::Registry;
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
    /// As `/server_info` tells it.
    pub(super) node: Value,
    /// The bootstrap, encoded.
    pub(super) bootstrap: Bytes,
    pub(super) started: Instant,
    /// The first snapshot is in force.
    pub(super) published: AtomicBool,
    pub(super) draining: AtomicBool,
    pub(super) own: Arc<Own>,
    pub(super) quit: Notify,
    /// How long a graceful drain takes.
    pub(super) drain_time: Duration,
    pub(super) deregister: Notify,
    /// No other process stands before this one any more: admin endpoint and health port are ours.
    pub(super) in_charge: CancellationToken,
    /// Another process has taken over.
    pub(super) succeeded: CancellationToken,
    /// Sockets of the admin endpoint and the health port.
    pub(super) own_sockets: Mutex<Vec<hot_restart::Socket>>,
    /// Fields of the bootstrap that were passed over, because they are not known.
    pub(super) unknown_fields: u64,
    /// Listeners of the bootstrap itself: without them the proxy does not start.
    pub(super) fixed: Vec<Name>,
    /// Why it does not start.
    pub(super) fatal: Mutex<Option<String>>,
    /// Listeners that could not be made, by the last attempt.
    pub(super) trouble: Mutex<Vec<String>>,
    /// For `/server_info`.
    pub(super) options: Value,
    /// What is logged.
    pub(super) loggers: Loggers,
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

    /// Full days until the first certificate in use expires.
    pub(super) fn days_until_expiry(&self) -> i64 {
        certs::days_left(&self.clusters.load().snapshot, SystemTime::now())
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
        let of_server = dump::discovered_clusters(&self.status);
        let view = |one: view::ClusterView| {
            let added = of_server.contains(&*one.name);
            ClusterView { added_via_api: added, ..cluster_view(one) }
        };
        self.clusters.load().view().into_iter().map(view).collect()
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
        let live = self.clusters.load();
        dump::add_endpoints(&mut configs, &self.status, &live);
        dump::add_secrets(&mut configs, &live.snapshot);
        dump::forget();
        json!({"configs": configs})
    }

    fn certs(&self) -> Value {
        certs::all(&self.clusters.load().snapshot, SystemTime::now())
    }

    fn server_info(&self) -> ServerInfo {
        ServerInfo {
            version: concat!("pillion-proxy/", env!("CARGO_PKG_VERSION")).to_owned(),
            state: self.readiness().state,
            uptime: self.started.elapsed(),
            node: self.node.clone(),
            command_line_options: self.options.clone(),
        }
    }

    fn log_levels(&self) -> Vec<(String, LevelFilter)> {
        self.loggers.levels()
    }

    fn set_log_level(&self, logger: Option<&str>, level: LevelFilter) -> Result<(), String> {
        self.loggers.set(logger, level)
    }

    fn drain_listeners(&self, what: DrainListeners) {
        let inbound_only = what.inbound_only;
        if !what.graceful && !what.skip_exit {
            return self.server.stop(inbound_only);
        }
        self.server.drain_connections(inbound_only);
        if !what.skip_exit {
            let (server, time) = (Arc::clone(&self.server), self.drain_time);
            tokio::spawn(async move {
                tokio::time::sleep(time).await;
                server.stop(inbound_only);
            });
        }
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
        observability_name: view.stat_name.to_string(),
        eds_service_name: view.eds_service_name.map(|name| name.to_string()),
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
        canary: view.canary,
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
        rq_pending_active: view.rq_pending_active.into(),
        rq_success: view.rq_success,
        rq_timeout: view.rq_timeout,
        rq_total: view.rq_total,
        ..HostView::new(address)
    }
}
