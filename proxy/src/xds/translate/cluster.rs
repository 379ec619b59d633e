//! `Cluster`

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pillion_xds::envoy::config::cluster::v3 as pb;
use pillion_xds::envoy::config::core::v3::{self as core, RoutingPriority};
use pillion_xds::envoy::extensions::clusters::aggregate::v3 as aggregate;
use pillion_xds::envoy::extensions::clusters::dynamic_forward_proxy::v3 as dynamic;
use pillion_xds::envoy::extensions::clusters::{common::dns::v3 as dns_common, dns::v3 as dns};
use prost_types::Any;

use super::at::At;
use super::upstream_http::Names;
use super::{
    Resource, balancer, common, endpoint, health_check, outlier, proxy_header, source, tls,
    upstream_http,
};
use crate::model::cluster::{
    Bind, Cluster, Discovery, Dns, DnsFamily, Forward, Protocol, RetryBudget, SocketMatch,
    TcpKeepalive, Thresholds,
};
use crate::model::endpoint::Assignment;
use crate::model::source::Reference;

/// Envoy's default for `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Envoy's default for `dns_refresh_rate`.
const DNS_REFRESH: Duration = Duration::from_secs(5);

/// Envoy's default for `cleanup_interval`.
const CLEANUP: Duration = Duration::from_secs(5);

/// `Cluster`, with the endpoints that it carries itself.
pub(super) fn cluster(at: &At<'_>, config: &pb::Cluster) -> Option<Resource> {
    at.field("name").expect(!config.name.is_empty(), "is empty")?;
    let discovery = discovery(at, config)?;
    let assignment = assignment(at, config, &discovery)?;
    let upstream = upstream_http::options(at, config)?;
    let stat_name = if config.alt_stat_name.is_empty() {
        config.name.replace(':', "_")
    } else {
        config.alt_stat_name.replace(':', "_")
    };
    let lb = config.common_lb_config.as_ref();
    let (balancer, balancing) = balancer::balancer(at, config)?;
    let panic = lb.and_then(|lb| lb.healthy_panic_threshold.as_ref());
    let (proxy_header, tls) = match &config.transport_socket {
        Some(socket) => proxy_header::upstream(&at.field("transport_socket"), socket)?,
        None => (None, None),
    };
    let http2 = upstream.protocol != Protocol::Http1;
    let made = Cluster {
        name: config.name.as_str().into(),
        stat_name: stat_name.into(),
        discovery,
        connect_timeout: at
            .field("connect_timeout")
            .duration(config.connect_timeout)
            .unwrap_or(CONNECT_TIMEOUT),
        balancer,
        panic_threshold: panic.map_or(50, |percent| percent.value.clamp(0.0, 100.0) as u32),
        close_on_health_failure: config.close_connections_on_host_health_failure,
        fail_on_panic: balancing.fail_on_panic,
        balancing,
        close_on_set_change: lb.is_some_and(|lb| lb.close_connections_on_host_set_change),
        health_check: health_check::one(&at.field("health_checks"), &config.health_checks, http2)?
            .map(Arc::new),
        ignore_unchecked: lb.is_some_and(|lb| lb.ignore_new_hosts_until_first_hc),
        remove_healthy: config.ignore_health_on_host_removal,
        wait_for_warm: config.wait_for_warm_on_init.unwrap_or(true),
        cleanup_interval: at
            .field("cleanup_interval")
            .duration(config.cleanup_interval)
            .unwrap_or(CLEANUP),
        breakers: breakers(at, config)?,
        outliers: match &config.outlier_detection {
            Some(outliers) => Some(outlier::detection(&at.field("outlier_detection"), outliers)?),
            None => None,
        },
        proxy_header,
        bind: bind(&at.field("upstream_bind_config"), config.upstream_bind_config.as_ref())?,
        tls: tls.map(|tls| upstream.names.put_into(tls)),
        socket_matches: socket_matches(at, config, &upstream.names),
        sni_header: upstream.names.header,
        protocol: upstream.protocol,
        idle_timeout: upstream.idle_timeout,
        max_connection_duration: upstream.max_connection_duration,
        max_requests_per_connection: upstream.max_requests_per_connection,
        http2: upstream.http2,
        buffer_limit: config.per_connection_buffer_limit_bytes.unwrap_or(1 << 20),
        tcp_keepalive: keepalive(config),
    };
    Some(Resource::Cluster(Arc::new(made), assignment.map(Arc::new)))
}

/// `BindConfig`
fn bind(at: &At<'_>, config: Option<&core::BindConfig>) -> Option<Bind> {
    let Some(config) = config else { return Some(Bind::default()) };
    let one = |at: &At<'_>, socket: &core::SocketAddress| {
        let Ok(ip) = socket.address.parse::<IpAddr>() else {
            let text = &socket.address;
            return at.field("address").refuse(format!("`{text}` is no IP address"));
        };
        Some(SocketAddr::new(ip, common::port(at, socket)?))
    };
    let mut addresses = Vec::new();
    if let Some(main) = &config.source_address {
        addresses.push(one(&at.field("source_address"), main)?);
    }
    let more = &config.additional_source_addresses;
    addresses.extend(at.field("additional_source_addresses").each(more, one));
    let more = &config.extra_source_addresses;
    addresses.extend(at.field("extra_source_addresses").each(more, |at, extra| {
        let own = extra.socket_options.is_none();
        at.field("socket_options").expect(own, "is not supported")?;
        let at = at.field("address");
        one(&at, at.required(extra.address.as_ref())?)
    }));
    Some(Bind { addresses, freebind: config.freebind == Some(true) })
}

fn discovery(at: &At<'_>, config: &pb::Cluster) -> Option<Discovery> {
    use pb::cluster::{ClusterDiscoveryType as Spec, DiscoveryType as Type};
    let kind = match &config.cluster_discovery_type {
        None => Type::Static,
        Some(Spec::Type(kind)) => match Type::try_from(*kind) {
            Ok(kind) => kind,
            Err(_) => return at.field("type").refuse(format!("{kind} is no discovery type")),
        },
        Some(Spec::ClusterType(custom)) => {
            return custom_type(&at.field("cluster_type").field("typed_config"), custom);
        }
    };
    let dns = || {
        Some(Dns {
            refresh_rate: at
                .field("dns_refresh_rate")
                .duration(config.dns_refresh_rate)
                .unwrap_or(DNS_REFRESH),
            respect_ttl: config.respect_dns_ttl,
            failure_rate: match &config.dns_failure_refresh_rate {
                Some(rate) => Some(failure_rate(
                    &at.field("dns_failure_refresh_rate"),
                    (rate.base_interval, rate.max_interval),
                )?),
                None => None,
            },
            jitter: at.field("dns_jitter").duration(config.dns_jitter).unwrap_or_default(),
            family: family(config.dns_lookup_family()),
        })
    };
    match kind {
        Type::Static => Some(Discovery::Static),
        Type::StrictDns => dns().map(Discovery::StrictDns),
        Type::LogicalDns => dns().map(Discovery::LogicalDns),
        Type::OriginalDst => Some(Discovery::OriginalDst),
        Type::Eds => eds(at, config).map(Discovery::Eds),
    }
}

/// `RefreshRate`: base, and maximum, which is ten times as much where it is not said.
fn failure_rate(
    at: &At<'_>,
    (base, max): (Option<prost_types::Duration>, Option<prost_types::Duration>),
) -> Option<(Duration, Duration)> {
    let base_at = at.field("base_interval");
    let base = base_at.duration(base_at.required(base)?.into())?;
    base_at.expect(base >= Duration::from_millis(1), "must be at least 1 ms")?;
    let max = at.field("max_interval").limit(max, Some(base.saturating_mul(10)))?;
    at.field("max_interval").expect(max >= base, "must not be less than base_interval")?;
    Some((base, max))
}

fn eds(at: &At<'_>, config: &pb::Cluster) -> Option<Reference> {
    let at = at.field("eds_cluster_config");
    let eds = at.required(config.eds_cluster_config.as_ref())?;
    let name = if eds.service_name.is_empty() { &config.name } else { &eds.service_name };
    source::reference(&at.field("eds_config"), name, eds.eds_config.as_ref())
}

fn family(family: pb::cluster::DnsLookupFamily) -> DnsFamily {
    use pb::cluster::DnsLookupFamily as Family;
    match family {
        Family::Auto => DnsFamily::Auto,
        Family::V4Only => DnsFamily::V4Only,
        Family::V6Only => DnsFamily::V6Only,
        Family::V4Preferred => DnsFamily::V4Preferred,
        Family::All => DnsFamily::All,
    }
}

fn custom_type(at: &At<'_>, custom: &pb::cluster::CustomClusterType) -> Option<Discovery> {
    let packed = at.required(custom.typed_config.as_ref())?;
    match common::type_of(packed) {
        "envoy.extensions.clusters.dns.v3.DnsCluster" => dns_cluster(at, packed),
        "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig" => forward(at, packed),
        "envoy.extensions.clusters.aggregate.v3.ClusterConfig" => {
            let config: aggregate::ClusterConfig = common::unpack(at, packed)?;
            let at = at.field("clusters");
            at.expect(!config.clusters.is_empty(), "is empty")?;
            let names = config.clusters.iter().map(|name| name.as_str().into());
            Some(Discovery::Aggregate(names.collect()))
        }
        other => at.refuse(format!("`{other}` is not supported")),
    }
}

/// `envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig`
fn forward(at: &At<'_>, packed: &Any) -> Option<Discovery> {
    use dynamic::cluster_config::ClusterImplementationSpecifier::DnsCacheConfig as Cache;
    let config: dynamic::ClusterConfig = common::unpack(at, packed)?;
    let at = at.field("dns_cache_config");
    let Some(Cache(cache)) = config.cluster_implementation_specifier else {
        return at.refuse("is missing");
    };
    let rate = at.field("dns_refresh_rate").duration(cache.dns_refresh_rate);
    Some(Discovery::Forward(Forward {
        family: family(cache.dns_lookup_family()),
        refresh_rate: rate.unwrap_or(Duration::from_secs(60)),
        max_hosts: cache.max_hosts.unwrap_or(1024) as usize,
    }))
}

/// `envoy.extensions.clusters.dns.v3.DnsCluster`, the newer form of the two DNS types.
fn dns_cluster(at: &At<'_>, packed: &Any) -> Option<Discovery> {
    use dns_common::DnsLookupFamily as Family;
    let config: dns::DnsCluster = common::unpack(at, packed)?;
    let rate = at.field("dns_refresh_rate").duration(config.dns_refresh_rate);
    let dns = Dns {
        refresh_rate: rate.unwrap_or(DNS_REFRESH),
        respect_ttl: config.respect_dns_ttl,
        failure_rate: match &config.dns_failure_refresh_rate {
            Some(rate) => Some(failure_rate(
                &at.field("dns_failure_refresh_rate"),
                (rate.base_interval, rate.max_interval),
            )?),
            None => None,
        },
        jitter: at.field("dns_jitter").duration(config.dns_jitter).unwrap_or_default(),
        family: match config.dns_lookup_family() {
            Family::Unspecified | Family::Auto => DnsFamily::Auto,
            Family::V4Only => DnsFamily::V4Only,
            Family::V6Only => DnsFamily::V6Only,
            Family::V4Preferred => DnsFamily::V4Preferred,
            Family::All => DnsFamily::All,
        },
    };
    Some(if config.all_addresses_in_single_endpoint {
        Discovery::LogicalDns(dns)
    } else {
        Discovery::StrictDns(dns)
    })
}

fn assignment(
    at: &At<'_>,
    config: &pb::Cluster,
    discovery: &Discovery,
) -> Option<Option<Assignment>> {
    let names = match discovery {
        Discovery::Static => endpoint::Names::Refuse,
        Discovery::StrictDns(_) | Discovery::LogicalDns(_) => endpoint::Names::Keep,
        Discovery::Eds(_)
        | Discovery::OriginalDst
        | Discovery::Forward(_)
        | Discovery::Aggregate(_) => {
            let fine = config.load_assignment.is_none();
            at.field("load_assignment")
                .expect(fine, "a cluster of this type does not carry its own endpoints")?;
            return Some(None);
        }
    };
    let at = at.field("load_assignment");
    let Some(load) = &config.load_assignment else { return Some(Some(Assignment::default())) };
    let made = endpoint::assignment(&at, load, names)?;
    let count: usize = made.localities.iter().map(|one| one.endpoints.len()).sum();
    let one = !matches!(discovery, Discovery::LogicalDns(_)) || count == 1;
    at.expect(one, format!("a LOGICAL_DNS cluster has exactly one endpoint, found {count}"))?;
    Some(Some(made))
}

fn socket_matches(at: &At<'_>, config: &pb::Cluster, names: &Names) -> Vec<SocketMatch> {
    at.field("transport_socket_matches").each(&config.transport_socket_matches, |at, one| {
        let socket_at = at.field("transport_socket");
        let tls = match &one.transport_socket {
            Some(socket) => tls::upstream(&socket_at, socket)?,
            None => return socket_at.refuse("is missing"),
        };
        let fields = one.r#match.as_ref().map(common::fields).unwrap_or_default();
        let tls = tls.map(|tls| names.put_into(tls));
        Some(SocketMatch { name: one.name.as_str().into(), fields, tls })
    })
}

fn breakers(at: &At<'_>, config: &pb::Cluster) -> Option<[Thresholds; 2]> {
    let mut all = [Thresholds::default(), Thresholds::default()];
    let Some(breakers) = &config.circuit_breakers else { return Some(all) };
    for entry in &breakers.thresholds {
        let slot = match entry.priority() {
            RoutingPriority::Default => 0,
            RoutingPriority::High => 1,
        };
        let defaults = Thresholds::default();
        all[slot] = Thresholds {
            max_connections: entry.max_connections.unwrap_or(defaults.max_connections),
            max_pending_requests: entry
                .max_pending_requests
                .unwrap_or(defaults.max_pending_requests),
            max_requests: entry.max_requests.unwrap_or(defaults.max_requests),
            max_retries: entry.max_retries.unwrap_or(defaults.max_retries),
            retry_budget: entry.retry_budget.as_ref().map(|budget| RetryBudget {
                percent: budget.budget_percent.as_ref().map_or(20.0, |percent| percent.value),
                min_concurrency: budget.min_retry_concurrency.unwrap_or(3),
            }),
            track_remaining: entry.track_remaining,
            per_host_max_connections: None,
        };
    }
    let at = at.field("circuit_breakers");
    let at = at.field("per_host_thresholds");
    for (i, entry) in breakers.per_host_thresholds.iter().enumerate() {
        let others = entry.max_pending_requests.is_some()
            || entry.max_requests.is_some()
            || entry.max_retries.is_some()
            || entry.max_connection_pools.is_some()
            || entry.retry_budget.is_some();
        at.index(i).expect(!others, "only max_connections can be limited by endpoint")?;
        let slot = usize::from(entry.priority() == RoutingPriority::High);
        if let Some(level) = all.get_mut(slot) {
            level.per_host_max_connections = entry.max_connections;
        }
    }
    Some(all)
}

fn keepalive(config: &pb::Cluster) -> Option<TcpKeepalive> {
    let options = config.upstream_connection_options.as_ref()?.tcp_keepalive.as_ref()?;
    let seconds = |value: Option<u32>| value.map(|value| Duration::from_secs(value.into()));
    Some(TcpKeepalive {
        probes: options.keepalive_probes,
        time: seconds(options.keepalive_time),
        interval: seconds(options.keepalive_interval),
    })
}
