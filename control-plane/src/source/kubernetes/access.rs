//! What the control plane reads and writes on the Kubernetes API: the list that its roles are made of.
//!
//! Nothing else is asked for, so that `pillion install` can grant exactly this.

/// API group of our own kinds.
pub const OWN_GROUP: &str = "pillion.io";
/// API group of gateways and routes.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// The label, with the value [`IN_MESH`], of namespaces whose services and pods are part of the mesh.
pub const NAMESPACE_LABEL: &str = "pillion.io/inject";
/// Value of [`NAMESPACE_LABEL`] that takes a namespace in.
pub const IN_MESH: &str = "enabled";
/// The Secret, in the control plane's namespace, with the root certificate and its key (`root.pem`, `root.key`), and
/// the join token for workloads off Kubernetes (`join-token`). Made by the first replica.
pub const CA_SECRET: &str = "pillion-ca";
/// The ConfigMap, in each namespace of the mesh, with the root certificate under [`ROOT_KEY`].
pub const ROOT_CONFIG_MAP: &str = "pillion-ca-root";
/// Key of the root certificate (PEM) in [`CA_SECRET`] and [`ROOT_CONFIG_MAP`].
pub const ROOT_KEY: &str = "root.pem";
/// The Lease, in the control plane's namespace, by which replicas agree on who writes.
pub const LEASE: &str = "pillion-leader";
/// The MutatingWebhookConfiguration whose `caBundle` the leader keeps equal to the root.
pub const WEBHOOK: &str = "pillion-injector";
/// Audience of the service-account tokens that sidecars prove themselves with.
pub const TOKEN_AUDIENCE: &str = "pillion";

/// Where a rule holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole cluster: a ClusterRole.
    Cluster,
    /// The control plane's own namespace: a Role.
    Own,
}

/// One rule of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Where it holds.
    pub scope: Scope,
    /// API group; empty is the core group.
    pub group: &'static str,
    /// Resources, by their plural names; `x/status` is a subresource.
    pub resources: &'static [&'static str],
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// Only objects of these names; empty is all of them.
    pub names: &'static [&'static str],
}

const READ: &[&str] = &["get", "list", "watch"];

/// Everything that the control plane does, rule by rule.
pub const ACCESS: &[Access] = &[
    cluster("", &["services", "pods", "namespaces", "nodes"], READ, &[]),
    cluster("discovery.k8s.io", &["endpointslices"], READ, &[]),
    cluster(
        GATEWAY_GROUP,
        &["gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "tcproutes"],
        READ,
        &[],
    ),
    cluster(GATEWAY_GROUP, &["referencegrants"], READ, &[]),
    cluster(GATEWAY_GROUP, &["gatewayclasses/status", "gateways/status"], &["patch"], &[]),
    cluster(
        GATEWAY_GROUP,
        &["httproutes/status", "grpcroutes/status", "tlsroutes/status", "tcproutes/status"],
        &["patch"],
        &[],
    ),
    cluster(
        OWN_GROUP,
        &["meshes", "trafficpolicies", "authorizationpolicies", "externalservices", "workloads"],
        READ,
        &[],
    ),
    cluster(
        OWN_GROUP,
        &[
            "meshes/status",
            "trafficpolicies/status",
            "authorizationpolicies/status",
            "externalservices/status",
            "workloads/status",
        ],
        &["patch"],
        &[],
    ),
    cluster("authentication.k8s.io", &["tokenreviews"], &["create"], &[]),
    // `create` cannot be limited to a name.
    cluster("", &["configmaps"], &["create"], &[]),
    cluster("", &["configmaps"], &["get", "patch"], &[ROOT_CONFIG_MAP]),
    cluster(
        "admissionregistration.k8s.io",
        &["mutatingwebhookconfigurations"],
        &["get", "patch"],
        &[WEBHOOK],
    ),
    own("", &["secrets"], &["create"], &[]),
    own("", &["secrets"], &["get"], &[CA_SECRET]),
    own("coordination.k8s.io", &["leases"], &["create"], &[]),
    own("coordination.k8s.io", &["leases"], &["get", "update"], &[LEASE]),
    // Each replica has a Lease of its own, whose name nobody knows beforehand, for what its proxies refuse.
    own("coordination.k8s.io", &["leases"], &["list", "patch", "delete"], &[]),
];

const fn cluster(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    names: &'static [&'static str],
) -> Access {
    Access { scope: Scope::Cluster, group, resources, verbs, names }
}

const fn own(
    group: &'static str,
    resources: &'static [&'static str],
    verbs: &'static [&'static str],
    names: &'static [&'static str],
) -> Access {
    Access { scope: Scope::Own, group, resources, verbs, names }
}
