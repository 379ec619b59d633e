//! Endpoints (EDS) of one service port.

use std::collections::{BTreeMap, BTreeSet};

use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint,
};

use super::members::{Members, Wire, app_port, captured_port, open_port};
use super::proto::{metadata, socket};
use crate::intent::{Locality, Mtls, ServicePort, Workload};

/// Whose picture of the endpoints it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum View {
    /// An Envoy's: the sidecars of the workloads, and the workloads that have none.
    Envoy,
    /// Our proxy's, which speaks either mTLS or plain text to all endpoints of a cluster: where some have a
    /// sidecar, only those.
    Pillion,
    /// A gRPC client's that speaks mTLS: the sidecars.
    GrpcTls,
    /// Whose clients speak plain text (a gRPC client's, a gateway's without a mesh): the workloads themselves, where
    /// the mesh permits that.
    Plain,
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
        let Some(at) = reach(workload, port, view, mtls) else { continue };
        if at.is_plain && view == View::Pillion && members.wire(port) == Wire::Mixed {
            continue;
        }
        // gRPC refuses an assignment that names an address twice.
        if seen.insert((workload.address, at.port)) {
            let marked = at.is_plain && members.wire(port) == Wire::Mixed;
            let endpoint = endpoint(workload, at.port, marked);
            localities.entry(&workload.locality).or_default().push(endpoint);
        }
    }
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: localities.into_iter().map(|(locality, found)| group(locality, found)).collect(),
        ..ClusterLoadAssignment::default()
    }
}

/// How a workload is reached.
struct Reach {
    port: u16,
    is_plain: bool,
}

fn reach(workload: &Workload, port: &ServicePort, view: View, mtls: Mtls) -> Option<Reach> {
    let sidecar = || {
        if open_port(workload, port).is_some() {
            return None;
        }
        let port = captured_port(workload, port).or(workload.sidecar_port)?;
        Some(Reach { port, is_plain: false })
    };
    let own = || {
        let port = app_port(workload, port).filter(|_| mtls == Mtls::Permissive)?;
        Some(Reach { port, is_plain: true })
    };
    match view {
        View::Envoy | View::Pillion => sidecar().or_else(own),
        View::GrpcTls => sidecar(),
        View::Plain => own(),
    }
}

fn endpoint(workload: &Workload, port: u16, marked: bool) -> LbEndpoint {
    LbEndpoint {
        host_identifier: Some(lb_endpoint::HostIdentifier::Endpoint(Endpoint {
            address: Some(socket(workload.address, port)),
            ..Endpoint::default()
        })),
        // Matched by the cluster's transport_socket_matches; without it mTLS is spoken.
        metadata: marked.then(|| metadata("envoy.transport_socket_match", "wire", "plain")),
        load_balancing_weight: Some(workload.weight.max(1)),
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
