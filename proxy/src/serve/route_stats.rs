//! Metrics of virtual clusters and of routes with a `stat_prefix` (Envoy: "vhost.").

use crate::cluster::Codes;
use crate::model::Name;
use crate::model::route::{Counted, VirtualCluster};
use crate::telemetry::stats::{Counter, Histogram, Registry, Scope};

/// What is counted of requests that belong together.
#[derive(Debug)]
pub(crate) struct RequestStats {
    /// Tries that were sent.
    pub(super) total: Counter,
    pub(super) retry: Counter,
    pub(super) retry_limit_exceeded: Counter,
    pub(super) retry_overflow: Counter,
    pub(super) retry_success: Counter,
    pub(super) timeout: Counter,
    completed: Counter,
    codes: Codes,
    time: Histogram,
}

impl RequestStats {
    /// `vhost.<host>.vcluster.<name>.`
    pub(super) fn of_cluster(registry: &Registry, host: &Name, cluster: &VirtualCluster) -> Self {
        let label = ("envoy_virtual_cluster", cluster.name.clone());
        Self::new(&of_host(registry, host).scope("vcluster", Some(label)))
    }

    /// `vhost.<host>.route.<prefix>.`
    pub(super) fn of_route(registry: &Registry, host: &Name, route: &Counted) -> Self {
        let label = ("envoy_route", route.prefix.clone());
        Self::new(&of_host(registry, host).scope("route", Some(label)))
    }

    fn new(scope: &Scope) -> Self {
        Self {
            total: scope.counter("upstream_rq_total"),
            retry: scope.counter("upstream_rq_retry"),
            retry_limit_exceeded: scope.counter("upstream_rq_retry_limit_exceeded"),
            retry_overflow: scope.counter("upstream_rq_retry_overflow"),
            retry_success: scope.counter("upstream_rq_retry_success"),
            timeout: scope.counter("upstream_rq_timeout"),
            completed: scope.counter("upstream_rq_completed"),
            codes: Codes::new(scope.clone()),
            time: scope.histogram("upstream_rq_time"),
        }
    }

    /// A request has ended with this status; `time`: milliseconds to the upstream's answer.
    pub(super) fn charge(&self, status: u16, time: Option<f64>) {
        self.completed.inc();
        self.codes.charge(status);
        if let Some(time) = time {
            self.time.record(time);
        }
    }
}

fn of_host(registry: &Registry, host: &Name) -> Scope {
    registry.scope("vhost", Some(("envoy_virtual_host", host.clone())))
}
