//! A live cluster: configuration, endpoints, limits and counters of one name.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::StatusCode;
use tokio::sync::Notify;

use super::aggregate::Shares;
use super::behalf::Behalf;
use super::breaker::{Breakers, RequestPermit, RetryPermit};
use super::check::{CheckStats, Inbox};
use super::endpoint::Endpoint;
use super::forward::Addresses;
use super::outlier::OutlierStats;
use super::pool::{ConnectionPermit, Connector, Fit, Job, Wanted};
use super::send::SendOptions;
use super::set::EndpointSet;
use super::stats::ClusterStats;
use super::zone::Zone;
use crate::model;
use crate::model::Name;
use crate::model::cluster::Discovery;
use crate::model::endpoint::Assignment;
use crate::model::route::Priority;
use crate::net::Io;
use crate::telemetry::reason::{Reason, Refusal};
use crate::telemetry::stats::{Fresh as _, Registry};
use crate::tls::Secrets;

/// A cluster that takes requests.
#[derive(Debug)]
pub struct Cluster {
    /// What it was made of.
    pub config: Arc<model::cluster::Cluster>,
    /// Its metrics.
    pub stats: Arc<ClusterStats>,
    pub(super) breakers: Arc<Breakers>,
    pub(super) connector: Arc<Connector>,
    pub(super) set: ArcSwap<EndpointSet>,
    /// Whoever changes the endpoints holds this; whoever picks does not.
    state: Mutex<State>,
    /// Addresses of hosts that requests name.
    pub(super) forwards: Addresses,
    /// Data workers; the pools of everybody else come after theirs.
    pub(super) workers: usize,
    /// DNS has answered once, or is not asked.
    pub(super) asked: AtomicBool,
    /// Every endpoint was checked once, or none is.
    pub(super) checked: AtomicBool,
    /// None: there are no active checks.
    pub(super) check_stats: Option<Arc<CheckStats>>,
    /// None: there is no outlier detection.
    pub(super) outlier_stats: Option<Arc<OutlierStats>>,
    /// Of the last interval of outlier detection: mean success rate and the rate below which one
    /// is an outlier; by origin: external, local.
    pub(super) averages: Mutex<[Option<(f64, f64)>; 2]>,
    /// What the active checks are told.
    pub(super) inbox: Inbox,
    /// Tells the DNS task that the names are others now.
    pub(super) renamed: Notify,
    /// Decides for the whole life of the cluster what chance decides once.
    pub(super) lot: u64,
    /// An endpoint was new, the last time that somebody looked.
    pub(super) warming: AtomicBool,
    /// Requests that `drop_overloads` dropped, by category.
    pub(crate) shed: Mutex<BTreeMap<Name, u64>>,
    /// How an aggregate shares its traffic.
    pub(super) shares: ArcSwapOption<Shares>,
    /// Where the proxies of this kind are.
    pub(super) zone: Arc<Zone>,
    /// What zones looked like when the endpoints were laid out.
    pub(super) zone_version: AtomicU64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) assignment: Arc<Assignment>,
    /// What names stand for now.
    pub(super) resolved: HashMap<(Name, u16), Vec<SocketAddr>>,
}

/// Where clusters are made.
pub(super) struct Workshop<'a> {
    pub(super) registry: &'a Registry,
    pub(super) workers: usize,
    pub(super) secrets: &'a dyn Secrets,
    pub(super) zone: &'a Arc<Zone>,
}

impl Cluster {
    /// `before`: the cluster of this name until now. What can be kept of it is kept: metrics,
    /// permits, and the pools, unless connections are made differently now.
    pub(super) fn new(
        config: Arc<model::cluster::Cluster>,
        assignment: Arc<Assignment>,
        before: Option<&Self>,
        workshop: &Workshop<'_>,
    ) -> Self {
        let before = before.filter(|before| before.config.stat_name == config.stat_name);
        let scope = ClusterStats::scope(workshop.registry, &config.stat_name);
        let (stats, breakers) = match before {
            Some(before) => {
                before.breakers.set(&config.breakers);
                (Arc::clone(&before.stats), Arc::clone(&before.breakers))
            }
            None => (scope.group(ClusterStats::new), Breakers::new(&config.breakers, &scope)),
        };
        let alike = before.filter(|before| before.connector.serves(&config));
        let connector = match alike {
            Some(before) => Arc::clone(&before.connector),
            None => Arc::new(Connector::new(
                Arc::clone(&config),
                Arc::clone(&stats),
                Arc::clone(&breakers),
                workshop.secrets,
            )),
        };
        let checks = config.health_check.is_some();
        let check_stats =
            checks.then(|| scope.scope("health_check", None).group(CheckStats::fresh));
        let outliers = || scope.scope("outlier_detection", None).group(|_| OutlierStats::default());
        let outlier_stats = config.outliers.is_some().then(outliers);
        stats.show(&config);
        let by_dns = matches!(config.discovery, Discovery::StrictDns(_) | Discovery::LogicalDns(_));
        let cluster = Self {
            config,
            stats,
            breakers,
            connector,
            set: ArcSwap::from_pointee(EndpointSet::default()),
            state: Mutex::default(),
            forwards: Addresses::default(),
            workers: workshop.workers,
            asked: AtomicBool::new(!by_dns),
            checked: AtomicBool::new(check_stats.is_none()),
            check_stats,
            outlier_stats,
            averages: Mutex::default(),
            inbox: Inbox::default(),
            renamed: Notify::new(),
            lot: before.map_or_else(|| fastrand::u64(..), |before| before.lot),
            warming: AtomicBool::new(true),
            shed: Mutex::new(before.map(Self::shed_so_far).unwrap_or_default()),
            shares: ArcSwapOption::empty(),
            zone: Arc::clone(workshop.zone),
            zone_version: AtomicU64::new(0),
        };
        let assignment = match alike {
            Some(before) => cluster.inherit_endpoints(before, assignment),
            None => assignment,
        };
        cluster.pardon_if_undetected();
        cluster.assign(assignment);
        if let Some(before) = before {
            cluster.inherit_health(before);
        }
        cluster
    }

    fn shed_so_far(&self) -> BTreeMap<Name, u64> {
        self.shed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what lives, and tells which endpoints there are.
    fn inherit_endpoints(&self, before: &Self, assignment: Arc<Assignment>) -> Arc<Assignment> {
        self.set.store(before.set.load_full());
        let known = before.lock();
        self.lock().resolved.clone_from(&known.resolved);
        if before.is_resolved() {
            self.asked.store(true, Ordering::Relaxed);
        }
        if self.goes_anywhere() { Arc::clone(&known.assignment) } else { assignment }
    }

    /// A place among the cluster's requests; held until the exchange is over.
    ///
    /// # Errors
    /// The circuit breaker `max_requests` is open.
    pub fn admit(&self, priority: Priority) -> Result<RequestPermit, Refusal> {
        self.breakers.request(priority).ok_or_else(|| {
            self.stats.upstream_rq_pending_overflow.inc();
            let detail = format!("circuit breaker max_requests of cluster {} is open", self.name());
            Refusal::local(Reason::Overflow, StatusCode::SERVICE_UNAVAILABLE, detail)
        })
    }

    /// A place among the cluster's retries, by `max_retries` or the retry budget; held until that
    /// try is over. None: no more retries now.
    pub fn admit_retry(&self, priority: Priority) -> Option<RetryPermit> {
        self.breakers.retry(priority)
    }

    /// A byte stream to an endpoint on behalf of a client, for `tcp_proxy`. The permit counts it while it is open.
    ///
    /// # Errors
    /// `max_connections` is reached, or the connection was not made.
    pub async fn connect(
        &self,
        endpoint: &Arc<Endpoint>,
        behalf: Behalf,
    ) -> Result<(Io, ConnectionPermit), Refusal> {
        let open = endpoint.counters().cx_active.load(Ordering::Relaxed);
        let place = self.breakers.connection(Priority::Default, open == 0, open);
        let Some((place, over)) = place else {
            self.stats.upstream_cx_overflow.inc();
            let detail =
                format!("circuit breaker max_connections of cluster {} is open", self.name());
            return Err(Refusal::local(Reason::Overflow, StatusCode::SERVICE_UNAVAILABLE, detail));
        };
        if over {
            self.stats.upstream_cx_overflow.inc();
        }
        self.connector.connect(endpoint, behalf.as_told_by(&self.config), place).await
    }

    /// Its endpoints are those that connections or requests name.
    pub(super) fn goes_anywhere(&self) -> bool {
        matches!(self.config.discovery, Discovery::OriginalDst | Discovery::Forward(_))
    }

    /// It is made of other clusters; see [`Live::leaf`](super::Live::leaf).
    pub fn is_aggregate(&self) -> bool {
        matches!(self.config.discovery, Discovery::Aggregate(_))
    }

    /// Its endpoints now, in the order of the configuration.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.set.load().endpoints.to_vec()
    }

    /// Endpoints that may be picked (healthy or degraded), and all of them.
    pub fn availability(&self) -> (u32, u32) {
        let counts = self.set.load().counts;
        (counts.healthy + counts.degraded, counts.all)
    }

    /// Whether DNS has answered once, where endpoints are found by DNS.
    pub(super) fn is_resolved(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether every endpoint was checked once, where they are checked actively.
    pub(super) fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Relaxed)
    }

    pub(super) fn set_checked(&self) {
        self.checked.store(true, Ordering::Relaxed);
    }

    pub(super) fn name(&self) -> &Name {
        &self.config.name
    }

    /// How to make a connection to `endpoint` from this thread.
    pub(super) fn job(&self, endpoint: &Arc<Endpoint>, options: SendOptions) -> Job {
        let wanted = self.connector.wanted(endpoint.socket(), options.downstream_h2);
        let http2 = usize::from(wanted == Wanted::Http2);
        let by_request = self.config.tls_of(endpoint.socket()).is_some_and(|tls| tls.by_request);
        Job {
            endpoint: Arc::clone(endpoint),
            connector: Arc::clone(&self.connector),
            wanted,
            priority: options.priority,
            fit: Fit {
                sni: options.sni.filter(|_| by_request),
                behalf: options.behalf.as_told_by(&self.config),
            },
            at: super::worker().min(self.workers) * 2 + http2,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
