//! A mesh whose control plane reads the Kubernetes API.

mod api_server;
mod feedback;
mod gateways;
mod identity;
mod leader;
mod pod;
mod policies;
mod real;
mod routes;
mod world;
mod written;
