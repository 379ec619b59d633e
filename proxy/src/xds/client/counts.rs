//! What discovery counts, under Envoy's names: `cluster_manager.cds.`, `listener_manager.lds.`,
//! `http.<prefix>.rds.<route>.`, `cluster.<name>.` (EDS), `sds.<name>.`,
//! `extension_config_discovery.http_filter.<name>.` and `control_plane.`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use xxhash_rust::xxh64::xxh64;

use crate::cluster::ClusterStats;
use crate::model::Name;
use crate::model::source::{Reference, Source, plain};
use crate::telemetry::stats::{
    Count, Counter, Gauge, Group, Item, Level, Reading, Registry, Scope, Spread, Text,
};
use crate::xds::kind::Kind;
use crate::xds::session::Received;
use crate::xds::store::Store;

/// Key of a subscription to everything of a kind.
const ALL: &str = "";

/// All subscriptions, and the stream to the control plane.
#[derive(Debug)]
pub(super) struct Counts {
    registry: Registry,
    subscriptions: BTreeMap<(Kind, Name), Vec<Arc<Subscription>>>,
    control_plane: Option<ControlPlane>,
    warming_clusters: Gauge,
    warming_listeners: Gauge,
    unknown_fields: Counter,
}

/// `control_plane.`
#[derive(Debug)]
struct ControlPlane {
    connected: Gauge,
    identifier: Text,
    /// Requests are never held back, so that none waits and no limit is enforced.
    _never: (Gauge, Counter),
}

/// What became of a subscription's resource.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome<'a> {
    /// It was taken, in this version.
    Taken {
        /// Of the answer.
        version: &'a Arc<str>,
        /// It differs from the one before.
        changed: bool,
        /// The server says that there is none.
        empty: bool,
        /// To take it.
        took: Duration,
    },
    /// It was refused.
    Rejected,
    /// The stream ended.
    Failed,
    /// It did not come within `initial_fetch_timeout`.
    Late,
}

/// Which resources an answer brings, and what becomes of them.
#[derive(Debug)]
pub(super) struct Answer {
    version: Arc<str>,
    accepted: Vec<Name>,
    refused: Vec<String>,
    /// They are not, or not any more.
    gone: BTreeSet<Name>,
}

impl Answer {
    pub(super) fn of<R>(received: &Received<R>) -> Self {
        Self {
            version: received.version.as_str().into(),
            accepted: received.accepted.iter().map(|one| Arc::clone(&one.name)).collect(),
            refused: received.refused.iter().map(|(name, _)| name.clone()).collect(),
            gone: received.removed.iter().chain(&received.absent).cloned().collect(),
        }
    }

    /// Where everything of a kind is asked for, an answer is taken or refused as a whole.
    pub(super) fn count(
        &self,
        counts: &Counts,
        kind: Kind,
        changed: &BTreeSet<Name>,
        took: Duration,
    ) {
        let taken =
            |changed, empty| Outcome::Taken { version: &self.version, changed, empty, took };
        if matches!(kind, Kind::Cluster | Kind::Listener) {
            let changed = !changed.is_empty() || !self.gone.is_empty();
            let whole = self.refused.is_empty();
            counts.count(kind, ALL, if whole { taken(changed, false) } else { Outcome::Rejected });
            return;
        }
        for name in &self.accepted {
            counts.count(kind, name, taken(changed.contains(name), false));
        }
        for name in &self.gone {
            counts.count(kind, name, taken(false, true));
        }
        for name in &self.refused {
            counts.count(kind, name, Outcome::Rejected);
        }
    }
}

impl Counts {
    pub(super) fn new(registry: Registry) -> Self {
        let scope = |name: &str| registry.scope(name, None);
        Self {
            warming_clusters: scope("cluster_manager").gauge("warming_clusters"),
            warming_listeners: scope("listener_manager").gauge("total_listeners_warming"),
            unknown_fields: scope("server").counter("dynamic_unknown_fields"),
            registry,
            subscriptions: BTreeMap::new(),
            control_plane: None,
        }
    }

    /// There is a control plane to be asked.
    pub(super) fn begin_control_plane(&mut self) {
        let scope = self.registry.scope("control_plane", None);
        self.control_plane = Some(ControlPlane {
            connected: scope.gauge("connected_state"),
            identifier: scope.text("identifier"),
            _never: (scope.gauge("pending_requests"), scope.counter("rate_limit_enforced")),
        });
    }

    /// The stream stands, or not any more.
    pub(super) fn connected(&self, connected: bool) {
        if let Some(control_plane) = &self.control_plane {
            control_plane.connected.set(connected.into());
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.control_plane.as_ref().is_some_and(|one| one.connected.get() == 1)
    }

    /// The control plane says who it is.
    pub(super) fn identified(&self, identifier: &str) {
        if let Some(control_plane) = &self.control_plane
            && !identifier.is_empty()
        {
            control_plane.identifier.set(identifier);
        }
    }

    /// Everything of a kind is asked for.
    pub(super) fn begin(&mut self, kind: Kind, over_ads: bool) {
        let (outer, inner) = match kind {
            Kind::Cluster => ("cluster_manager", "cds"),
            _ => ("listener_manager", "lds"),
        };
        let scope = self.registry.scope(outer, None).scope(inner, None);
        let one = Subscription::begin(kind, &scope, None, over_ads);
        self.subscriptions.insert((kind, ALL.into()), vec![one]);
    }

    /// These resources of a kind are asked for, and no others.
    pub(super) fn follow(&mut self, kind: Kind, wanted: &BTreeMap<Name, Reference>, store: &Store) {
        self.subscriptions.retain(|(of, key), _| *of != kind || wanted.contains_key(key));
        let users = store.users(kind);
        let nobody = BTreeSet::from([Name::from(ALL)]);
        for (key, reference) in wanted {
            let known = self.subscriptions.entry((kind, Arc::clone(key))).or_default();
            let users = users.get(key).unwrap_or(&nobody);
            // Clusters share endpoints, and each counts; what connection managers share is counted
            // for the first of them, as in Envoy.
            let counted = if kind == Kind::Endpoints { users.len() } else { 1 };
            known.retain(|one| users.contains(&one.user));
            for user in users.iter().take(counted) {
                let more = known.len() < counted && known.iter().all(|one| one.user != *user);
                if more {
                    known.push(subscription(&self.registry, kind, reference, user));
                }
            }
        }
    }

    /// What became of one resource, or of an answer with everything.
    pub(super) fn count(&self, kind: Kind, key: &str, outcome: Outcome<'_>) {
        let place = (kind, Name::from(key));
        for one in self.subscriptions.get(&place).into_iter().flatten() {
            one.count(outcome);
        }
    }

    /// What is accepted but not in service yet.
    pub(super) fn warming(&self, all: &[(Kind, Name)]) {
        let of = |wanted| all.iter().filter(|(kind, _)| *kind == wanted).count();
        let of = |wanted| i64::try_from(of(wanted)).unwrap_or(i64::MAX);
        self.warming_clusters.set(of(Kind::Cluster));
        self.warming_listeners.set(of(Kind::Listener));
    }

    /// A resource came with fields that are not known.
    pub(super) fn unknown(&self, fields: usize) {
        self.unknown_fields.add(fields as u64);
    }

    /// The control plane's stream ended.
    pub(super) fn lost(&self) {
        let all = self.subscriptions.values().flatten();
        all.filter(|one| one.over_ads).for_each(|one| one.count(Outcome::Failed));
    }
}

fn subscription(
    registry: &Registry,
    kind: Kind,
    reference: &Reference,
    user: &Name,
) -> Arc<Subscription> {
    let name = reference.name();
    let over_ads = *reference.source() == Source::Ads;
    let scope = match kind {
        Kind::Endpoints => {
            let scope = ClusterStats::scope(registry, user);
            let cluster = scope.group(ClusterStats::new);
            return Subscription::begin(kind, &scope, Some((user, cluster)), over_ads);
        }
        Kind::Routes => {
            let manager = ("envoy_http_conn_manager_prefix", Arc::clone(user));
            let table: Name = plain(name).replace(':', "_").into();
            let scope = registry.scope("http", Some(manager));
            let scope = scope.scope("rds", Some(("envoy_rds_route_config", table)));
            let mut one = Subscription::new(kind, &scope, over_ads);
            one.user = Arc::clone(user);
            return one.shown(&scope);
        }
        Kind::Secret => registry.scope("sds", Some(("envoy_xds_resource_name", Arc::clone(name)))),
        _ => {
            let scope = registry.scope("extension_config_discovery", None);
            scope.scope("http_filter", None).scope(name, None)
        }
    };
    Subscription::begin(kind, &scope, None, over_ads)
}

/// One subscription.
#[derive(Debug)]
struct Subscription {
    kind: Kind,
    /// For whom it is counted.
    user: Name,
    over_ads: bool,
    /// Which has some of the counters already.
    cluster: Option<Arc<ClusterStats>>,
    attempt: Count,
    success: Count,
    failure: Count,
    rejected: Count,
    timeout: Count,
    empty: Count,
    reload: Count,
    /// Milliseconds since 1970.
    reload_time: Level,
    time: Level,
    duration: Spread,
    version: Mutex<Arc<str>>,
}

impl Subscription {
    fn begin(
        kind: Kind,
        scope: &Scope,
        cluster: Option<(&Name, Arc<ClusterStats>)>,
        over_ads: bool,
    ) -> Arc<Self> {
        let mut one = Self::new(kind, scope, over_ads);
        if let Some((user, cluster)) = cluster {
            one.user = Arc::clone(user);
            one.cluster = Some(cluster);
        }
        one.shown(scope)
    }

    fn new(kind: Kind, scope: &Scope, over_ads: bool) -> Self {
        Self {
            kind,
            user: ALL.into(),
            over_ads,
            cluster: None,
            attempt: Count::default(),
            success: Count::default(),
            failure: Count::default(),
            rejected: Count::default(),
            timeout: Count::default(),
            empty: Count::default(),
            reload: Count::default(),
            reload_time: Level::default(),
            time: Level::default(),
            duration: Spread::new(scope.bounds("update_duration")),
            version: Mutex::new("".into()),
        }
    }

    /// From now on; the first attempt has begun.
    fn shown(self, scope: &Scope) -> Arc<Self> {
        let one = Arc::new(self);
        one.tried();
        scope.show(Arc::clone(&one) as _);
        one
    }

    fn tried(&self) {
        match &self.cluster {
            Some(cluster) => cluster.discovery().attempt.inc(),
            None => self.attempt.inc(),
        }
    }

    fn count(&self, outcome: Outcome<'_>) {
        self.tried();
        let cluster = self.cluster.as_deref().map(ClusterStats::discovery);
        match outcome {
            Outcome::Rejected => self.rejected.inc(),
            Outcome::Late => self.timeout.inc(),
            Outcome::Failed => cluster.map_or(&self.failure, |one| one.failure).inc(),
            Outcome::Taken { version, changed, empty, took } => {
                cluster.as_ref().map_or(&self.success, |one| one.success).inc();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
                self.time.set(now);
                self.duration.record(took.as_secs_f64() * 1000.0);
                *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(version);
                if empty && self.kind != Kind::Extension {
                    cluster.as_ref().map_or(&self.empty, |one| one.empty).inc();
                } else if changed || empty {
                    self.reload.inc();
                    self.reload_time.set(now);
                } else if let Some(cluster) = &cluster {
                    cluster.no_rebuild.inc();
                }
            }
        }
    }
}

impl Group for Subscription {
    fn each(&self, see: &mut dyn FnMut(Item<'_>, Reading)) {
        let mut counter =
            |name, count: &Count| see(Item::plain(name), Reading::Counter(count.get()));
        counter("init_fetch_timeout", &self.timeout);
        counter("update_rejected", &self.rejected);
        if self.cluster.is_none() {
            counter("update_attempt", &self.attempt);
            counter("update_failure", &self.failure);
            counter("update_success", &self.success);
        }
        let reloads = matches!(self.kind, Kind::Cluster | Kind::Routes | Kind::Extension);
        if reloads {
            counter("config_reload", &self.reload);
        }
        match self.kind {
            Kind::Routes => counter("update_empty", &self.empty),
            Kind::Extension => {
                counter("config_fail", &self.rejected);
                counter("config_conflict", &Count::default());
            }
            _ => {}
        }
        if reloads && self.kind != Kind::Extension {
            let time = Reading::Gauge(self.reload_time.get());
            see(Item::plain("config_reload_time_ms"), time);
        }
        see(Item::plain("update_time"), Reading::Gauge(self.time.get()));
        see(Item::plain("update_duration"), Reading::Histogram(self.duration.summary()));
        let version = Arc::clone(&self.version.lock().unwrap_or_else(PoisonError::into_inner));
        let hash = if version.is_empty() { 0 } else { xxh64(version.as_bytes(), 0) };
        see(Item::plain("version"), Reading::Hash(hash));
        see(Item::plain("version_text"), Reading::Text(version));
    }

    fn reset(&self) {
        for count in [
            &self.attempt,
            &self.success,
            &self.failure,
            &self.rejected,
            &self.timeout,
            &self.empty,
            &self.reload,
        ] {
            count.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_counted_and_its_version_told() {
        let registry = Registry::new();
        let mut counts = Counts::new(registry.clone());
        counts.begin(Kind::Cluster, true);
        let version = Arc::from("2");
        let (changed, empty, took) = (true, false, Duration::ZERO);
        counts.count(Kind::Cluster, "", Outcome::Taken { version: &version, changed, empty, took });
        counts.count(Kind::Cluster, "", Outcome::Rejected);
        let value = |name: &str| registry.value(&format!("cluster_manager.cds.{name}"));
        assert_eq!(value("update_attempt"), Some(3));
        assert_eq!(value("update_success"), Some(1));
        assert_eq!(value("update_rejected"), Some(1));
        assert_eq!(value("config_reload"), Some(1));
        assert_eq!(value("version_text"), Some(1));
        // As Envoy has it for version "2".
        assert_eq!(xxh64(b"2", 0), 6_927_017_134_761_466_251);
        assert!(value("update_time") > Some(1_700_000_000_000));
    }

    #[test]
    fn what_is_not_asked_for_any_more_is_gone_after_a_sweep() {
        let registry = Registry::new();
        let mut counts = Counts::new(registry.clone());
        let secret = Reference::from("cert");
        let wanted = BTreeMap::from([(Arc::clone(secret.key()), secret)]);
        counts.follow(Kind::Secret, &wanted, &Store::default());
        counts.follow(Kind::Secret, &wanted, &Store::default());
        counts.count(Kind::Secret, "cert", Outcome::Late);
        counts.lost();
        let value = |name: &str| registry.value(&format!("sds.cert.{name}"));
        assert_eq!(value("init_fetch_timeout"), Some(1));
        assert_eq!(value("update_failure"), Some(1));
        assert_eq!(value("update_attempt"), Some(3));
        counts.follow(Kind::Secret, &BTreeMap::new(), &Store::default());
        registry.sweep();
        assert_eq!(value("update_attempt"), None);
    }
}
