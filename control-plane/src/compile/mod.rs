//! What people want and what runs, compiled to xDS for one node. Pure.
//!
//! A [`World`] is everything at one moment: the [`Intent`](crate::intent::Intent) and the registered workloads.
//! [`World::for_node`] gives the resources of one client: a sidecar of ours, an Envoy, or a proxyless gRPC client.
//! What many nodes have in common is compiled once and shared; [`World::update`] takes over what did not change.

mod action;
mod authorization;
mod balancing;
mod capture;
mod clusters;
mod compiled;
mod endpoints;
mod external;
mod fixed;
mod gateway;
mod grpc;
mod health_check;
mod http_manager;
mod listeners;
mod members;
mod node;
mod proto;
mod rate_limit;
mod retry;
mod route_match;
mod routes;
mod session;
mod shape;
mod tls;
mod world;

pub use fixed::bootstrap;
pub use node::{
    Certificates, GatewayProxy, Interception, Node, NodeError, NodeKind, Place, Sidecar,
};
pub(crate) use routes::route_names;
pub use world::World;

#[cfg(test)]
mod tests;
