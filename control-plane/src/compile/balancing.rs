//! How a cluster chooses an endpoint: `TrafficPolicy.loadBalancer`.

use pillion_xds::any::{Packable, pack};
use pillion_xds::envoy::config::cluster::v3::cluster::LbPolicy;
use pillion_xds::envoy::config::cluster::v3::load_balancing_policy::Policy;
use pillion_xds::envoy::config::cluster::v3::{Cluster, LoadBalancingPolicy};
use pillion_xds::envoy::config::core::v3::TypedExtensionConfig;
use pillion_xds::envoy::config::route::v3::route_action::HashPolicy;
use pillion_xds::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, Header, PolicySpecifier,
};
use pillion_xds::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use pillion_xds::envoy::extensions::load_balancing_policies::maglev::v3::Maglev;
use pillion_xds::envoy::extensions::load_balancing_policies::peak_ewma::v3alpha::PeakEwma;
use pillion_xds::envoy::extensions::load_balancing_policies::random::v3::Random;
use pillion_xds::envoy::extensions::load_balancing_policies::round_robin::v3::RoundRobin;

use super::proto::duration;
use crate::intent::{Algorithm, HashOn};

/// Sets the algorithm for a proxy, which knows them all.
pub(crate) fn for_proxy(cluster: &mut Cluster, algorithm: Option<Algorithm>) {
    let policy = match algorithm.unwrap_or(Algorithm::LeastRequest) {
        Algorithm::RoundRobin => LbPolicy::RoundRobin,
        Algorithm::LeastRequest => LbPolicy::LeastRequest,
        Algorithm::PeakEwma => {
            // Only some builds of Envoy have it; the others take the next best.
            let first = policy("peak_ewma", &PeakEwma::default());
            let last = policy("least_request", &LeastRequest::default());
            let policies = vec![first, last];
            cluster.load_balancing_policy = Some(LoadBalancingPolicy { policies });
            return;
        }
        Algorithm::Random => LbPolicy::Random,
        Algorithm::RingHash => LbPolicy::RingHash,
        Algorithm::Maglev => LbPolicy::Maglev,
    };
    cluster.lb_policy = policy.into();
}

/// Sets the algorithm for a gRPC client. All of them know round robin and ring hash; what only some know stands
/// first in a list that ends with round robin, and each takes the first one that it knows.
pub(crate) fn for_grpc(cluster: &mut Cluster, algorithm: Option<Algorithm>) {
    let first = match algorithm.unwrap_or(Algorithm::RoundRobin) {
        Algorithm::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin.into();
            return;
        }
        Algorithm::RingHash => {
            cluster.lb_policy = LbPolicy::RingHash.into();
            return;
        }
        Algorithm::LeastRequest => policy("least_request", &LeastRequest::default()),
        Algorithm::PeakEwma => policy("peak_ewma", &PeakEwma::default()),
        Algorithm::Random => policy("random", &Random::default()),
        Algorithm::Maglev => policy("maglev", &Maglev::default()),
    };
    let last = policy("round_robin", &RoundRobin::default());
    cluster.load_balancing_policy = Some(LoadBalancingPolicy { policies: vec![first, last] });
}

fn policy<M: Packable>(name: &str, config: &M) -> Policy {
    Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: format!("envoy.load_balancing_policies.{name}"),
            typed_config: Some(pack(config)),
        }),
    }
}

/// What a route makes the hash of.
pub(crate) fn hash_policy(on: &HashOn) -> HashPolicy {
    let specifier = match on {
        HashOn::Header(name) => {
            PolicySpecifier::Header(Header { header_name: name.clone(), ..Header::default() })
        }
        HashOn::Cookie(name, life) => PolicySpecifier::Cookie(Cookie {
            name: name.clone(),
            ttl: life.map(duration),
            path: "/".to_owned(),
            ..Cookie::default()
        }),
        HashOn::SourceIp => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
    };
    HashPolicy { policy_specifier: Some(specifier), ..HashPolicy::default() }
}
