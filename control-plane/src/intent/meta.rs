//! Kinds, names and `metadata`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::decode::{At, Context, Object, any_text, dns_label, dns_name, text};

/// The kinds of object that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// `pillion.io/v1alpha1 Mesh`
    Mesh,
    /// `v1 Namespace`
    Namespace,
    /// `v1 Service`
    Service,
    /// `pillion.io/v1alpha1 Workload`
    Workload,
    /// `v1 Secret`
    Secret,
    /// `gateway.networking.k8s.io/v1 Gateway`
    Gateway,
    /// `gateway.networking.k8s.io/v1 HTTPRoute`
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// `gateway.networking.k8s.io/v1 GRPCRoute`
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
    /// `gateway.networking.k8s.io/v1 TLSRoute`
    #[serde(rename = "TLSRoute")]
    TlsRoute,
    /// `gateway.networking.k8s.io/v1 TCPRoute`
    #[serde(rename = "TCPRoute")]
    TcpRoute,
    /// `gateway.networking.k8s.io/v1beta1 ReferenceGrant`
    ReferenceGrant,
    /// `pillion.io/v1alpha1 TrafficPolicy`
    TrafficPolicy,
    /// `pillion.io/v1alpha1 AuthorizationPolicy`
    AuthorizationPolicy,
    /// `pillion.io/v1alpha1 ExternalService`
    ExternalService,
    /// `pillion.io/v1alpha1 Process`
    Process,
}

impl Kind {
    pub(crate) const ALL: [Self; 15] = [
        Self::Mesh,
        Self::Namespace,
        Self::Service,
        Self::Workload,
        Self::Secret,
        Self::Gateway,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::ReferenceGrant,
        Self::TrafficPolicy,
        Self::AuthorizationPolicy,
        Self::ExternalService,
        Self::Process,
    ];

    /// The name, as it stands in `kind:`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::Namespace => "Namespace",
            Self::Service => "Service",
            Self::Workload => "Workload",
            Self::Secret => "Secret",
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::ExternalService => "ExternalService",
            Self::Process => "Process",
        }
    }

    /// The versions that are read, newest first.
    pub(crate) const fn api_versions(self) -> &'static [&'static str] {
        match self {
            Self::Mesh
            | Self::Workload
            | Self::TrafficPolicy
            | Self::AuthorizationPolicy
            | Self::ExternalService
            | Self::Process => &["pillion.io/v1alpha1"],
            Self::Namespace | Self::Service | Self::Secret => &["v1"],
            Self::Gateway | Self::HttpRoute => {
                &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]
            }
            Self::TlsRoute | Self::TcpRoute => &[
                "gateway.networking.k8s.io/v1",
                "gateway.networking.k8s.io/v1alpha3",
                "gateway.networking.k8s.io/v1alpha2",
            ],
            Self::ReferenceGrant => {
                &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]
            }
            Self::GrpcRoute => {
                &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha2"]
            }
        }
    }

    /// Whether the kind is ours, so that an unknown field can only be a mistake.
    pub(crate) const fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Mesh
                | Self::Workload
                | Self::TrafficPolicy
                | Self::AuthorizationPolicy
                | Self::ExternalService
                | Self::Process
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// The namespace, `default` where none is written.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Name {
    /// A name of its two parts.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// `namespace/name`
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `metadata` of any object, as far as it is used.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) name: Name,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, Annotation>,
    /// `creationTimestamp`, RFC 3339 in UTC, so that text order is time order.
    pub(crate) created: Option<String>,
}

/// An annotation and its place.
#[derive(Debug, Clone)]
pub(crate) struct Annotation {
    pub(crate) value: String,
    pub(crate) place: (u32, u32),
    pub(crate) path: String,
}

impl Meta {
    pub(crate) fn decode(cx: &mut Context, at: &At<'_>, kind: Kind) -> Option<Self> {
        let mut object = Object::open(cx, at)?;
        let namespace = object.optional(cx, "namespace", dns_label);
        // Service names stand in host names as one label.
        let name = match kind {
            Kind::Service => object.required(cx, "name", dns_label),
            _ => object.required(cx, "name", dns_name),
        };
        if let Some(namespace) = &namespace {
            cx.namespace.clone_from(namespace);
        }
        if let Some(name) = &name {
            cx.object = format!("{kind} {}/{name}", cx.namespace);
        }
        let labels = object.map(cx, "labels", any_text);
        let annotations = object.map(cx, "annotations", |cx, at| {
            let value = any_text(cx, at)?;
            Some(Annotation { value, place: (at.node.line, at.node.column), path: at.path.clone() })
        });
        let created = object.optional(cx, "creationTimestamp", text);
        object.ignore(&[
            "uid",
            "resourceVersion",
            "generation",
            "managedFields",
            "ownerReferences",
            "finalizers",
        ]);
        object.ignore(&[
            "generateName",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        ]);
        object.finish(cx);
        Some(Self { name: Name::new(cx.namespace.clone(), name?), labels, annotations, created })
    }
}
