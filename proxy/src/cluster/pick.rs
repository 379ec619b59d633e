//! Picking an endpoint for a request.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};

use http::StatusCode;

use super::Cluster;
use super::balance::{Query, mix};
use super::endpoint::{Endpoint, Standing};
use super::set::{EndpointSet, From, Picked};
use crate::model::Name;
use crate::model::balancing::SubsetMatch;
use crate::model::endpoint::{DropOverload, Health};
use crate::model::retry::OmitHosts;
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
    /// Endpoints that are left out as those are, by their metadata.
    pub omit: Option<&'a OmitHosts>,
    /// Priorities that are left out, as long as there are others (`previous_priorities`).
    pub leave: &'a [u32],
    /// Where the connection went before it was redirected, for `ORIGINAL_DST`; what
    /// [`Cluster::forward_to`] found, for clusters of that kind.
    pub original_dst: Option<SocketAddr>,
    /// What the route wants of the endpoint's metadata.
    pub subset: Option<&'a SubsetMatch>,
    /// The endpoint that the request names.
    pub named: Option<Named<'a>>,
    /// Fresh for every pick.
    pub random: u64,
}

/// An endpoint by its address.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// `10.0.0.1:80`; may be several, separated by commas: each try takes the next one.
    pub addresses: &'a str,
    /// Which try this is, from 0.
    pub attempt: usize,
    /// This one or none.
    pub strict: bool,
}

impl PickContext<'_> {
    /// Whether another endpoint is to be drawn.
    fn rejects(&self, endpoint: &Endpoint) -> bool {
        self.avoid.iter().any(|avoid| avoid.is_same(endpoint))
            || self.omit.is_some_and(|omit| !omit.is_empty() && omit.omits(&endpoint.metadata))
    }
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
        if let Some(named) = &context.named {
            if let Some(endpoint) = self.named(&set, named) {
                return Ok(Arc::clone(endpoint));
            }
            if named.strict {
                return Err(self.no_healthy(format!(
                    "the session's endpoint {} of cluster {} is gone or not well",
                    named.addresses,
                    self.name()
                )));
            }
        }
        let mut random = context.random;
        let mut last = None;
        for attempt in 0..=context.attempts {
            random = mix(random);
            let query = Query { random, hash: context.hash, attempt };
            let elsewhere = match context.leave {
                [] => None,
                leave => self.elsewhere(&set, leave, random),
            };
            let endpoint = if let Some(endpoint) = elsewhere {
                endpoint
            } else {
                let (picked, from) = set.pick(query, context.subset);
                self.count_pick(picked.as_ref(), from);
                let Some(Picked { endpoint, .. }) = picked else { break };
                endpoint
            };
            if !context.rejects(endpoint) {
                return Ok(Arc::clone(endpoint));
            }
            last = Some(endpoint);
        }
        last.cloned().ok_or_else(|| self.nobody(&set))
    }

    fn count_pick(&self, picked: Option<&Picked<'_>>, from: From) {
        let stats = &self.stats;
        if picked.is_some_and(|picked| picked.panic) {
            stats.lb_healthy_panic.inc();
        }
        match from {
            From::Whole => {}
            From::Subset => stats.lb_subsets_selected.inc(),
            From::Fallback => stats.lb_subsets_fallback.inc(),
            From::FallbackPanic => stats.lb_subsets_fallback_panic.inc(),
        }
    }

    fn named<'s>(&self, set: &'s EndpointSet, named: &Named<'_>) -> Option<&'s Arc<Endpoint>> {
        let addresses = named.addresses.split(',').map(str::trim);
        let mut known = addresses.filter_map(|address| set.find(address));
        let endpoint = known.nth(named.attempt)?;
        let health = match (endpoint.health, endpoint.standing()) {
            (Health::Draining, _) => Health::Draining,
            (_, Standing::Healthy) => Health::Healthy,
            (_, Standing::Degraded) => Health::Degraded,
            (_, Standing::Unhealthy) => Health::Unhealthy,
        };
        self.config.balancing.override_host.allows(health).then_some(endpoint)
    }

    fn drop_overload(&self, drops: &[DropOverload], random: u64) -> Result<(), Refusal> {
        let mut random = random;
        for drop in drops {
            random = mix(random);
            if random % 1_000_000 < u64::from(drop.parts_per_million) {
                self.stats.upstream_rq_drop_overload.inc();
                let mut shed = self.shed.lock().unwrap_or_else(PoisonError::into_inner);
                *shed.entry(Name::clone(&drop.category)).or_default() += 1;
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
