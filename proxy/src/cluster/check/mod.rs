//! Active health checks: one task a cluster on the control thread, with one timer for all of its
//! endpoints. [`state`] says what results mean; each protocol has a file.

mod events;
mod grpc;
mod http;
mod state;
mod stats;
mod tcp;
mod wire;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use tokio::sync::Notify;

use super::Cluster;
use super::clock;
use super::endpoint::{Endpoint, Flags, Host};
use super::pool::Connector;
use crate::model::format::Piece;
use crate::model::headers::{HeaderAppend, HeaderOps};
use crate::model::health_check::{Checker, HealthCheck};
use crate::model::listener::Address;
use crate::net::Io;
use crate::telemetry::reason::Refusal;
use state::{Event, Failure, Finding, Session, Transition};

pub(crate) use self::http::IMMEDIATE_FAIL;
pub(super) use stats::CheckStats;

/// `user-agent` of checks, as servers and their logs know it from Envoy.
const AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");

/// What a cluster's task is told.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Endpoints that said in an answer to a request that they want no more.
    passive: Mutex<Vec<Arc<Host>>>,
    wake: Notify,
}

impl Inbox {
    /// The endpoints are others now.
    pub(super) fn changed(&self) {
        self.wake.notify_one();
    }

    fn fail(&self, host: &Arc<Host>) {
        self.passive.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(host));
        self.wake.notify_one();
    }

    fn take(&self) -> Vec<Arc<Host>> {
        std::mem::take(&mut *self.passive.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Cluster {
    /// An endpoint wrote `x-envoy-immediate-health-check-fail` into an answer: it is left alone at
    /// once, where there are active checks that will find out when that is over.
    pub(super) fn fail_at_once(&self, endpoint: &Endpoint) {
        if self.config.health_check.is_some() && !endpoint.check.disabled {
            endpoint.host.flags.set(Flags::EXCLUDED);
            self.inbox.fail(&endpoint.host);
        }
    }
}

/// Checks the endpoints of a cluster for as long as this is polled.
pub(super) async fn run(cluster: Arc<Cluster>, config: Arc<HealthCheck>) {
    let mut checks = Checks {
        cluster,
        config,
        targets: HashMap::new(),
        due: BinaryHeap::new(),
        running: FuturesUnordered::new(),
    };
    let mut woken = true;
    loop {
        if woken {
            checks.meet();
        }
        let passive = checks.cluster.inbox.take();
        let mut results: Vec<(Key, Finding)> =
            passive.iter().map(|host| (key(host), Finding::Failed(Failure::Passive))).collect();
        while let Some(Some(done)) = checks.running.next().now_or_never() {
            results.extend(checks.finish(done));
        }
        checks.digest(&results);
        let next = checks.start_due(Instant::now());
        let timer = tokio::time::sleep_until(next.into());
        let Checks { cluster, running, .. } = &mut checks;
        let (told, done) = tokio::select! {
            () = cluster.inbox.wake.notified() => (true, None),
            Some(done) = running.next() => (false, Some(done)),
            () = timer => (false, None),
        };
        woken = told;
        let results: Vec<_> = done.and_then(|done| checks.finish(done)).into_iter().collect();
        checks.digest(&results);
    }
}

/// A host by its place in memory; [`Target`] holds it there.
type Key = usize;

fn key(host: &Arc<Host>) -> Key {
    Arc::as_ptr(host) as Key
}

/// With no check due, the task looks around so often.
const LONG: Duration = Duration::from_secs(3600);

struct Checks {
    cluster: Arc<Cluster>,
    config: Arc<HealthCheck>,
    targets: HashMap<Key, Target>,
    /// When, who, and which of its appointments.
    due: BinaryHeap<Reverse<(Instant, Key, u64)>>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
}

/// An endpoint that is checked.
struct Target {
    endpoint: Arc<Endpoint>,
    session: Session,
    /// From the check before.
    kept: Option<Kept>,
    /// The appointment that holds; older ones in the heap do not.
    appointment: u64,
    /// It asked to be left alone, as far as that was taken into account.
    excluded: bool,
}

struct Done {
    key: Key,
    appointment: u64,
    finding: Finding,
    kept: Option<Kept>,
}

/// A connection for the next check.
enum Kept {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
    Tcp(Io),
}

impl Checks {
    /// Begins with new endpoints, and ends with those that are gone.
    fn meet(&mut self) {
        let endpoints = self.cluster.endpoints();
        let wanted = || endpoints.iter().filter(|endpoint| !endpoint.check.disabled);
        let there: HashSet<Key> = wanted().map(|endpoint| key(&endpoint.host)).collect();
        self.targets.retain(|key, _| there.contains(key));
        let now = Instant::now();
        for endpoint in wanted() {
            let key = key(&endpoint.host);
            if let Some(target) = self.targets.get_mut(&key) {
                target.endpoint = Arc::clone(endpoint);
                continue;
            }
            let appointment = fastrand::u64(..);
            let session = Session::new();
            let endpoint = Arc::clone(endpoint);
            let excluded = false;
            let target = Target { endpoint, session, kept: None, appointment, excluded };
            self.targets.insert(key, target);
            let wait = self.config.intervals.first(fastrand::u64(..));
            self.due.push(Reverse((now + wait, key, appointment)));
        }
        self.tell();
    }

    /// Starts what is due, and says when to look again.
    fn start_due(&mut self, now: Instant) -> Instant {
        while let Some(Reverse((at, key, appointment))) = self.due.peek().copied() {
            if at > now {
                return at;
            }
            self.due.pop();
            let Some(target) = self.targets.get_mut(&key) else { continue };
            if target.appointment != appointment {
                continue;
            }
            let Some(stats) = self.cluster.check_stats.clone() else { continue };
            stats.attempt.inc();
            let probe = Probe {
                connector: Arc::clone(&self.cluster.connector),
                endpoint: Arc::clone(&target.endpoint),
                config: Arc::clone(&self.config),
                stats,
            };
            let kept = target.kept.take();
            self.running.push(Box::pin(async move {
                let (finding, kept) = probe.check(kept).await;
                Done { key, appointment, finding, kept }
            }));
        }
        now + LONG
    }

    /// None: the endpoint is gone, or its answer comes too late.
    fn finish(&mut self, done: Done) -> Option<(Key, Finding)> {
        let target = self.targets.get_mut(&done.key)?;
        if target.appointment != done.appointment {
            return None;
        }
        target.kept = done.kept.filter(|_| self.config.reuse_connection);
        Some((done.key, done.finding))
    }

    fn digest(&mut self, results: &[(Key, Finding)]) {
        if results.is_empty() {
            return;
        }
        let mut failed = Vec::new();
        let (mut changed, mut first) = (false, false);
        for (key, finding) in results {
            let Some(target) = self.targets.get_mut(key) else { continue };
            let Some(stats) = &self.cluster.check_stats else { continue };
            count(stats, *finding);
            let flags = &target.endpoint.host.flags;
            let failing = flags.has(Flags::FAILED_ACTIVE);
            first |= target.session.first;
            let step = target.session.take(&self.config, flags, *finding);
            self.cluster.log(&self.config, &target.endpoint, &step.events);
            let excluded = flags.has(Flags::EXCLUDED);
            changed |= step.transition == Transition::Changed || excluded != target.excluded;
            target.excluded = excluded;
            let well = !matches!(finding, Finding::Failed(_));
            if well && !flags.has(Flags::FAILED_ACTIVE) {
                if failing {
                    target.endpoint.host.became_well(clock::now());
                }
                changed |= self.cluster.pardon(&target.endpoint);
            } else if step.transition == Transition::Changed && flags.has(Flags::FAILED_ACTIVE) {
                failed.push(Arc::clone(&target.endpoint));
            }
            // A passive failure is no appointment: the check that is planned takes place.
            if *finding != Finding::Failed(Failure::Passive) {
                let traffic = self.cluster.stats.upstream_cx_total.get() > 0;
                let intervals = &self.config.intervals;
                let wait = intervals.next((well, step.transition), traffic, fastrand::u64(..));
                target.appointment = target.appointment.wrapping_add(1);
                self.due.push(Reverse((Instant::now() + wait, *key, target.appointment)));
            }
        }
        if changed {
            self.cluster.lay_out_again();
        }
        failed.iter().for_each(|endpoint| self.cluster.leave(endpoint));
        if changed || first {
            self.tell();
        }
    }

    /// The gauges, and whether everybody was checked once.
    fn tell(&self) {
        let Some(stats) = &self.cluster.check_stats else { return };
        let count = |is: &dyn Fn(&Flags) -> bool| {
            let all = self.targets.values().filter(|target| is(&target.endpoint.host.flags));
            i64::try_from(all.count()).unwrap_or(i64::MAX)
        };
        stats.healthy.set(count(&|flags| !flags.has(Flags::FAILED_ACTIVE)));
        stats.degraded.set(count(&|flags| flags.has(Flags::DEGRADED_ACTIVE)));
        if self.targets.values().all(|target| !target.session.first) {
            self.cluster.set_checked();
        }
    }
}

fn count(stats: &CheckStats, finding: Finding) {
    let Finding::Failed(why) = finding else { return stats.success.inc() };
    stats.failure.inc();
    match why {
        Failure::Network | Failure::Timeout => stats.network_failure.inc(),
        Failure::Passive => stats.passive_failure.inc(),
        Failure::Active | Failure::Retriable => {}
    }
}

impl Cluster {
    fn log(&self, config: &HealthCheck, endpoint: &Endpoint, all: &[Event]) {
        for event in all {
            let address = &endpoint.address;
            tracing::debug!(cluster = %self.name(), endpoint = %address, ?event, "health check");
        }
        if let Some(log) = config.events.as_ref().filter(|_| !all.is_empty()) {
            events::write(&log.path, (self.name(), &config.checker), endpoint, all);
        }
    }
}

/// One endpoint, and how to ask it.
struct Probe {
    connector: Arc<Connector>,
    endpoint: Arc<Endpoint>,
    config: Arc<HealthCheck>,
    stats: Arc<CheckStats>,
}

impl Probe {
    async fn check(&self, kept: Option<Kept>) -> (Finding, Option<Kept>) {
        let check = async {
            match &self.config.checker {
                Checker::Http(config) => http::check(self, config, kept).await,
                Checker::Tcp(config) => tcp::check(self, config, kept).await,
                Checker::Grpc(config) => grpc::check(self, config, kept).await,
            }
        };
        let late = (Finding::Failed(Failure::Timeout), None);
        tokio::time::timeout(self.config.timeout, check).await.unwrap_or(late)
    }

    /// A byte stream to where this endpoint is checked. `alpn`: where the configuration says
    /// nothing else.
    async fn connect(&self, alpn: &[&[u8]]) -> Result<Io, Refusal> {
        let own: Vec<&[u8]> = self.config.alpn.iter().map(Vec::as_slice).collect();
        let (alpn, forced) = if own.is_empty() { (alpn, false) } else { (own.as_slice(), true) };
        self.connector.probe(&self.endpoint, &self.address(), (alpn, forced)).await
    }

    fn address(&self) -> Address {
        let own = &self.endpoint.check;
        let address = own.address.as_ref().unwrap_or(&self.endpoint.address);
        match (address, own.port.or(self.config.port)) {
            (Address::Socket(socket), Some(port)) => Address::Socket((socket.ip(), port).into()),
            _ => address.clone(),
        }
    }

    /// `Host`: the endpoint's own, else the check's, else the cluster's name.
    fn host<'a>(&'a self, configured: &'a str) -> &'a str {
        let own = self.endpoint.check.hostname.as_str();
        let all = [own, configured, &self.connector.config.name];
        all.into_iter().find(|name| !name.is_empty()).unwrap_or("localhost")
    }

    fn is_tls(&self) -> bool {
        self.connector.config.tls_of(self.endpoint.socket()).is_some()
    }
}

/// Removes and adds headers. Values are literal: the configuration was refused otherwise.
fn change(ops: &HeaderOps, headers: &mut HeaderMap) {
    for name in &ops.remove {
        headers.remove(name);
    }
    for add in &ops.add {
        let text: String = add
            .value
            .pieces
            .iter()
            .filter_map(|piece| match piece {
                Piece::Literal(text) => Some(text.as_str()),
                Piece::Operator(..) => None,
            })
            .collect();
        let Ok(value) = HeaderValue::from_str(&text) else { continue };
        if text.is_empty() && !add.keep_empty {
            continue;
        }
        // There is one Host.
        let host = add.name == ::http::header::HOST;
        match (add.action, headers.contains_key(&add.name)) {
            (HeaderAppend::AppendIfExistsOrAdd, _) if !host => {
                headers.append(add.name.clone(), value);
            }
            (HeaderAppend::AddIfAbsent, true) | (HeaderAppend::OverwriteIfExists, false) => {}
            _ => {
                headers.insert(add.name.clone(), value);
            }
        }
    }
}
