//! Endpoints (EDS) of one service port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};

use super::members::{Members, Wire, app_port};
use super::proto::{metadata, socket};
use crate::intent::{Locality, Mtls, ServicePort, Workload};

/// Whose picture of the endpoints it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum View {
    /// A sidecar's: the sidecars of the workloads, and the workloads that have none.
    Sidecar,
    /// A gRPC client's that speaks mTLS: the sidecars.
    GrpcTls,
    /// A gRPC client's that speaks plain text: the workloads themselves, where the mesh permits that.
    GrpcPlain,
}

impl View {
    pub(crate) const ALL: [Self; 3] = [Self::Sidecar, Self::GrpcTls, Self::GrpcPlain];
}

/// The assignment of one service port. Workloads that are not ready are left out, as on Kubernetes: a client
/// that gets them as unhealthy may still fall back on them.
pub(crate) fn assignment(
    cluster: &str,
    port: &ServicePort,
    members: &Members,
    (view, mtls): (View, Mtls),
) -> ClusterLoadAssignment {
    let mut seen = BTreeSet::new();
    let mut localities: BTreeMap<&Locality, Vec<LbEndpoint>> = BTreeMap::new();
    for workload in members.workloads.iter().filter(|workload| workload.ready) {
        let Some((address, at)) = reach(workload, port, view, mtls) else { continue };
        // gRPC refuses an assignment that names an address twice.
        if seen.insert((address, at)) {
            let plain = workload.sidecar_port.is_none() && members.wire == Wire::Mixed;
            let endpoint = endpoint(address, at, workload.weight, plain);
            localities.entry(&workload.locality).or_default().push(endpoint);
        }
    }
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: localities.into_iter().map(|(locality, found)| group(locality, found)).collect(),
        ..ClusterLoadAssignment::default()
    }
}

fn reach(workload: &Workload, port: &ServicePort, view: View, mtls: Mtls) -> Option<(IpAddr, u16)> {
    let own = || app_port(workload, port).filter(|_| mtls == Mtls::Permissive);
    let at = match view {
        View::Sidecar => workload.sidecar_port.or_else(own),
        View::GrpcTls => workload.sidecar_port,
        View::GrpcPlain => own(),
    };
    at.map(|at| (workload.address, at))
}

fn endpoint(address: IpAddr, port: u16, weight: u32, plain: bool) -> LbEndpoint {
    LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(socket(address, port)),
            ..Endpoint::default()
        })),
        // Matched by the cluster's transport_socket_matches; without it mTLS is spoken.
        metadata: plain.then(|| metadata("envoy.transport_socket_match", "wire", "plain")),
        load_balancing_weight: Some(weight.max(1)),
        ..LbEndpoint::default()
    }
}

/// gRPC drops a locality without a weight and refuses one without a locality.
fn group(locality: &Locality, endpoints: Vec<LbEndpoint>) -> LocalityLbEndpoints {
    let weights = endpoints.iter().filter_map(|endpoint| endpoint.load_balancing_weight);
    let sum = weights.fold(0, u32::saturating_add);
    LocalityLbEndpoints {
        locality: Some(core::Locality {
            region: locality.region.clone(),
            zone: locality.zone.clone(),
            sub_zone: locality.sub_zone.clone(),
        }),
        lb_endpoints: endpoints,
        load_balancing_weight: Some(sum),
        ..LocalityLbEndpoints::default()
    }
}
