//! Load balancing policies: the old enum with its configs, and the typed list.

use pillion_xds::envoy::config::cluster::v3 as pb;
use pillion_xds::envoy::extensions::load_balancing_policies as lb;

use super::at::At;
use super::common;
use crate::model::cluster::Balancer;

const TABLE_SIZE: u64 = 65_537;
const MIN_RING: u64 = 1024;
const MAX_RING: u64 = 8 << 20;

/// The balancer, and whether localities are weighted.
pub(super) fn balancer(at: &At<'_>, config: &pb::Cluster) -> Option<(Balancer, bool)> {
    use pb::cluster::common_lb_config::LocalityConfigSpecifier as Locality;
    if let Some(list) = &config.load_balancing_policy {
        return typed(&at.field("load_balancing_policy").field("policies"), &list.policies);
    }
    let locality = config.common_lb_config.as_ref();
    let locality = locality.and_then(|common| common.locality_config_specifier.as_ref());
    let weighted = matches!(locality, Some(Locality::LocalityWeightedLbConfig(_)));
    Some((by_enum(at, config)?, weighted))
}

fn by_enum(at: &At<'_>, config: &pb::Cluster) -> Option<Balancer> {
    use pb::cluster::{LbConfig, LbPolicy};
    let slow_start = "slow start is not supported";
    Some(match config.lb_policy() {
        LbPolicy::RoundRobin => {
            if let Some(LbConfig::RoundRobinLbConfig(config)) = &config.lb_config {
                let at = at
                    .field("round_robin_lb_config")
                    .field("slow_start_config")
                    .expect(config.slow_start_config.is_none(), slow_start);
                at?;
            }
            Balancer::RoundRobin
        }
        LbPolicy::LeastRequest => {
            let mut choice_count = 2;
            if let Some(LbConfig::LeastRequestLbConfig(config)) = &config.lb_config {
                let at = at.field("least_request_lb_config");
                at.field("slow_start_config")
                    .expect(config.slow_start_config.is_none(), slow_start)?;
                at.field("active_request_bias")
                    .expect(config.active_request_bias.is_none(), "is not supported")?;
                choice_count = choices(&at, config.choice_count)?;
            }
            Balancer::LeastRequest { choice_count }
        }
        LbPolicy::Random => Balancer::Random,
        LbPolicy::RingHash => match &config.lb_config {
            Some(LbConfig::RingHashLbConfig(config)) => ring(
                &at.field("ring_hash_lb_config"),
                (config.hash_function, config.minimum_ring_size, config.maximum_ring_size),
            )?,
            _ => Balancer::RingHash { minimum_size: MIN_RING, maximum_size: MAX_RING },
        },
        LbPolicy::Maglev => match &config.lb_config {
            Some(LbConfig::MaglevLbConfig(config)) => {
                maglev(&at.field("maglev_lb_config"), config.table_size)?
            }
            _ => Balancer::Maglev { table_size: TABLE_SIZE },
        },
        // An ORIGINAL_DST cluster provides its own; there is nothing to choose between.
        LbPolicy::ClusterProvided => Balancer::RoundRobin,
        LbPolicy::LoadBalancingPolicyConfig => {
            return at.field("load_balancing_policy").refuse("is missing");
        }
    })
}

/// The first entry of a type that we know wins (gRFC A52).
fn typed(at: &At<'_>, policies: &[pb::load_balancing_policy::Policy]) -> Option<(Balancer, bool)> {
    let mut unknown = Vec::new();
    for (i, policy) in policies.iter().enumerate() {
        let extension = policy.typed_extension_config.as_ref();
        let Some(packed) = extension.and_then(|config| config.typed_config.as_ref()) else {
            continue;
        };
        let entry = at.index(i);
        let entry = entry.field("typed_extension_config");
        let at = entry.field("typed_config");
        match common::type_of(packed) {
            "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => {
                let config: lb::round_robin::v3::RoundRobin = common::unpack(&at, packed)?;
                let slow = at.field("slow_start_config");
                slow.expect(config.slow_start_config.is_none(), "is not supported")?;
                let weighted = locality(&at, config.locality_lb_config.as_ref())?;
                return Some((Balancer::RoundRobin, weighted));
            }
            "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
                let config: lb::least_request::v3::LeastRequest = common::unpack(&at, packed)?;
                let slow = at.field("slow_start_config");
                slow.expect(config.slow_start_config.is_none(), "is not supported")?;
                at.field("active_request_bias")
                    .expect(config.active_request_bias.is_none(), "is not supported")?;
                at.field("enable_full_scan")
                    .expect(config.enable_full_scan != Some(true), "is not supported")?;
                at.field("selection_method")
                    .expect(config.selection_method == 0, "only N_CHOICES is supported")?;
                let choice_count = choices(&at, config.choice_count)?;
                let weighted = locality(&at, config.locality_lb_config.as_ref())?;
                return Some((Balancer::LeastRequest { choice_count }, weighted));
            }
            "envoy.extensions.load_balancing_policies.random.v3.Random" => {
                let config: lb::random::v3::Random = common::unpack(&at, packed)?;
                let weighted = locality(&at, config.locality_lb_config.as_ref())?;
                return Some((Balancer::Random, weighted));
            }
            "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash" => {
                let config: lb::ring_hash::v3::RingHash = common::unpack(&at, packed)?;
                check_hashing(&at, config.consistent_hashing_lb_config.as_ref())?;
                let function = i32::from(config.hash_function == 2);
                let sizes = (function, config.minimum_ring_size, config.maximum_ring_size);
                let weighted = config.locality_weighted_lb_config.is_some();
                return Some((ring(&at, sizes)?, weighted));
            }
            "envoy.extensions.load_balancing_policies.maglev.v3.Maglev" => {
                let config: lb::maglev::v3::Maglev = common::unpack(&at, packed)?;
                check_hashing(&at, config.consistent_hashing_lb_config.as_ref())?;
                let weighted = config.locality_weighted_lb_config.is_some();
                return Some((maglev(&at, config.table_size)?, weighted));
            }
            "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided" => {
                return Some((Balancer::RoundRobin, false));
            }
            other => unknown.push(format!("`{other}`")),
        }
    }
    at.refuse(format!("no supported load balancing policy among {}", unknown.join(", ")))
}

fn choices(at: &At<'_>, count: Option<u32>) -> Option<u32> {
    let count = count.unwrap_or(2);
    at.field("choice_count").expect(count >= 2, "must be at least 2").map(|()| count)
}

fn locality(at: &At<'_>, config: Option<&lb::common::v3::LocalityLbConfig>) -> Option<bool> {
    use lb::common::v3::locality_lb_config::LocalityConfigSpecifier as Spec;
    match config.and_then(|config| config.locality_config_specifier.as_ref()) {
        None => Some(false),
        Some(Spec::LocalityWeightedLbConfig(_)) => Some(true),
        Some(Spec::ZoneAwareLbConfig(_)) => {
            at.field("locality_lb_config").field("zone_aware_lb_config").refuse("is not supported")
        }
    }
}

fn check_hashing(
    at: &At<'_>,
    config: Option<&lb::common::v3::ConsistentHashingLbConfig>,
) -> Option<()> {
    let Some(config) = config else { return Some(()) };
    let at = at.field("consistent_hashing_lb_config");
    let by_name = config.use_hostname_for_hashing;
    at.field("use_hostname_for_hashing").expect(!by_name, "is not supported")?;
    at.field("hash_balance_factor").expect(config.hash_balance_factor.is_none(), "is not supported")
}

/// `hash_function` 1 is MURMUR_HASH_2.
fn ring(at: &At<'_>, sizes: (i32, Option<u64>, Option<u64>)) -> Option<Balancer> {
    let (function, minimum, maximum) = sizes;
    at.field("hash_function").expect(function == 0, "only XX_HASH is supported")?;
    let minimum_size = minimum.unwrap_or(MIN_RING);
    let maximum_size = maximum.unwrap_or(MAX_RING);
    let fine = minimum_size <= maximum_size && maximum_size <= MAX_RING;
    at.field("maximum_ring_size").expect(
        fine,
        format!("expected at least the minimum ({minimum_size}) and at most {MAX_RING}"),
    )?;
    Some(Balancer::RingHash { minimum_size, maximum_size })
}

fn maglev(at: &At<'_>, size: Option<u64>) -> Option<Balancer> {
    let table_size = size.unwrap_or(TABLE_SIZE);
    let prime = table_size > 1
        && (2..).take_while(|n| n * n <= table_size).all(|n| !table_size.is_multiple_of(n));
    at.field("table_size")
        .expect(prime && table_size <= 5_000_011, "must be a prime of at most 5000011")?;
    Some(Balancer::Maglev { table_size })
}
