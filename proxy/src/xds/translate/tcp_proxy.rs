//! `TcpProxy`

use std::time::Duration;

use pillion_xds::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use pillion_xds::envoy::r#type::v3::hash_policy::PolicySpecifier;

use super::access_log;
use super::at::At;
use super::route_action::subset;
use crate::model::listener::{TcpCluster, TcpProxy};

/// `TcpProxy`
pub(super) fn tcp_proxy(at: &At<'_>, config: &pb::TcpProxy) -> Option<TcpProxy> {
    let options = config.access_log_options.unwrap_or_default();
    let hour = Some(Duration::from_secs(3600));
    let attempts = config.max_connect_attempts.unwrap_or(1);
    at.field("max_connect_attempts").expect(attempts > 0, "expected at least 1")?;
    let by_source = hashed(&at.field("hash_policy"), config)?;
    Some(TcpProxy {
        stat_prefix: config.stat_prefix.replace(':', "_").as_str().into(),
        clusters: clusters(at, config)?,
        by_sni: None,
        hash_source: by_source,
        idle_timeout: at.field("idle_timeout").limit(config.idle_timeout, hour),
        max_connection_duration: at
            .field("max_downstream_connection_duration")
            .limit(config.max_downstream_connection_duration, None),
        duration_jitter: config
            .max_downstream_connection_duration_jitter_percentage
            .map_or(0.0, |percent| percent.value.clamp(0.0, 100.0)),
        max_connect_attempts: attempts,
        access_log: access_log::all(&at.field("access_log"), &config.access_log),
        log_moments: access_log::moments(
            &at.field("access_log_options"),
            (options.access_log_flush_interval, config.access_log_flush_interval),
            (options.flush_access_log_on_connected || config.flush_access_log_on_connected, false),
        )?,
    })
}

fn clusters(at: &At<'_>, config: &pb::TcpProxy) -> Option<Vec<TcpCluster>> {
    use pb::tcp_proxy::ClusterSpecifier as Spec;
    match &config.cluster_specifier {
        Some(Spec::Cluster(name)) => {
            let subset = subset(config.metadata_match.as_ref(), None);
            Some(vec![TcpCluster { name: name.as_str().into(), weight: 1, subset }])
        }
        Some(Spec::WeightedClusters(weighted)) => {
            let weights_at = at.field("weighted_clusters");
            let at = weights_at.field("clusters");
            at.expect(!weighted.clusters.is_empty(), "expected at least one")?;
            let clusters = at.each(&weighted.clusters, |at, entry| {
                at.field("name").expect(!entry.name.is_empty(), "is empty")?;
                at.field("weight").expect(entry.weight > 0, "expected at least 1")?;
                Some(TcpCluster {
                    name: entry.name.as_str().into(),
                    weight: entry.weight,
                    subset: subset(config.metadata_match.as_ref(), entry.metadata_match.as_ref()),
                })
            });
            (clusters.len() == weighted.clusters.len()).then_some(clusters)
        }
        None => at.refuse("expected cluster or weighted_clusters"),
    }
}

/// Whether connections are hashed by their source.
fn hashed(at: &At<'_>, config: &pb::TcpProxy) -> Option<bool> {
    at.expect(config.hash_policy.len() <= 1, "expected one at most")?;
    let Some(policy) = config.hash_policy.first() else { return Some(false) };
    match policy.policy_specifier {
        Some(PolicySpecifier::SourceIp(_)) => Some(true),
        Some(PolicySpecifier::FilterState(_)) => {
            at.index(0).field("filter_state").refuse("is not supported")
        }
        None => at.index(0).refuse("expected source_ip"),
    }
}
