//! Load balancing policies: the old enum with its configs, and the typed list.

use pillion_xds::envoy::config::cluster::v3 as pb;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::load_balancing_policies as lb;
use pillion_xds::envoy::r#type::v3 as kinds;
use prost_types::Any;

use super::at::At;
use super::{common, headers, subsets};
use crate::model::balancing::{
    Balancer, Balancing, HashFunction, Hashing, LocalityRouting, OverrideHost, PeakEwma, Reported,
    SlowStart, ZoneAware,
};

use std::time::Duration;

const TABLE_SIZE: u64 = 65_537;
const MIN_RING: u64 = 1024;
const MAX_RING: u64 = 8 << 20;

/// An algorithm with what goes with it.
type Made = (Balancer, Balancing);

/// How endpoints are picked.
pub(super) fn balancer(at: &At<'_>, config: &pb::Cluster) -> Option<Made> {
    let common = config.common_lb_config.as_ref();
    let (balancer, mut balancing) = match &config.load_balancing_policy {
        Some(list) => {
            check_typed(at, config)?;
            typed(&at.field("load_balancing_policy").field("policies"), &list.policies)?
        }
        None => by_enum(at, config)?,
    };
    if let Some(statuses) = common.and_then(|common| common.override_host_status.as_ref()) {
        let headers = std::mem::take(&mut balancing.override_host.headers);
        balancing.override_host = OverrideHost { headers, ..override_status(statuses) };
    }
    Some((balancer, balancing))
}

/// What Envoy does not take together with the typed list.
fn check_typed(at: &At<'_>, config: &pb::Cluster) -> Option<()> {
    let with = "cannot be combined with load_balancing_policy";
    at.field("lb_subset_config").expect(config.lb_subset_config.is_none(), with)?;
    let Some(common) = &config.common_lb_config else { return Some(()) };
    let at = at.field("common_lb_config");
    at.field("locality_config_specifier")
        .expect(common.locality_config_specifier.is_none(), with)?;
    at.field("consistent_hashing_lb_config")
        .expect(common.consistent_hashing_lb_config.is_none(), with)
}

fn override_status(set: &core::HealthStatusSet) -> OverrideHost {
    use core::HealthStatus as Status;
    let any = |wanted: &[Status]| set.statuses().any(|status| wanted.contains(&status));
    OverrideHost {
        headers: Vec::new(),
        healthy: any(&[Status::Unknown, Status::Healthy]),
        degraded: any(&[Status::Degraded]),
        unhealthy: any(&[Status::Unhealthy, Status::Timeout]),
        draining: any(&[Status::Draining]),
    }
}

fn by_enum(at: &At<'_>, config: &pb::Cluster) -> Option<Made> {
    use pb::cluster::common_lb_config::LocalityConfigSpecifier as Locality;
    let (balancer, slow_start) = by_policy(at, config)?;
    let common_at = at.field("common_lb_config");
    let common = config.common_lb_config.as_ref();
    let locality = match common.and_then(|common| common.locality_config_specifier.as_ref()) {
        None => LocalityRouting::default(),
        Some(Locality::LocalityWeightedLbConfig(_)) => LocalityRouting::Weighted,
        Some(Locality::ZoneAwareLbConfig(config)) => LocalityRouting::ZoneAware(ZoneAware {
            routing_enabled: percent(config.routing_enabled.as_ref(), 100.0),
            min_cluster_size: config.min_cluster_size.unwrap_or(6),
            ..ZoneAware::default()
        }),
    };
    let hashing = common.and_then(|common| common.consistent_hashing_lb_config.as_ref());
    let hashing = match hashing {
        None => Hashing::default(),
        Some(config) => Hashing {
            by_hostname: config.use_hostname_for_hashing,
            bound: bound(
                &common_at.field("consistent_hashing_lb_config"),
                config.hash_balance_factor,
            )?,
        },
    };
    let subsets = match &config.lb_subset_config {
        Some(config) => Some(subsets::legacy(&at.field("lb_subset_config"), config)?.into()),
        None => None,
    };
    let fail_on_panic = match common.and_then(|common| common.locality_config_specifier.as_ref()) {
        Some(Locality::ZoneAwareLbConfig(config)) => config.fail_traffic_on_panic,
        _ => false,
    };
    let rest = Balancing { slow_start, subsets, ..Balancing::default() };
    Some((balancer, Balancing { locality, fail_on_panic, hashing, ..rest }))
}

fn by_policy(at: &At<'_>, config: &pb::Cluster) -> Option<(Balancer, Option<SlowStart>)> {
    use pb::cluster::{LbConfig, LbPolicy};
    let lb = config.lb_config.as_ref();
    let legacy = |at: &At<'_>, slow: &Option<pb::cluster::SlowStartConfig>| match slow {
        None => Some(None),
        Some(slow) => {
            let window = slow.slow_start_window;
            let rest = (slow.aggression.as_ref(), slow.min_weight_percent.as_ref());
            slow_start(&at.field("slow_start_config"), window, rest).map(Some)
        }
    };
    let balancer = match (config.lb_policy(), lb) {
        (LbPolicy::RoundRobin, Some(LbConfig::RoundRobinLbConfig(config))) => {
            let at = at.field("round_robin_lb_config");
            return Some((Balancer::RoundRobin, legacy(&at, &config.slow_start_config)?));
        }
        (LbPolicy::RoundRobin, _) => Balancer::RoundRobin,
        (LbPolicy::LeastRequest, Some(LbConfig::LeastRequestLbConfig(config))) => {
            let at = at.field("least_request_lb_config");
            let bias = config.active_request_bias.as_ref();
            let balancer = least_request(&at, config.choice_count, bias, false)?;
            return Some((balancer, legacy(&at, &config.slow_start_config)?));
        }
        (LbPolicy::LeastRequest, _) => Balancer::least_request(),
        (LbPolicy::Random, _) => Balancer::Random,
        (LbPolicy::RingHash, Some(LbConfig::RingHashLbConfig(config))) => ring(
            &at.field("ring_hash_lb_config"),
            (config.hash_function == 1, config.minimum_ring_size, config.maximum_ring_size),
        )?,
        (LbPolicy::RingHash, _) => Balancer::ring_hash(),
        (LbPolicy::Maglev, Some(LbConfig::MaglevLbConfig(config))) => {
            maglev(&at.field("maglev_lb_config"), config.table_size)?
        }
        (LbPolicy::Maglev, _) => Balancer::maglev(),
        // The cluster provides its own; there is nothing to choose between.
        (LbPolicy::ClusterProvided, _) => Balancer::RoundRobin,
        (LbPolicy::LoadBalancingPolicyConfig, _) => {
            return at.field("load_balancing_policy").refuse("is missing");
        }
    };
    Some((balancer, None))
}

/// The first entry of a type that we know wins (gRFC A52).
pub(super) fn typed(at: &At<'_>, policies: &[pb::load_balancing_policy::Policy]) -> Option<Made> {
    let mut unknown = Vec::new();
    for (i, policy) in policies.iter().enumerate() {
        let extension = policy.typed_extension_config.as_ref();
        let Some(packed) = extension.and_then(|config| config.typed_config.as_ref()) else {
            continue;
        };
        let entry = at.index(i);
        let entry = entry.field("typed_extension_config");
        let at = entry.field("typed_config");
        let name = common::type_of(packed);
        let Some(policy) = name.strip_prefix("envoy.extensions.load_balancing_policies.") else {
            unknown.push(format!("`{name}`"));
            continue;
        };
        match known(policy) {
            Some(translate) => return translate(&at, packed),
            None => unknown.push(format!("`{name}`")),
        }
    }
    at.refuse(format!("no supported load balancing policy among {}", unknown.join(", ")))
}

fn known(policy: &str) -> Option<fn(&At<'_>, &Any) -> Option<Made>> {
    Some(match policy {
        "round_robin.v3.RoundRobin" => typed_round_robin,
        "least_request.v3.LeastRequest" => typed_least_request,
        "random.v3.Random" => typed_random,
        "ring_hash.v3.RingHash" => typed_ring_hash,
        "maglev.v3.Maglev" => typed_maglev,
        "cluster_provided.v3.ClusterProvided" => |_, _| Some(plain(Balancer::RoundRobin)),
        "pick_first.v3.PickFirst" => pick_first,
        "peak_ewma.v3alpha.PeakEwma" => peak_ewma,
        "wrr_locality.v3.WrrLocality" => wrr_locality,
        "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin" => reported,
        "subset.v3.Subset" => typed_subset,
        "override_host.v3.OverrideHost" => override_host,
        _ => return None,
    })
}

fn plain(balancer: Balancer) -> Made {
    (balancer, Balancing::default())
}

fn typed_round_robin(at: &At<'_>, packed: &Any) -> Option<Made> {
    let config: lb::round_robin::v3::RoundRobin = common::unpack(at, packed)?;
    let slow_start = typed_slow_start(at, config.slow_start_config.as_ref())?;
    let (locality, fail_on_panic) = locality(config.locality_lb_config.as_ref());
    Some((
        Balancer::RoundRobin,
        Balancing { locality, fail_on_panic, slow_start, ..Balancing::default() },
    ))
}

fn typed_least_request(at: &At<'_>, packed: &Any) -> Option<Made> {
    use lb::least_request::v3::least_request::SelectionMethod;
    let config: lb::least_request::v3::LeastRequest = common::unpack(at, packed)?;
    let full_scan = config.enable_full_scan == Some(true)
        || config.selection_method() == SelectionMethod::FullScan;
    let bias = config.active_request_bias.as_ref();
    let balancer = least_request(at, config.choice_count, bias, full_scan)?;
    let slow_start = typed_slow_start(at, config.slow_start_config.as_ref())?;
    let (locality, fail_on_panic) = locality(config.locality_lb_config.as_ref());
    Some((balancer, Balancing { locality, fail_on_panic, slow_start, ..Balancing::default() }))
}

fn typed_random(at: &At<'_>, packed: &Any) -> Option<Made> {
    let config: lb::random::v3::Random = common::unpack(at, packed)?;
    let (locality, fail_on_panic) = locality(config.locality_lb_config.as_ref());
    Some((Balancer::Random, Balancing { locality, fail_on_panic, ..Balancing::default() }))
}

fn typed_ring_hash(at: &At<'_>, packed: &Any) -> Option<Made> {
    let config: lb::ring_hash::v3::RingHash = common::unpack(at, packed)?;
    let sizes = (config.hash_function == 2, config.minimum_ring_size, config.maximum_ring_size);
    let hashing = match &config.consistent_hashing_lb_config {
        None => Hashing {
            by_hostname: config.use_hostname_for_hashing,
            bound: bound(at, config.hash_balance_factor)?,
        },
        hashing => typed_hashing(at, hashing.as_ref())?,
    };
    let locality = weighted_or_not(config.locality_weighted_lb_config.is_some());
    Some((ring(at, sizes)?, Balancing { locality, hashing, ..Balancing::default() }))
}

fn typed_maglev(at: &At<'_>, packed: &Any) -> Option<Made> {
    let config: lb::maglev::v3::Maglev = common::unpack(at, packed)?;
    let hashing = typed_hashing(at, config.consistent_hashing_lb_config.as_ref())?;
    let locality = weighted_or_not(config.locality_weighted_lb_config.is_some());
    let balancer = maglev(at, config.table_size)?;
    Some((balancer, Balancing { locality, hashing, ..Balancing::default() }))
}

fn pick_first(at: &At<'_>, packed: &Any) -> Option<Made> {
    let config: lb::pick_first::v3::PickFirst = common::unpack(at, packed)?;
    Some(plain(Balancer::PickFirst { shuffle: config.shuffle_address_list }))
}

fn peak_ewma(at: &At<'_>, packed: &Any) -> Option<Made> {
    let config: lb::peak_ewma::v3alpha::PeakEwma = common::unpack(at, packed)?;
    let decay = at.field("decay_time").duration(config.decay_time);
    let decay = decay.unwrap_or(Duration::from_secs(10));
    at.field("decay_time").expect(!decay.is_zero(), "must be greater than 0")?;
    let default_rtt = at.field("default_rtt").duration(config.default_rtt);
    let default_rtt = default_rtt.unwrap_or(Duration::from_millis(10));
    Some(plain(Balancer::PeakEwma(PeakEwma { decay, default_rtt })))
}

fn wrr_locality(at: &At<'_>, packed: &Any) -> Option<Made> {
    let config: lb::wrr_locality::v3::WrrLocality = common::unpack(at, packed)?;
    let at = at.field("endpoint_picking_policy");
    let child = at.required(config.endpoint_picking_policy.as_ref())?;
    let (balancer, balancing) = typed(&at.field("policies"), &child.policies)?;
    Some((balancer, Balancing { locality: LocalityRouting::Weighted, ..balancing }))
}

fn reported(at: &At<'_>, packed: &Any) -> Option<Made> {
    use lb::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin as Message;
    const SECOND: Duration = Duration::from_secs(1);
    let config: Message = common::unpack(at, packed)?;
    let oob = config.enable_oob_load_report == Some(true);
    at.field("enable_oob_load_report")
        .expect(!oob, "reports apart from answers are not supported")?;
    let penalty = config.error_utilization_penalty.unwrap_or(1.0);
    at.field("error_utilization_penalty").expect(penalty >= 0.0, "must be at least 0")?;
    let slow_start = typed_slow_start(at, config.slow_start_config.as_ref())?;
    let made = Reported {
        blackout: at
            .field("blackout_period")
            .duration(config.blackout_period)
            .unwrap_or(SECOND * 10),
        expiration: at
            .field("weight_expiration_period")
            .duration(config.weight_expiration_period)
            .unwrap_or(SECOND * 180),
        update: at
            .field("weight_update_period")
            .duration(config.weight_update_period)
            .unwrap_or(SECOND)
            .max(Duration::from_millis(100)),
        penalty: penalty.into(),
        metrics: config.metric_names_for_computing_utilization,
    };
    Some((Balancer::Reported(made.into()), Balancing { slow_start, ..Balancing::default() }))
}

fn typed_subset(at: &At<'_>, packed: &Any) -> Option<Made> {
    let config: lb::subset::v3::Subset = common::unpack(at, packed)?;
    let subsets = subsets::typed(at, &config)?;
    let at = at.field("subset_lb_policy");
    let child = at.required(config.subset_lb_policy.as_ref())?;
    let (balancer, balancing) = typed(&at.field("policies"), &child.policies)?;
    at.expect(balancing.subsets.is_none(), "subsets within subsets are not supported")?;
    Some((balancer, Balancing { subsets: Some(subsets.into()), ..balancing }))
}

fn override_host(at: &At<'_>, packed: &Any) -> Option<Made> {
    let config: lb::override_host::v3::OverrideHost = common::unpack(at, packed)?;
    let sources = at.field("override_host_sources");
    sources.expect(!config.override_host_sources.is_empty(), "is empty")?;
    let headers = sources.each(&config.override_host_sources, |at, source| {
        headers::name_of(&at.field("header"), &source.header)
    });
    let at = at.field("fallback_policy");
    let child = at.required(config.fallback_policy.as_ref())?;
    let (balancer, balancing) = typed(&at.field("policies"), &child.policies)?;
    let override_host = OverrideHost { headers, ..OverrideHost::default() };
    Some((balancer, Balancing { override_host, ..balancing }))
}

fn least_request(
    at: &At<'_>,
    choices: Option<u32>,
    bias: Option<&core::RuntimeDouble>,
    full_scan: bool,
) -> Option<Balancer> {
    let choice_count = choices.unwrap_or(2);
    at.field("choice_count").expect(choice_count >= 2, "must be at least 2")?;
    let bias = bias.map_or(1.0, |bias| bias.default_value);
    at.field("active_request_bias").expect(bias >= 0.0, "must be at least 0")?;
    Some(Balancer::LeastRequest { choice_count, active_request_bias: bias, full_scan })
}

fn weighted_or_not(weighted: bool) -> LocalityRouting {
    if weighted { LocalityRouting::Weighted } else { LocalityRouting::default() }
}

/// How localities share, and whether nobody is picked in panic.
fn locality(config: Option<&lb::common::v3::LocalityLbConfig>) -> (LocalityRouting, bool) {
    use lb::common::v3::locality_lb_config::LocalityConfigSpecifier as Spec;
    use lb::common::v3::locality_lb_config::zone_aware_lb_config::LocalityBasis;
    match config.and_then(|config| config.locality_config_specifier.as_ref()) {
        None => (LocalityRouting::default(), false),
        Some(Spec::LocalityWeightedLbConfig(_)) => (LocalityRouting::Weighted, false),
        Some(Spec::ZoneAwareLbConfig(config)) => {
            let zones = ZoneAware {
                routing_enabled: percent(config.routing_enabled.as_ref(), 100.0),
                min_cluster_size: config.min_cluster_size.unwrap_or(6),
                force_direct: config.force_locality_direct_routing,
                force_local: config
                    .force_local_zone
                    .as_ref()
                    .map(|force| force.min_size.unwrap_or(1)),
                by_weight: config.locality_basis() == LocalityBasis::HealthyHostsWeight,
            };
            (LocalityRouting::ZoneAware(zones), config.fail_traffic_on_panic)
        }
    }
}

fn percent(percent: Option<&kinds::Percent>, default: f64) -> f64 {
    percent.map_or(default, |percent| percent.value)
}

fn typed_slow_start(
    at: &At<'_>,
    config: Option<&lb::common::v3::SlowStartConfig>,
) -> Option<Option<SlowStart>> {
    let Some(config) = config else { return Some(None) };
    let rest = (config.aggression.as_ref(), config.min_weight_percent.as_ref());
    slow_start(&at.field("slow_start_config"), config.slow_start_window, rest).map(Some)
}

fn slow_start(
    at: &At<'_>,
    window: Option<prost_types::Duration>,
    (aggression, min_weight): (Option<&core::RuntimeDouble>, Option<&kinds::Percent>),
) -> Option<SlowStart> {
    let at_window = at.field("slow_start_window");
    let window = at_window.duration(at_window.required(window).map(Some)?)?;
    at_window.expect(!window.is_zero(), "must be greater than 0")?;
    // Envoy takes anything that is not positive for 1.
    let aggression = aggression.map_or(1.0, |value| value.default_value);
    let aggression = if aggression > 0.0 { aggression } else { 1.0 };
    let min_weight = percent(min_weight, 10.0);
    at.field("min_weight_percent")
        .expect((0.0..=100.0).contains(&min_weight), "is a percentage: at most 100")?;
    Some(SlowStart { window, aggression, min_weight: min_weight / 100.0 })
}

fn typed_hashing(
    at: &At<'_>,
    config: Option<&lb::common::v3::ConsistentHashingLbConfig>,
) -> Option<Hashing> {
    let Some(config) = config else { return Some(Hashing::default()) };
    let at = at.field("consistent_hashing_lb_config");
    Some(Hashing {
        by_hostname: config.use_hostname_for_hashing,
        bound: bound(&at, config.hash_balance_factor)?,
    })
}

/// 0 means no bound.
fn bound(at: &At<'_>, factor: Option<u32>) -> Option<Option<u32>> {
    let factor = factor.filter(|factor| *factor > 0);
    let fine = factor.is_none_or(|factor| factor >= 100);
    at.field("hash_balance_factor").expect(fine, "must be at least 100, or 0").map(|()| factor)
}

fn ring(at: &At<'_>, sizes: (bool, Option<u64>, Option<u64>)) -> Option<Balancer> {
    let (murmur, minimum, maximum) = sizes;
    let minimum_size = minimum.unwrap_or(MIN_RING);
    let maximum_size = maximum.unwrap_or(MAX_RING);
    let fine = minimum_size <= maximum_size && maximum_size <= MAX_RING;
    at.field("maximum_ring_size").expect(
        fine,
        format!("expected at least the minimum ({minimum_size}) and at most {MAX_RING}"),
    )?;
    let function = if murmur { HashFunction::Murmur2 } else { HashFunction::XxHash };
    Some(Balancer::RingHash { minimum_size, maximum_size, function })
}

fn maglev(at: &At<'_>, size: Option<u64>) -> Option<Balancer> {
    let table_size = size.unwrap_or(TABLE_SIZE);
    let prime = table_size > 1
        && (2..).take_while(|n| n * n <= table_size).all(|n| !table_size.is_multiple_of(n));
    at.field("table_size")
        .expect(prime && table_size <= 5_000_011, "must be a prime of at most 5000011")?;
    Some(Balancer::Maglev { table_size })
}
