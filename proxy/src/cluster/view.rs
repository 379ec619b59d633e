//! What the admin endpoint's `/clusters` shows: plain data, taken at one moment.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{Cluster, Endpoint, EndpointCounters, Live};
use crate::model::Name;
use crate::model::cluster::Discovery;
use crate::model::endpoint::{Findings, Health, Locality};
use crate::model::metadata::{self, LB, Metadata};
use crate::model::route::Priority;

/// One cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterView {
    /// Its name.
    pub name: Name,
    /// Its name where it is observed: `alt_stat_name`, or its name.
    pub stat_name: Name,
    /// Under which its endpoints come, where that is another name (`eds_cluster_config.service_name`).
    pub eds_service_name: Option<Name>,
    /// `STATIC`, `STRICT_DNS`, `LOGICAL_DNS`, `EDS`, `ORIGINAL_DST`.
    pub discovery: &'static str,
    /// Limits of the default priority: `max_connections` and so on.
    pub default_priority: [(&'static str, u32); 4],
    /// Limits of the high priority.
    pub high_priority: [(&'static str, u32); 4],
    /// Of the last interval of outlier detection: mean success rate in percent, and the rate below
    /// which one is an outlier. By origin: the endpoints' answers, and the way to them.
    pub averages: [Option<(f64, f64)>; 2],
    /// Whether outliers are detected.
    pub detects_outliers: bool,
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointView {
    /// Where it listens.
    pub address: Name,
    /// Its host name. May be empty.
    pub hostname: Name,
    /// Its weight.
    pub weight: u32,
    /// It is one to try something out on (`canary` in the metadata of `envoy.lb`).
    pub canary: bool,
    /// 0 is tried first.
    pub priority: u32,
    /// Where it is.
    pub locality: Locality,
    /// As the control plane sees it.
    pub health: Health,
    /// What this proxy found out itself.
    pub found: Findings,
    /// Percent of successes in the last interval of outlier detection, by origin.
    pub rates: [Option<f64>; 2],
    /// How often it was left out.
    pub ejections: u32,
    /// Connections open.
    pub cx_active: u32,
    /// Connections not made.
    pub cx_connect_fail: u64,
    /// Connections tried.
    pub cx_total: u64,
    /// Requests under way.
    pub rq_active: u32,
    /// Requests that failed.
    pub rq_error: u64,
    /// Requests that did not.
    pub rq_success: u64,
    /// Requests that wait for a connection.
    pub rq_pending_active: u32,
    /// Requests not answered in time.
    pub rq_timeout: u64,
    /// Requests sent.
    pub rq_total: u64,
}

impl Live {
    /// All clusters, by name.
    pub fn view(&self) -> Vec<ClusterView> {
        let mut views: Vec<ClusterView> =
            self.clusters().map(|(_, cluster)| cluster.view()).collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }
}

impl Cluster {
    /// This cluster at this moment.
    pub fn view(&self) -> ClusterView {
        ClusterView {
            name: Name::clone(self.name()),
            stat_name: if *self.config.stat_name == *self.name().replace(':', "_") {
                Name::clone(self.name())
            } else {
                Name::clone(&self.config.stat_name)
            },
            eds_service_name: match &self.config.discovery {
                Discovery::Eds(from) if from.name() != self.name() => {
                    Some(Name::clone(from.name()))
                }
                _ => None,
            },
            discovery: match self.config.discovery {
                Discovery::Static => "STATIC",
                Discovery::StrictDns(_) => "STRICT_DNS",
                Discovery::LogicalDns(_) => "LOGICAL_DNS",
                Discovery::Eds(_) => "EDS",
                Discovery::OriginalDst => "ORIGINAL_DST",
                Discovery::Forward(_) => "envoy.clusters.dynamic_forward_proxy",
                Discovery::Aggregate(_) => "envoy.clusters.aggregate",
            },
            default_priority: self.breakers.limits(Priority::Default),
            high_priority: self.breakers.limits(Priority::High),
            detects_outliers: self.config.outliers.is_some(),
            averages: *self.averages.lock().unwrap_or_else(PoisonError::into_inner),
            endpoints: self.endpoints().iter().map(|endpoint| endpoint.view()).collect(),
        }
    }
}

/// What canaries are said to be (`envoy.lb`).
fn is_canary(found: &Metadata) -> bool {
    let canary = found.get(LB).and_then(|fields| fields.get("canary"));
    matches!(canary, Some(metadata::Value::Bool(true)))
}

impl Endpoint {
    fn view(&self) -> EndpointView {
        let unused = EndpointCounters::default();
        let used = self.host.if_used();
        let counters = used.map_or(&unused, |used| &*used.counters);
        let (rates, ejections) = used.map_or_else(Default::default, |used| {
            let ejection = used.ejection();
            (ejection.rates, ejection.count())
        });
        EndpointView {
            address: self.address.to_string().into(),
            hostname: Name::clone(&self.hostname),
            weight: self.weight,
            canary: is_canary(&self.metadata),
            priority: self.priority,
            locality: (*self.locality).clone(),
            health: self.health,
            found: self.host.flags.findings(),
            rates,
            ejections,
            cx_active: counters.cx_active.load(Ordering::Relaxed),
            cx_connect_fail: counters.cx_connect_fail.load(Ordering::Relaxed),
            cx_total: counters.cx_total.load(Ordering::Relaxed),
            rq_active: counters.rq_active.load(Ordering::Relaxed),
            rq_error: counters.rq_error.load(Ordering::Relaxed),
            rq_pending_active: counters.rq_pending_active.load(Ordering::Relaxed),
            rq_success: counters.rq_success.load(Ordering::Relaxed),
            rq_timeout: counters.rq_timeout.load(Ordering::Relaxed),
            rq_total: counters.rq_total.load(Ordering::Relaxed),
        }
    }
}
