//! `Service` (core/v1), as far as a mesh needs it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::decode::{At, Context, Object, any_text, dns_label, port, text};
use super::document::{Reference, Referent};
use super::meta::{Meta, Name};
use super::problem::Severity;
use super::workload::Workload;
use super::yaml::Value;

/// `v1 Service`.
///
/// Annotations of ours: `pillion.io/depends-on: "catalog,cart.shop"` says which services the workloads of this
/// one call, so that their sidecars get no others; `pillion.io/service-accounts: "catalog,catalog-canary"` says
/// which service accounts may serve it (else: those of its workloads).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: Name,
    /// Labels that a workload must have to be one of its endpoints. Empty selects none by label; workloads that
    /// register for the service by name belong to it in any case.
    pub selector: BTreeMap<String, String>,
    /// Ports, in the order they are written, TCP only.
    pub ports: Vec<ServicePort>,
    /// Its own addresses (`clusterIP`, `clusterIPs`), by which captured connections to it are recognised. Empty:
    /// none is written, or it is headless (`None`).
    pub addresses: Vec<IpAddr>,
    /// Services that its workloads call; `None` is all of them.
    pub depends_on: Option<Vec<Name>>,
    /// Service accounts that may serve it; `None` is those of its workloads.
    pub service_accounts: Option<BTreeSet<String>>,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, which routes may use as `sectionName`.
    pub name: Option<String>,
    /// Port that clients name.
    pub port: u16,
    /// Port of the workload.
    pub target: TargetPort,
    /// What is spoken.
    pub protocol: AppProtocol,
}

/// Port of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of one of the workload's ports.
    Name(String),
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AppProtocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC.
    Grpc,
    /// Bytes.
    Tcp,
}

impl AppProtocol {
    /// Whether requests are routed, or bytes are copied.
    #[must_use]
    pub const fn is_http(self) -> bool {
        !matches!(self, Self::Tcp)
    }

    /// Whether the workload speaks HTTP/2 only.
    #[must_use]
    pub const fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }

    /// `appProtocol` and the prefix of a port's name that Istio's users know (`grpc`, `grpc-web`, `http2-x`).
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "http" | "kubernetes.io/ws" => Some(Self::Http),
            "http2" | "h2c" | "kubernetes.io/h2c" => Some(Self::Http2),
            "grpc" => Some(Self::Grpc),
            "tcp" | "tls" | "https" | "mongo" | "mysql" | "redis" | "postgres" | "postgresql"
            | "amqp" => Some(Self::Tcp),
            _ => None,
        }
    }
}

impl Service {
    /// The port of this number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }

    /// The port that a host name without a port means: the only one, or 80.
    #[must_use]
    pub fn default_port(&self) -> Option<&ServicePort> {
        match self.ports.as_slice() {
            [only] => Some(only),
            _ => self.port(80),
        }
    }

    /// Whether `workload` is one of its endpoints: same namespace, and registered for it by name or with all the
    /// labels that the selector asks for.
    #[must_use]
    pub fn selects(&self, workload: &Workload) -> bool {
        let by_name = workload.service.as_deref() == Some(self.name.name.as_str());
        let by_label = || {
            !self.selector.is_empty()
                && self
                    .selector
                    .iter()
                    .all(|(label, value)| workload.label(label) == Some(value.as_str()))
        };
        self.name.namespace == workload.name.namespace && (by_name || by_label())
    }

    pub(crate) fn decode(cx: &mut Context, meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let selector = object.map(cx, "selector", any_text);
        let ports: Vec<ServicePort> =
            object.list(cx, "ports", service_port).into_iter().flatten().collect();
        let addresses = cluster_addresses(cx, &mut object);
        ignore_what_has_no_meaning_here(&mut object);
        let unique: BTreeSet<u16> = ports.iter().map(|port| port.port).collect();
        if unique.len() != ports.len() {
            cx.error::<()>(spec, "two ports have the same number");
        }
        if ports.is_empty() {
            cx.warn(spec, "the service has no TCP port, so nobody can call it");
        }
        object.finish(cx);
        Some(Self {
            name: meta.name.clone(),
            selector,
            ports,
            addresses,
            depends_on: depends_on(cx, meta),
            service_accounts: meta
                .annotations
                .get("pillion.io/service-accounts")
                .map(|annotation| names(&annotation.value).map(str::to_owned).collect()),
        })
    }
}

/// `clusterIP` and `clusterIPs`, where the first of the latter repeats the former.
fn cluster_addresses(cx: &mut Context, object: &mut Object<'_>) -> Vec<IpAddr> {
    let one = object.optional(cx, "clusterIP", address);
    let more = object.list(cx, "clusterIPs", address);
    let mut found = Vec::new();
    for address in one.into_iter().chain(more).flatten() {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// `None` and the empty text are a headless service.
fn address(cx: &mut Context, at: &At<'_>) -> Option<Option<IpAddr>> {
    match any_text(cx, at)?.as_str() {
        "" | "None" => Some(None),
        written => match written.parse() {
            Ok(address) => Some(Some(address)),
            Err(_) => cx.expected(at, "an IPv4 or IPv6 address, or `None`"),
        },
    }
}

fn ignore_what_has_no_meaning_here(object: &mut Object<'_>) {
    object.ignore(&["type", "ipFamilies", "ipFamilyPolicy", "sessionAffinity"]);
    object.ignore(&[
        "sessionAffinityConfig",
        "internalTrafficPolicy",
        "externalTrafficPolicy",
        "externalIPs",
    ]);
    object.ignore(&[
        "loadBalancerIP",
        "loadBalancerClass",
        "loadBalancerSourceRanges",
        "healthCheckNodePort",
    ]);
    object.ignore(&[
        "allocateLoadBalancerNodePorts",
        "publishNotReadyAddresses",
        "trafficDistribution",
    ]);
}

/// `Some(None)` is a port that is left out with a warning (UDP, SCTP).
fn service_port(cx: &mut Context, at: &At<'_>) -> Option<Option<ServicePort>> {
    let mut object = Object::open(cx, at)?;
    let name = object.optional(cx, "name", dns_label);
    let number = object.required(cx, "port", port);
    let target = object.optional(cx, "targetPort", target_port);
    let transport = object.field("protocol");
    let app = object.field("appProtocol");
    object.ignore(&["nodePort"]);
    object.finish(cx);
    if let Some(transport) = transport
        && text(cx, &transport)? != "TCP"
    {
        cx.warn(&transport, "only TCP ports are part of the mesh; this port is left out");
        return Some(None);
    }
    let protocol = match app {
        Some(app) => {
            let written = text(cx, &app)?;
            AppProtocol::named(&written).unwrap_or_else(|| {
                cx.warn(
                    &app,
                    format!("unknown application protocol `{written}`: treated as plain TCP"),
                );
                AppProtocol::Tcp
            })
        }
        None => name
            .as_deref()
            .and_then(|name| AppProtocol::named(name.split('-').next().unwrap_or(name)))
            // Most of what meets a mesh is HTTP; whoever means bytes says `appProtocol: tcp`.
            .unwrap_or(AppProtocol::Http),
    };
    let port = number?;
    Some(Some(ServicePort {
        name,
        port,
        target: target.unwrap_or(TargetPort::Number(port)),
        protocol,
    }))
}

fn target_port(cx: &mut Context, at: &At<'_>) -> Option<TargetPort> {
    match at.node.value {
        Value::Text(_) => text(cx, at).map(TargetPort::Name),
        _ => port(cx, at).map(TargetPort::Number),
    }
}

/// Reads `catalog,cart.shop`: names in this namespace, or `name.namespace`.
fn depends_on(cx: &mut Context, meta: &Meta) -> Option<Vec<Name>> {
    let annotation = meta.annotations.get("pillion.io/depends-on")?;
    let name = |written: &str| match written.split_once('.') {
        Some((name, namespace)) => Name::new(namespace, name),
        None => Name::new(meta.name.namespace.clone(), written),
    };
    let found: Vec<Name> = names(&annotation.value).map(name).collect();
    if found.is_empty() {
        let message =
            "it names no service: the sidecars of this service can call nobody".to_owned();
        cx.note(Severity::Warning, annotation.place, &annotation.path, message);
    }
    cx.references.extend(found.iter().map(|service| Reference {
        target: Referent::Dependency(service.clone()),
        place: annotation.place,
        path: annotation.path.clone(),
    }));
    Some(found)
}

fn names(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', ' ', '\n']).map(str::trim).filter(|name| !name.is_empty())
}
