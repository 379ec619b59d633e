//! What the administration pages show, gathered from the parts.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::feedback;
use super::world::{Publisher, State};
use crate::admin::{
    NodeStatus, RefusalStatus, Source, Status, TypeStatus, WorkloadStatus, problem_status,
};
use crate::ca::Ca;
use crate::inject::webhook::Health;
use crate::intent::{Problem, Severity, Workload};
use crate::source::kubernetes::Reach;
use crate::source::kubernetes::feedback::Feedback;
use crate::xds::session::{self, Dialect};
use crate::xds::{AdsApi, Published, StreamView, node_to_json};

/// The parts that are shown.
pub(crate) struct View {
    pub(crate) ca: Arc<Ca>,
    pub(crate) ads: AdsApi,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) worlds: watch::Receiver<Published>,
    pub(crate) started: Instant,
    pub(crate) stopping: CancellationToken,
    /// How it stands with the Kubernetes API, where there is one.
    pub(crate) reach: Option<watch::Receiver<Reach>>,
}

impl Health for View {
    fn not_ready(&self) -> Option<String> {
        Source::not_ready(self)
    }

    fn remark(&self) -> Option<String> {
        Self::remark(self)
    }

    fn metrics(&self) -> String {
        Source::metrics(self)
    }
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

impl View {
    pub(crate) fn new(
        (ca, ads): (Arc<Ca>, AdsApi),
        publisher: &Publisher,
        (stopping, reach): (CancellationToken, Option<watch::Receiver<Reach>>),
    ) -> Self {
        let (state, worlds) = (publisher.state(), publisher.worlds());
        Self { ca, ads, state, worlds, started: Instant::now(), stopping, reach }
    }

    /// In one line, for the service manager.
    pub(crate) fn summary(&self) -> String {
        let state = self.state.borrow().clone();
        let errors = state.problems.iter().filter(|p| p.severity == Severity::Error).count();
        let ready = state.workloads.values().filter(|w| w.ready).count();
        let all = state.workloads.len();
        let streams = self.ads.streams().len();
        let remark = self.remark().map(|remark| format!("; {remark}")).unwrap_or_default();
        format!(
            "{streams} connected, {ready} of {all} workloads ready, {errors} errors in the mesh{remark}"
        )
    }

    fn remark(&self) -> Option<String> {
        self.reach.as_ref()?.borrow().remark(SystemTime::now())
    }

    /// What is wrong with the mesh, and with where it is read from.
    fn all_problems(&self) -> Arc<Vec<Problem>> {
        let known = Arc::clone(&self.state.borrow().problems);
        match self.remark() {
            None => known,
            Some(remark) => {
                let mut all = known.as_ref().clone();
                all.push(Problem::of_file(Severity::Warning, "--kubernetes", remark));
                Arc::new(all)
            }
        }
    }
}

impl View {
    /// Who says what the proxies refuse, and which gateways they run.
    pub(crate) fn feedback(view: &Arc<Self>) -> impl Fn() -> Feedback + use<> {
        let view = Arc::clone(view);
        move || {
            let world = Arc::clone(&view.state.borrow().world);
            let streams = view.ads.streams().views();
            let mut found = Feedback::default();
            for stream in &streams {
                feedback::add(&world, stream, &mut found);
            }
            found
        }
    }
}

impl Source for View {
    fn not_ready(&self) -> Option<String> {
        self.stopping.is_cancelled().then(|| "it is shutting down".to_owned())
    }

    fn remark(&self) -> Option<String> {
        Self::remark(self)
    }

    fn status(&self) -> Status {
        let state = self.state.borrow().clone();
        let published = self.worlds.borrow().clone();
        let node = |stream: StreamView| {
            let warnings = stream
                .node
                .as_deref()
                .map(|node| published.world.warnings(node))
                .unwrap_or_default();
            node_status(&stream, warnings)
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            trust_domain: self.ca.trust_domain().to_string(),
            uptime_seconds: self.started.elapsed().as_secs(),
            nodes: self.ads.streams().views().into_iter().map(node).collect(),
            workloads: state.workloads.values().map(|w| workload_status(w)).collect(),
            problems: self.all_problems().iter().map(problem_status).collect(),
        }
    }

    fn problems(&self) -> Arc<Vec<Problem>> {
        self.all_problems()
    }

    fn metrics(&self) -> String {
        let state = self.state.borrow().clone();
        let mut out = String::new();
        self.ads.metrics().write(&mut out);
        let count = |severity| state.problems.iter().filter(|p| p.severity == severity).count();
        let ready = state.workloads.values().filter(|w| w.ready).count();
        let to_end = self.ca.root_not_after().duration_since(SystemTime::now());
        let rows = [
            ("pillion_xds_connected_streams", "", self.ads.streams().len() as f64),
            ("pillion_workloads", "{ready=\"true\"}", ready as f64),
            ("pillion_workloads", "{ready=\"false\"}", (state.workloads.len() - ready) as f64),
            ("pillion_intent_problems", "{severity=\"error\"}", count(Severity::Error) as f64),
            ("pillion_intent_problems", "{severity=\"warning\"}", count(Severity::Warning) as f64),
            ("pillion_compiles_total", "", state.compiles as f64),
            ("pillion_last_compile_seconds", "", state.compile_time.as_secs_f64()),
            ("pillion_root_expires_seconds", "", to_end.unwrap_or_default().as_secs_f64()),
        ];
        let reach = self.reach.as_ref().map(|reach| reach.borrow().clone());
        let of_api = reach.iter().flat_map(|reach| {
            let number = |is: bool| if is { 1.0 } else { 0.0 };
            [
                ("pillion_kubernetes_reachable", "", number(reach.read && reach.away.is_none())),
                ("pillion_kubernetes_kept_state", "", number(reach.kept.is_some())),
            ]
        });
        let mut last = "";
        for (name, labels, value) in rows.into_iter().chain(of_api) {
            if name != last {
                let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
                let _ = writeln!(out, "# TYPE {name} {kind}");
            }
            let _ = writeln!(out, "{name}{labels} {value}");
            last = name;
        }
        out
    }

    fn node_config(&self, node: &str) -> Option<Result<Value, String>> {
        let streams = self.ads.streams().views();
        let stream = streams.iter().find(|stream| stream.node_id() == node)?;
        let published = self.worlds.borrow().clone();
        Some(node_to_json(published.world.as_ref(), stream))
    }
}

fn node_status(stream: &StreamView, warnings: Vec<String>) -> NodeStatus {
    let protocol = match stream.dialect {
        Dialect::Delta => "delta",
        Dialect::StateOfTheWorld => "sotw",
    };
    let refusal = |refusal: &crate::xds::Refusal| RefusalStatus {
        kind: refusal.kind.short().to_owned(),
        name: refusal.name.to_string(),
        reason: refusal.reason.to_string(),
    };
    NodeStatus {
        id: stream.node_id().to_owned(),
        protocol: protocol.to_owned(),
        address: stream.address.map(|address| address.to_string()).unwrap_or_default(),
        identity: stream.identity.as_ref().map(ToString::to_string).unwrap_or_default(),
        connected_seconds: stream.since.elapsed().unwrap_or_default().as_secs(),
        types: stream.types.iter().map(type_status).collect(),
        refusals: stream.refusals.iter().map(refusal).collect(),
        warnings,
    }
}

fn type_status(status: &session::TypeStatus) -> TypeStatus {
    TypeStatus {
        kind: status.kind.short().to_owned(),
        resources: status.resources,
        sent: status.sent.map(|version| version.to_string()),
        acked: status.acked.map(|version| version.to_string()),
        nacks: status.nacks,
        error: status.error.clone(),
    }
}

fn workload_status(workload: &Workload) -> WorkloadStatus {
    WorkloadStatus {
        name: workload.name.to_string(),
        service: workload.service.clone().unwrap_or_default(),
        address: workload.address.to_string(),
        ready: workload.ready,
    }
}
