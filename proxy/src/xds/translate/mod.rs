//! Resources to the [`model`](crate::model): pure, one file a subject. Whatever cannot be taken is
//! refused with the path of its field and the reason; all refusals of a resource are reported at
//! once. The control plane runs this very code before it sends anything.

mod access_log;
mod at;
mod authz;
mod balancer;
pub mod bootstrap;
mod cluster;
mod collector;
mod common;
mod detectors;
mod endpoint;
mod filter;
mod headers;
mod health_check;
mod http_manager;
mod listener;
mod listener_filters;
mod local_reply;
mod matcher;
mod network_filter;
mod outlier;
mod overload;
mod proxy_header;
mod retry;
mod route;
mod route_action;
mod route_match;
mod service;
mod source;
mod stats;
mod subsets;
mod tcp_proxy;
mod tls;
mod tracing;
mod upstream_http;

use std::sync::Arc;

pub use at::Refused;
use at::{At, Sink};
use pillion_xds::any::Packable;
use pillion_xds::support;
use prost_types::Any;

use super::kind::Kind;
use crate::model::extension as extensions;
use crate::model::{Name, cluster as clusters, endpoint as endpoints, listener as listeners};
use crate::model::{route as routes, tls as secrets};

/// A resource, compiled.
#[derive(Clone, Debug)]
pub enum Resource {
    /// LDS
    Listener(Arc<listeners::Listener>),
    /// RDS
    Routes(Arc<routes::RouteTable>),
    /// CDS, with the endpoints that it carries itself (none: they come by EDS).
    Cluster(Arc<clusters::Cluster>, Option<Arc<endpoints::Assignment>>),
    /// EDS
    Endpoints(Name, Arc<endpoints::Assignment>),
    /// SDS
    Secret(Arc<secrets::Secret>),
    /// ECDS
    Extension(Arc<extensions::Extension>),
}

/// Compile a resource from its bytes. The name comes back even if the resource is refused, as far
/// as it could be read.
///
/// # Errors
/// Everything in it that is wrong or not supported.
pub fn resource(kind: Kind, bytes: &[u8]) -> (Option<String>, Result<Resource, Vec<Refused>>) {
    use pillion_xds::envoy::config as pb;
    let any = Any { type_url: kind.type_url().to_owned(), value: bytes.to_vec() };
    match kind {
        Kind::Listener => read(
            &any,
            |m: &pb::listener::v3::Listener| &m.name,
            |at, message| {
                listener::listener(at, message).map(|made| Resource::Listener(Arc::new(made)))
            },
        ),
        Kind::Routes => read(
            &any,
            |m: &pb::route::v3::RouteConfiguration| &m.name,
            |at, message| route::table(at, message).map(|made| Resource::Routes(Arc::new(made))),
        ),
        Kind::Cluster => read(&any, |m: &pb::cluster::v3::Cluster| &m.name, cluster::cluster),
        Kind::Endpoints => read(
            &any,
            |m: &pb::endpoint::v3::ClusterLoadAssignment| &m.cluster_name,
            |at, message| {
                let made = endpoint::assignment(at, message, endpoint::Names::Refuse)?;
                Some(Resource::Endpoints(message.cluster_name.as_str().into(), Arc::new(made)))
            },
        ),
        Kind::Secret => read(
            &any,
            |m: &pillion_xds::envoy::extensions::transport_sockets::tls::v3::Secret| &m.name,
            |at, message| tls::secret(at, message).map(|made| Resource::Secret(Arc::new(made))),
        ),
        Kind::Extension => read(
            &any,
            |m: &pb::core::v3::TypedExtensionConfig| &m.name,
            |at, message| {
                filter::extension(at, message).map(|made| Resource::Extension(Arc::new(made)))
            },
        ),
    }
}

/// Fields of a resource that our messages do not know: shown as warnings, not refused.
pub fn unknown_fields(kind: Kind, bytes: &[u8]) -> Vec<String> {
    support::unknown_fields(kind.type_url(), bytes)
}

/// Compile a message that was read already (a static resource of the bootstrap).
pub(crate) fn message<M: Packable, T>(
    message: &M,
    translate: impl FnOnce(&At<'_>, &M) -> Option<T>,
) -> Result<T, Vec<Refused>> {
    let sink = Sink::default();
    for finding in support::check_any(&message.pack()) {
        if finding.refuses() && !finding.optional {
            let reason = describe(&finding.kind);
            sink.borrow_mut().push(Refused { field: finding.path, reason });
        }
    }
    let made = translate(&At::root(&sink), message);
    let refused = sink.into_inner();
    match made {
        Some(made) if refused.is_empty() => Ok(made),
        _ if refused.is_empty() => {
            Err(vec![Refused { field: String::new(), reason: "cannot be used".into() }])
        }
        _ => Err(refused),
    }
}

fn read<M: Packable>(
    any: &Any,
    name: impl FnOnce(&M) -> &String,
    translate: impl FnOnce(&At<'_>, &M) -> Option<Resource>,
) -> (Option<String>, Result<Resource, Vec<Refused>>) {
    let read = match M::unpack(any) {
        Ok(read) => read,
        Err(error) => {
            let reason = format!("cannot be decoded: {error}");
            return (None, Err(vec![Refused { field: String::new(), reason }]));
        }
    };
    let name = name(&read).clone();
    (Some(name), message(&read, translate))
}

fn describe(kind: &support::FindingKind) -> String {
    use support::FindingKind as Kind;
    match kind {
        Kind::RefusedField => "is not supported".to_owned(),
        Kind::RefusedExtension { type_url } => format!("`{type_url}` is not supported"),
        Kind::UnknownExtension { type_url } => format!("`{type_url}` is not known"),
        Kind::MalformedExtension { type_url } => format!("`{type_url}` cannot be decoded"),
        Kind::UnknownField { number } => format!("field {number} is not known"),
    }
}
