//! Which objects are read, and what is kept of them.

use std::collections::BTreeMap;

use kube::api::{ApiResource, DynamicObject};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{GATEWAY_GROUP, OWN_GROUP};
use crate::intent::{Kind, Name};

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// `Namespace`
    Namespaces,
    /// `Node`
    Nodes,
    /// `Pod`
    Pods,
    /// `EndpointSlice`
    EndpointSlices,
    /// `Service`
    Services,
    /// `GatewayClass`
    GatewayClasses,
    /// `Gateway`
    Gateways,
    /// `HTTPRoute`
    HttpRoutes,
    /// `GRPCRoute`
    GrpcRoutes,
    /// `TLSRoute`
    TlsRoutes,
    /// `TCPRoute`
    TcpRoutes,
    /// `ReferenceGrant`
    ReferenceGrants,
    /// `Mesh`
    Meshes,
    /// `TrafficPolicy`
    TrafficPolicies,
    /// `AuthorizationPolicy`
    AuthorizationPolicies,
    /// `ExternalService`
    ExternalServices,
    /// `Workload`
    Workloads,
}

impl Resource {
    pub(super) const ALL: [Self; 17] = [
        Self::Namespaces,
        Self::Nodes,
        Self::Pods,
        Self::EndpointSlices,
        Self::Services,
        Self::GatewayClasses,
        Self::Gateways,
        Self::HttpRoutes,
        Self::GrpcRoutes,
        Self::TlsRoutes,
        Self::TcpRoutes,
        Self::ReferenceGrants,
        Self::Meshes,
        Self::TrafficPolicies,
        Self::AuthorizationPolicies,
        Self::ExternalServices,
        Self::Workloads,
    ];

    /// Group, version, kind and plural name.
    pub(super) fn api(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::Namespaces => ("", "v1", "Namespace", "namespaces"),
            Self::Nodes => ("", "v1", "Node", "nodes"),
            Self::Pods => ("", "v1", "Pod", "pods"),
            Self::EndpointSlices => ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
            Self::Services => ("", "v1", "Service", "services"),
            Self::GatewayClasses => (GATEWAY_GROUP, "v1", "GatewayClass", "gatewayclasses"),
            Self::Gateways => (GATEWAY_GROUP, "v1", "Gateway", "gateways"),
            Self::HttpRoutes => (GATEWAY_GROUP, "v1", "HTTPRoute", "httproutes"),
            Self::GrpcRoutes => (GATEWAY_GROUP, "v1", "GRPCRoute", "grpcroutes"),
            Self::TlsRoutes => (GATEWAY_GROUP, "v1", "TLSRoute", "tlsroutes"),
            Self::TcpRoutes => (GATEWAY_GROUP, "v1", "TCPRoute", "tcproutes"),
            Self::ReferenceGrants => (GATEWAY_GROUP, "v1", "ReferenceGrant", "referencegrants"),
            Self::Meshes => (OWN_GROUP, "v1alpha1", "Mesh", "meshes"),
            Self::TrafficPolicies => (OWN_GROUP, "v1alpha1", "TrafficPolicy", "trafficpolicies"),
            Self::AuthorizationPolicies => {
                (OWN_GROUP, "v1alpha1", "AuthorizationPolicy", "authorizationpolicies")
            }
            Self::ExternalServices => {
                (OWN_GROUP, "v1alpha1", "ExternalService", "externalservices")
            }
            Self::Workloads => (OWN_GROUP, "v1alpha1", "Workload", "workloads"),
        };
        api_resource(group, version, kind, plural)
    }

    /// The same in every version that is read, the best first: which of them a cluster has depends on the Gateway API
    /// that was installed there.
    pub(super) fn versions(self) -> Vec<ApiResource> {
        let versions: &[&str] = match self {
            Self::TlsRoutes => &["v1", "v1alpha3", "v1alpha2"],
            Self::TcpRoutes => &["v1", "v1alpha2"],
            Self::ReferenceGrants => &["v1", "v1beta1"],
            _ => return vec![self.api()],
        };
        let api = self.api();
        versions
            .iter()
            .map(|version| api_resource(&api.group, version, &api.kind, &api.plural))
            .collect()
    }

    /// Whether it routes something.
    pub(super) fn is_route(self) -> bool {
        matches!(self, Self::HttpRoutes | Self::GrpcRoutes | Self::TlsRoutes | Self::TcpRoutes)
    }

    /// Whether what it says of its state is ours to say.
    pub(super) fn has_status(self) -> bool {
        !matches!(
            self,
            Self::Namespaces
                | Self::Nodes
                | Self::Pods
                | Self::EndpointSlices
                | Self::Services
                | Self::ReferenceGrants
        )
    }

    /// The kind of intent that its objects are.
    pub(super) fn intent(self) -> Option<Kind> {
        Some(match self {
            Self::Nodes | Self::Pods | Self::EndpointSlices | Self::GatewayClasses => return None,
            Self::Namespaces => Kind::Namespace,
            Self::Services => Kind::Service,
            Self::Gateways => Kind::Gateway,
            Self::HttpRoutes => Kind::HttpRoute,
            Self::GrpcRoutes => Kind::GrpcRoute,
            Self::TlsRoutes => Kind::TlsRoute,
            Self::TcpRoutes => Kind::TcpRoute,
            Self::ReferenceGrants => Kind::ReferenceGrant,
            Self::Meshes => Kind::Mesh,
            Self::TrafficPolicies => Kind::TrafficPolicy,
            Self::AuthorizationPolicies => Kind::AuthorizationPolicy,
            Self::ExternalServices => Kind::ExternalService,
            Self::Workloads => Kind::Workload,
        })
    }

    /// Whether a cluster may not have it, because it is defined by a CRD that somebody installs, or whether the mesh
    /// works without.
    pub(super) fn may_be_missing(self) -> bool {
        !matches!(self, Self::Namespaces | Self::Pods | Self::EndpointSlices | Self::Services)
    }

    /// Whether the mesh works without being allowed to read it.
    ///
    /// Roles may be those of an older version, which did not read all that this one reads.
    pub(super) fn may_be_forbidden(self) -> bool {
        matches!(
            self,
            Self::Nodes
                | Self::GatewayClasses
                | Self::Gateways
                | Self::TlsRoutes
                | Self::TcpRoutes
                | Self::ReferenceGrants
        )
    }
}

/// An API resource by its names.
pub(super) fn api_resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// An object whose status is ours to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// What it is.
    pub resource: Resource,
    /// `apiVersion` that it was read in.
    pub api_version: String,
    /// Namespace and name. Of an object without a namespace, only the name counts.
    pub name: Name,
    /// Whether it has a namespace.
    pub namespaced: bool,
    /// As problems name it: `httproutes/default/catalog`.
    pub place: String,
    /// The version that was read.
    pub resource_version: String,
    /// `metadata.generation` of that version.
    pub generation: i64,
    /// Whether that version could not be used.
    pub rejected: bool,
    /// `spec.parentRefs` as written; of routes only.
    pub parents: Vec<Value>,
    /// `spec.listeners[].name`; of gateways only.
    pub listeners: Vec<String>,
    /// Where it can be reached (`GatewayStatusAddress`); of gateways only.
    pub addresses: Vec<Value>,
    /// `status` as it was then.
    pub status: Value,
}

/// Name of an object; one without a namespace stands in `default`, as in files.
pub(super) fn name_of(object: &DynamicObject) -> Name {
    let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
    Name::new(namespace, object.metadata.name.as_deref().unwrap_or_default())
}

/// The object as people would write it: without what the API server notes down for itself.
pub(super) fn document(object: &DynamicObject, api: &ApiResource) -> Value {
    let metadata = &object.metadata;
    let mut meta = json!({"name": metadata.name});
    if let Some(namespace) = &metadata.namespace {
        meta["namespace"] = namespace.as_str().into();
    }
    for (field, map) in [("labels", &metadata.labels), ("annotations", &metadata.annotations)] {
        // What kubectl keeps for itself can be long.
        let kept = map.iter().flatten().filter(|(key, _)| !key.starts_with("kubectl."));
        let kept: BTreeMap<_, _> = kept.collect();
        if !kept.is_empty() {
            meta[field] = json!(kept);
        }
    }
    if let Some(created) = &metadata.creation_timestamp {
        meta["creationTimestamp"] = json!(created);
    }
    let mut document = object.data.clone();
    if let Some(fields) = document.as_object_mut() {
        fields.remove("status");
    } else {
        document = json!({});
    }
    document["apiVersion"] = api_version(object, api).into();
    document["kind"] = api.kind.as_str().into();
    document["metadata"] = meta;
    document
}

/// The version that an object was read in.
pub(super) fn api_version(object: &DynamicObject, api: &ApiResource) -> String {
    object.types.as_ref().map_or_else(|| api.api_version.clone(), |types| types.api_version.clone())
}

/// `EndpointSlice`, as far as it is used.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Slice {
    /// From the label `kubernetes.io/service-name`.
    #[serde(skip)]
    pub(super) service: Option<String>,
    pub(super) address_type: String,
    pub(super) ports: Option<Vec<SlicePort>>,
    pub(super) endpoints: Option<Vec<Endpoint>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct SlicePort {
    pub(super) name: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) protocol: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Endpoint {
    pub(super) addresses: Vec<String>,
    pub(super) conditions: Option<Conditions>,
    pub(super) target_ref: Option<TargetRef>,
    pub(super) zone: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct TargetRef {
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
}

impl Slice {
    pub(super) fn read(object: DynamicObject) -> Result<Self, serde_json::Error> {
        let labels = object.metadata.labels.unwrap_or_default();
        let service = labels.get("kubernetes.io/service-name").cloned();
        let slice: Self = serde_json::from_value(object.data)?;
        Ok(Self { service, ..slice })
    }
}
