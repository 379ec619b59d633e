//! How an endpoint of a cluster is chosen (`lb_policy`, `common_lb_config`,
//! `envoy.extensions.load_balancing_policies`).

use std::time::Duration;

use http::HeaderName;

use super::Name;
use super::endpoint::Health;
use super::metadata::{Fields, Value};

/// Balancing algorithm with its knobs.
#[derive(Clone, Debug, PartialEq)]
pub enum Balancer {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastRequest {
        /// How many random ones are compared. Default 2.
        choice_count: u32,
        /// How much requests under way count where weights differ. Default 1; 0: not at all.
        active_request_bias: f64,
        /// All are compared (`FULL_SCAN`).
        full_scan: bool,
    },
    /// Any.
    Random,
    /// By position of the request's hash on a ring (`ring_hash`).
    RingHash {
        /// At least so many entries. Default 1024.
        minimum_size: u64,
        /// At most so many. Default 8 Mi.
        maximum_size: u64,
        /// What entries are hashed by.
        function: HashFunction,
    },
    /// By Maglev table.
    Maglev {
        /// A prime. Default 65537.
        table_size: u64,
    },
    /// The first of the list (gRFC A61, as far as it concerns requests).
    PickFirst {
        /// The list is in random order.
        shuffle: bool,
    },
    /// In turn, by the load that endpoints report (gRFC A58).
    Reported(Box<Reported>),
    /// The cheaper of two: latency, remembered by its peaks, times requests under way.
    PeakEwma(PeakEwma),
}

impl Balancer {
    /// Least request with Envoy's defaults.
    pub const fn least_request() -> Self {
        Self::LeastRequest { choice_count: 2, active_request_bias: 1.0, full_scan: false }
    }

    /// Ring hash with Envoy's defaults.
    pub const fn ring_hash() -> Self {
        let function = HashFunction::XxHash;
        Self::RingHash { minimum_size: 1024, maximum_size: 8 << 20, function }
    }

    /// Maglev with Envoy's default.
    pub const fn maglev() -> Self {
        Self::Maglev { table_size: 65_537 }
    }

    /// Whether answers tell it something.
    pub fn learns(&self) -> bool {
        matches!(self, Self::Reported(_) | Self::PeakEwma(_))
    }

    /// Whether the request's hash decides.
    pub fn hashes(&self) -> bool {
        matches!(self, Self::RingHash { .. } | Self::Maglev { .. })
    }
}

/// `RingHashLbConfig.HashFunction`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashFunction {
    /// xxHash64
    #[default]
    XxHash,
    /// MurmurHash64A with the seed of libstdc++.
    Murmur2,
}

/// `ClientSideWeightedRoundRobin`
#[derive(Clone, Debug, PartialEq)]
pub struct Reported {
    /// An endpoint must have reported for so long before its weight counts. Default 10 s.
    pub blackout: Duration,
    /// A weight that is not renewed for so long does not count any more. Default 3 min.
    pub expiration: Duration,
    /// How often weights are computed. Default 1 s, at least 100 ms.
    pub update: Duration,
    /// Share of errors times this is added to the utilization. Default 1.
    pub penalty: f64,
    /// Metrics that are used where there is no `application_utilization`, such as
    /// `named_metrics.queue`; the greatest counts.
    pub metrics: Vec<String>,
}

/// `PeakEwma`
#[derive(Clone, Debug, PartialEq)]
pub struct PeakEwma {
    /// How fast old latencies are forgotten. Default 10 s.
    pub decay: Duration,
    /// Taken for an endpoint that never answered. Default 10 ms.
    pub default_rtt: Duration,
}

/// What all algorithms share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Balancing {
    /// How localities share the traffic.
    pub locality: LocalityRouting,
    /// No endpoint instead of all of them, where too few are healthy (`fail_traffic_on_panic`).
    pub fail_on_panic: bool,
    /// For the hashing algorithms.
    pub hashing: Hashing,
    /// New endpoints get less at first.
    pub slow_start: Option<SlowStart>,
    /// Subsets by metadata.
    pub subsets: Option<Box<Subsets>>,
    /// Where requests name their endpoint, and in which health it is still used.
    pub override_host: OverrideHost,
}

/// `ConsistentHashingLbConfig`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hashing {
    /// An endpoint is hashed by its host name, not by its address.
    pub by_hostname: bool,
    /// An endpoint that has this percent of the mean load is passed over (bounded loads). At least
    /// 100. None: no bound.
    pub bound: Option<u32>,
}

/// `locality_config_specifier`
#[derive(Clone, Debug, PartialEq)]
pub enum LocalityRouting {
    /// `zone_aware_lb_config`: the proxy's own zone as far as it can take its share.
    ZoneAware(ZoneAware),
    /// `locality_weighted_lb_config`: by the weights of the localities.
    Weighted,
}

impl Default for LocalityRouting {
    fn default() -> Self {
        Self::ZoneAware(ZoneAware::default())
    }
}

/// `ZoneAwareLbConfig`. Has an effect only where `cluster_manager.local_cluster_name` is set.
#[derive(Clone, Debug, PartialEq)]
pub struct ZoneAware {
    /// Percent of the requests that are routed so. Default 100.
    pub routing_enabled: f64,
    /// Not with fewer healthy endpoints than this. Default 6.
    pub min_cluster_size: u64,
    /// Always all to the own zone, if it has an endpoint (`force_locality_direct_routing`).
    pub force_direct: bool,
    /// All to the own zone, if it has so many endpoints (`force_local_zone.min_size`).
    pub force_local: Option<u32>,
    /// Localities are compared by weight, not by number (`HEALTHY_HOSTS_WEIGHT`).
    pub by_weight: bool,
}

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            routing_enabled: 100.0,
            min_cluster_size: 6,
            force_direct: false,
            force_local: None,
            by_weight: false,
        }
    }
}

/// `SlowStartConfig`
#[derive(Clone, Debug, PartialEq)]
pub struct SlowStart {
    /// How long an endpoint counts as new.
    pub window: Duration,
    /// Greater than 1: the weight grows faster in the beginning. Default 1.
    pub aggression: f64,
    /// Never less than this share of the weight. Default 0.1.
    pub min_weight: f64,
}

/// `LbSubsetConfig`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subsets {
    /// By which keys. None twice.
    pub selectors: Vec<Selector>,
    /// Where no subset matches.
    pub fallback: Fallback,
    /// The default subset.
    pub default_subset: Fields,
    /// Weights of localities count in subsets too.
    pub locality_weight_aware: bool,
    /// A locality counts by the share of its endpoints that is in the subset.
    pub scale_locality_weight: bool,
    /// Any endpoint, where the fallback has none.
    pub panic_mode_any: bool,
    /// A list stands for each of its values.
    pub list_as_any: bool,
    /// A route may say more keys than a selector has.
    pub allow_redundant_keys: bool,
}

/// `LbSubsetSelector`
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// In the order of the alphabet, none twice.
    pub keys: Vec<Name>,
    /// Where there is no subset of these values. None: as everywhere.
    pub fallback: Option<SelectorFallback>,
    /// Every value names one endpoint.
    pub single_host: bool,
}

/// What a route wants of its endpoint's metadata (`metadata_match`, under `envoy.lb`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubsetMatch {
    /// In the order of the keys; values as fingerprints.
    criteria: Box<[(Name, u64)]>,
}

impl SubsetMatch {
    /// Of the route's fields, and those of its weighted cluster, which win.
    pub fn new(route: Option<&Fields>, weighted: Option<&Fields>) -> Self {
        let mut fields: std::collections::BTreeMap<&str, &Value> = Default::default();
        for (name, value) in route.into_iter().chain(weighted).flatten() {
            fields.insert(name, value);
        }
        let made = fields.into_iter().map(|(name, value)| (name.into(), value.fingerprint()));
        Self { criteria: made.collect() }
    }

    /// Nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.criteria.is_empty()
    }

    /// How many keys.
    pub fn len(&self) -> usize {
        self.criteria.len()
    }

    /// The values of these keys as one number: [`fold`] of their fingerprints. None: a key is
    /// missing.
    pub fn of(&self, keys: &[Name]) -> Option<u64> {
        keys.iter().try_fold(0, |all, key| {
            let at = self.criteria.binary_search_by(|(name, _)| name.cmp(key)).ok()?;
            self.criteria.get(at).map(|(_, value)| fold(all, *value))
        })
    }
}

/// Adds one fingerprint to several.
pub fn fold(all: u64, one: u64) -> u64 {
    (all.rotate_left(5) ^ one).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// `LbSubsetFallbackPolicy`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// No endpoint.
    #[default]
    None,
    /// Any.
    Any,
    /// One of the default subset.
    Default,
}

/// `LbSubsetSelectorFallbackPolicy`
#[derive(Clone, Debug, PartialEq)]
pub enum SelectorFallback {
    /// As for the whole cluster.
    To(Fallback),
    /// Again, with these of the keys (`KEYS_SUBSET`).
    Keys(Vec<Name>),
}

/// The endpoints that requests name: a stateful session's, or those that headers of a request say
/// (`OverrideHost`).
#[derive(Clone, Debug, PartialEq)]
pub struct OverrideHost {
    /// Headers that list addresses, the first address for the first try. Empty: none.
    pub headers: Vec<HeaderName>,
    /// `override_host_status`: in which health a named endpoint is used. Default: healthy and
    /// degraded.
    pub healthy: bool,
    /// DEGRADED
    pub degraded: bool,
    /// UNHEALTHY, TIMEOUT
    pub unhealthy: bool,
    /// DRAINING
    pub draining: bool,
}

impl Default for OverrideHost {
    fn default() -> Self {
        let headers = Vec::new();
        Self { headers, healthy: true, degraded: true, unhealthy: false, draining: false }
    }
}

impl OverrideHost {
    /// Whether a named endpoint of this health is used.
    pub fn allows(&self, health: Health) -> bool {
        match health {
            Health::Healthy => self.healthy,
            Health::Degraded => self.degraded,
            Health::Unhealthy => self.unhealthy,
            Health::Draining => self.draining,
        }
    }
}
