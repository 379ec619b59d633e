//! Picking an endpoint for a request.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;

use super::Cluster;
use super::balance::{Query, mix};
use super::endpoint::Endpoint;
use super::set::EndpointSet;
use crate::model::endpoint::DropOverload;
use crate::telemetry::reason::{Reason, Refusal, Sent, Side};

/// What a pick depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickContext<'a> {
    /// Of the request, by the route's hash policy. None: at random, where a hash is needed.
    pub hash: Option<u64>,
    /// Endpoints that were tried before (`previous_hosts`).
    pub avoid: &'a [Arc<Endpoint>],
    /// How often another endpoint is drawn when one of those comes up
    /// (`host_selection_retry_max_attempts`). After that the last one drawn is taken.
    pub attempts: u32,
    /// Where the connection went before it was redirected, for `ORIGINAL_DST`; what
    /// [`Cluster::forward_to`] found, for clusters of that kind.
    pub original_dst: Option<SocketAddr>,
    /// Fresh for every pick.
    pub random: u64,
}

impl Cluster {
    /// An endpoint for a request, by priority, health, locality and the balancer's algorithm.
    ///
    /// # Errors
    /// There is none, or `drop_overloads` says that this request is not to be served.
    pub fn pick(&self, context: &PickContext<'_>) -> Result<Arc<Endpoint>, Refusal> {
        if self.goes_anywhere() {
            return self.original_dst(context.original_dst);
        }
        let set = self.set.load();
        if !set.drops.is_empty() && context.avoid.is_empty() {
            self.drop_overload(&set.drops, context.random)?;
        }
        let mut random = context.random;
        let mut last = None;
        for attempt in 0..=context.attempts {
            random = mix(random);
            let query = Query { random, hash: context.hash, attempt };
            let Some((endpoint, panic)) = set.pick(query) else { break };
            if panic {
                self.stats.lb_healthy_panic.inc();
            }
            if !context.avoid.iter().any(|avoid| avoid.is_same(endpoint)) {
                return Ok(Arc::clone(endpoint));
            }
            last = Some(endpoint);
        }
        last.cloned().ok_or_else(|| self.nobody(&set))
    }

    fn drop_overload(&self, drops: &[DropOverload], random: u64) -> Result<(), Refusal> {
        let mut random = random;
        for drop in drops {
            random = mix(random);
            if random % 1_000_000 < u64::from(drop.parts_per_million) {
                self.stats.upstream_rq_drop_overload.inc();
                let detail =
                    format!("cluster {} sheds load: category {}", self.name(), drop.category);
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Err(Refusal::local(Reason::DropOverload, status, detail));
            }
        }
        Ok(())
    }

    pub(super) fn nobody(&self, set: &EndpointSet) -> Refusal {
        let counts = set.counts;
        self.no_healthy(format!(
            "cluster {} has no endpoint to send to: {} in all, {} healthy, {} degraded",
            self.name(),
            counts.all,
            counts.healthy,
            counts.degraded
        ))
    }

    pub(super) fn no_healthy(&self, detail: String) -> Refusal {
        self.stats.upstream_cx_none_healthy.inc();
        Refusal {
            reason: Reason::NoHealthyUpstream,
            status: StatusCode::SERVICE_UNAVAILABLE,
            side: Side::Upstream,
            sent: Sent::No,
            detail: detail.into(),
        }
    }
}
