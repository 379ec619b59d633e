//! What people write, parsed and validated into plain data.
//!
//! `read` takes one file's text to [`Document`]s, [`assemble`] takes the documents of all files to an
//! [`Intent`]. Both are pure, both name every problem with file, line, column, document, field and what was
//! expected, and a bad document never takes another one with it.
//!
//! Kinds: `Mesh`, `Workload`, `TrafficPolicy`, `AuthorizationPolicy`, `ExternalService`, `Process` of `pillion.io/v1alpha1`; `Namespace`, `Service` and
//! `Secret` (of type `kubernetes.io/tls`) of `v1`; `Gateway`, `HTTPRoute`, `GRPCRoute`, `TLSRoute`,
//! `TCPRoute` and `ReferenceGrant` of `gateway.networking.k8s.io`. Fields that our own kinds do not have are errors. Fields that the
//! others have and we do not know are warnings, and the known part is applied.

mod assemble;
pub(crate) mod attach;
mod authorization;
mod backend;
mod decode;
mod document;
mod duration;
mod external;
mod filter;
mod gateway;
mod grant;
mod grpc_route;
mod health_check;
pub(crate) mod hostname;
mod http_route;
mod l4_route;
mod mesh;
mod meta;
mod namespace;
mod policy;
mod problem;
mod process;
mod rate_limit;
mod references;
mod secret;
mod selection;
mod selector;
mod service;
mod session;
mod workload;
mod yaml;

pub use assemble::{Assembly, Intent, Parsed, Sheet, Sheets, assemble};
pub use authorization::{AccessRule, Action, AuthorizationPolicy, PathRule, Peer};
pub use backend::{Backend, BackendTarget};
pub use document::{Document, FileDocuments, Object, ObjectId, Place, read, read_object};
pub use external::{ExternalPort, ExternalService, Origination};
pub use filter::{Filter, HeaderChange, Mirror, PathChange, Redirect, Rewrite};
pub use gateway::{
    AllowedNamespaces, GATEWAY_CLASS, GATEWAY_LABEL, Gateway, GatewayRef, Listener,
    ListenerProtocol,
};
pub use grant::{GrantFrom, GrantTo, ReferenceGrant};
pub use health_check::{HealthCheck, Probe};
pub(crate) use http_route::targets;
pub use http_route::{
    HttpRoute, Match, ParentRef, PathMatch, RouteKind, RouteRetry, Rule, TextMatch, Timeouts,
    ValueMatch,
};
pub use l4_route::{L4Kind, L4Route};
pub use mesh::{AccessLog, AccessLogFormat, Mesh, Mtls, Outbound, Tail, Tracing};
pub use meta::{Kind, Name};
pub use namespace::Namespace;
pub(crate) use policy::RETRY_ON;
pub use policy::{
    Algorithm, CircuitBreaker, HashOn, LoadBalancer, OutlierDetection, PolicyTimeouts, Retry,
    RetryBudget, Target, TrafficPolicy,
};
pub(crate) use problem::nearest;
pub use problem::{Cause, Problem, Severity};
pub use process::{Health, Limits, Process, Restart};
pub use rate_limit::{LimitBy, RateLimit};
pub use secret::{CertificateSource, PrivateKey, Secret};
pub(crate) use selection::Selection;
pub use selector::{LabelSelector, Operator, Requirement};
pub use service::{AppProtocol, Service, ServicePort, TargetPort};
pub use session::{Session, SessionBy};
pub use workload::{Locality, Workload};

/// The kinds of `pillion.io`, as they stand in `kind:`.
pub fn own_kinds() -> impl Iterator<Item = &'static str> {
    Kind::ALL.into_iter().filter(|kind| kind.is_ours()).map(Kind::as_str)
}

#[cfg(test)]
mod tests;
