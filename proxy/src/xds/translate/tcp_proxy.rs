//! `TcpProxy`

use std::time::Duration;

use pillion_xds::envoy::extensions::filters::network::tcp_proxy::v3 as pb;

use super::access_log;
use super::at::At;
use crate::model::listener::TcpProxy;

/// `TcpProxy`
pub(super) fn tcp_proxy(at: &At<'_>, config: &pb::TcpProxy) -> Option<TcpProxy> {
    use pb::tcp_proxy::ClusterSpecifier as Spec;
    let clusters = match &config.cluster_specifier {
        Some(Spec::Cluster(name)) => vec![(name.as_str().into(), 1)],
        Some(Spec::WeightedClusters(weighted)) => {
            let at = at.field("weighted_clusters");
            let list = weighted.clusters.iter();
            let clusters: Vec<_> =
                list.map(|entry| (entry.name.as_str().into(), entry.weight)).collect();
            let total: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
            at.expect(total > 0, "the sum of the weights must be greater than 0")?;
            clusters
        }
        None => return at.refuse("expected cluster or weighted_clusters"),
    };
    let options = config.access_log_options.unwrap_or_default();
    let hour = Some(Duration::from_secs(3600));
    Some(TcpProxy {
        stat_prefix: config.stat_prefix.replace(':', "_").as_str().into(),
        clusters,
        idle_timeout: at.field("idle_timeout").limit(config.idle_timeout, hour),
        max_connection_duration: at
            .field("max_downstream_connection_duration")
            .limit(config.max_downstream_connection_duration, None),
        max_connect_attempts: config.max_connect_attempts.unwrap_or(1),
        access_log: access_log::all(&at.field("access_log"), &config.access_log),
        log_moments: access_log::moments(
            &at.field("access_log_options"),
            (options.access_log_flush_interval, config.access_log_flush_interval),
            (options.flush_access_log_on_connected || config.flush_access_log_on_connected, false),
        )?,
    })
}
