//! Endpoints of a cluster (`envoy.config.endpoint.v3`).

use std::sync::{Arc, LazyLock};

use super::Name;
use super::health_check::CheckTarget;
use super::listener::Address;
use super::metadata::Metadata;

/// All endpoints of a cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// Groups as configured; several may share a priority.
    pub localities: Vec<LocalityEndpoints>,
    /// Share of requests that is refused at once, by category.
    pub drop_overloads: Vec<DropOverload>,
    /// Percent: below `100 / factor` of healthy hosts a priority spills over. Default 140.
    pub overprovisioning_factor: u32,
    /// The health of a priority is measured by the weights of its endpoints, not by their number.
    pub weighted_priority_health: bool,
}

/// `Policy.DropOverload`
#[derive(Clone, Debug, PartialEq)]
pub struct DropOverload {
    /// Name of the category.
    pub category: Name,
    /// Out of a million.
    pub parts_per_million: u32,
}

/// `LocalityLbEndpoints`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LocalityEndpoints {
    /// Where they are.
    pub locality: Arc<Locality>,
    /// 0 is tried first.
    pub priority: u32,
    /// Share of this locality, with `locality_weighted_lb_config`. None: gets no traffic there.
    pub weight: Option<u32>,
    /// For transport socket matches.
    pub metadata: Metadata,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// `core.v3.Locality`
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone in the region.
    pub zone: String,
    /// Part of the zone.
    pub sub_zone: String,
}

impl Locality {
    /// To be shared; what is nowhere is the same one each time.
    pub fn shared(self) -> Arc<Self> {
        static NOWHERE: LazyLock<Arc<Locality>> = LazyLock::new(Arc::default);
        if self == **NOWHERE { Arc::clone(&NOWHERE) } else { Arc::new(self) }
    }
}

/// One endpoint as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Target,
    /// Everything else.
    pub traits: Arc<Traits>,
}

/// What is said of an endpoint beside its address. Of most it is the same as of their neighbours, and is there once
/// for all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Traits {
    /// Used for `auto_host_rewrite` and health checks. May be empty.
    pub hostname: Name,
    /// At least 1.
    pub weight: u32,
    /// As the control plane sees it.
    pub health: Health,
    /// For subsets and transport socket matches.
    pub metadata: Metadata,
    /// Where it is checked.
    pub check: CheckTarget,
}

impl Traits {
    /// What nothing is said of: the same one each time.
    pub fn plain() -> Arc<Self> {
        static PLAIN: LazyLock<Arc<Traits>> = LazyLock::new(|| {
            Arc::new(Traits {
                hostname: Name::from(""),
                weight: 1,
                health: Health::Healthy,
                metadata: Metadata::new(),
                check: CheckTarget::default(),
            })
        });
        Arc::clone(&PLAIN)
    }

    /// Shares them with the neighbour, if they are the same.
    pub fn beside(self, neighbour: &Arc<Self>) -> Arc<Self> {
        if self == **neighbour { Arc::clone(neighbour) } else { Arc::new(self) }
    }
}

/// What to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A resolved address.
    Address(Address),
    /// A name to resolve (STRICT_DNS, LOGICAL_DNS).
    Dns(Name, u16),
}

/// What this proxy found out about an endpoint by itself, as the admin endpoint shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Active checks fail.
    pub failed_active: bool,
    /// Outlier detection leaves it out.
    pub ejected: bool,
    /// Active checks say that it is degraded.
    pub degraded_active: bool,
    /// The control plane removed it; it stays until a check fails.
    pub pending_removal: bool,
    /// Ignored until its first check.
    pub pending_active: bool,
    /// It asked to be left alone at once (`x-envoy-immediate-health-check-fail`).
    pub excluded: bool,
    /// Its last check was not answered in time.
    pub timed_out: bool,
}

/// `core.v3.HealthStatus`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// UNKNOWN or HEALTHY.
    #[default]
    Healthy,
    /// UNHEALTHY, TIMEOUT: picked in panic only.
    Unhealthy,
    /// DRAINING: no new requests.
    Draining,
    /// DEGRADED: only when healthy ones do not suffice.
    Degraded,
}
