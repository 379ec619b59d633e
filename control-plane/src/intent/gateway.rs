//! `Gateway` (Gateway API v1): where traffic comes into the mesh, or to services without one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::decode::{
    At, Context, Object, any_text, choice, dns_label, dns_name, port, quoted, text,
};
use super::document::Referent;
use super::hostname::hostname;
use super::meta::{Meta, Name};
use super::problem::nearest;
use super::selector::{LabelSelector, label_selector};

/// The `gatewayClassName` of our gateways.
pub const GATEWAY_CLASS: &str = "pillion";

/// Label of the workloads of a gateway: its name.
pub const GATEWAY_LABEL: &str = "gateway.networking.k8s.io/gateway-name";

/// A gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Namespace and name.
    pub name: Name,
    /// `gatewayClassName`; one that is not [`GATEWAY_CLASS`] is somebody else's.
    pub class: String,
    /// Where it listens; empty is everywhere.
    pub addresses: Vec<IpAddr>,
    /// Its listeners, in the order they are written.
    pub listeners: Vec<Listener>,
}

/// A listener of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Name, which routes may use as `sectionName`.
    pub name: String,
    /// The hosts that it is for; `None` is every host.
    pub hostname: Option<String>,
    /// Port that clients connect to.
    pub port: u16,
    /// What is spoken.
    pub protocol: ListenerProtocol,
    /// Certificates of a listener that ends TLS; empty if it does not.
    pub certificates: Vec<Name>,
    /// Which namespaces' routes may be attached.
    pub allowed: AllowedNamespaces,
    /// Which kinds of route may be attached; `None` is all that fit the protocol.
    pub allowed_kinds: Option<Vec<String>>,
}

impl Listener {
    /// The kinds of route that may be attached.
    pub(crate) fn supported_kinds(&self) -> impl Iterator<Item = &'static str> + '_ {
        let allowed = |kind: &&'static str| {
            let kinds = self.allowed_kinds.as_ref();
            kinds.is_none_or(|kinds| kinds.iter().any(|one| one == kind))
        };
        self.protocol.kinds().iter().copied().filter(allowed)
    }

    /// Whether it allows kinds of route that cannot be attached to it.
    pub(crate) fn has_unfit_kinds(&self) -> bool {
        let fit = self.protocol.kinds();
        self.allowed_kinds.iter().flatten().any(|kind| !fit.contains(&kind.as_str()))
    }

    /// Whether TLS ends here.
    pub(crate) fn ends_tls(&self) -> bool {
        matches!(self.protocol, ListenerProtocol::Https | ListenerProtocol::TlsTerminate)
    }
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerProtocol {
    /// `HTTP`
    Http,
    /// `HTTPS`: TLS ends here.
    Https,
    /// `TLS` with `mode: Passthrough`: told apart by server name, and passed on as it is.
    TlsPassthrough,
    /// `TLS` with `mode: Terminate`: bytes within TLS that ends here.
    TlsTerminate,
    /// `TCP`: bytes.
    Tcp,
}

impl ListenerProtocol {
    /// Whether connections begin with a TLS handshake.
    #[must_use]
    pub const fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::TlsPassthrough | Self::TlsTerminate)
    }

    /// Whether requests are routed.
    #[must_use]
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    /// The kinds of route that fit.
    pub(crate) const fn kinds(self) -> &'static [&'static str] {
        match self {
            Self::Http | Self::Https => &["HTTPRoute", "GRPCRoute"],
            Self::TlsPassthrough => &["TLSRoute"],
            Self::TlsTerminate => &["TLSRoute", "TCPRoute"],
            Self::Tcp => &["TCPRoute"],
        }
    }
}

/// Which namespaces' routes may be attached to a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedNamespaces {
    /// The gateway's own (the default).
    Same,
    /// All of them.
    All,
    /// Those with such labels.
    Chosen {
        /// What their labels must be.
        selector: LabelSelector,
        /// Which of the namespaces that are known these are.
        names: BTreeSet<String>,
    },
}

/// A gateway that a route is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayRef {
    /// Which.
    pub gateway: Name,
    /// Only its listeners on this port.
    pub port: Option<u16>,
    /// Only its listener of this name.
    pub section: Option<String>,
}

impl GatewayRef {
    /// Whether it means this listener.
    pub(crate) fn means(&self, listener: &Listener) -> bool {
        self.port.is_none_or(|port| port == listener.port)
            && self.section.as_ref().is_none_or(|section| *section == listener.name)
    }
}

impl Gateway {
    /// Whether it is ours.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.class == GATEWAY_CLASS
    }

    pub(crate) fn decode(cx: &mut Context, meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let class = object.required(cx, "gatewayClassName", dns_name)?;
        let ours = class == GATEWAY_CLASS;
        if !ours {
            if let Some(at) = object.field("gatewayClassName") {
                cx.warn(
                    &at,
                    format!("a Gateway of another class than `{GATEWAY_CLASS}` has no effect here"),
                );
            }
            return Some(Self {
                name: meta.name.clone(),
                class,
                addresses: Vec::new(),
                listeners: Vec::new(),
            });
        }
        let addresses = object.list(cx, "addresses", address);
        let listeners = object.list(cx, "listeners", listener);
        object.ignore(&["infrastructure"]);
        object.finish(cx);
        check_listeners(cx, spec, &listeners);
        Some(Self { name: meta.name.clone(), class, addresses, listeners })
    }
}

fn address(cx: &mut Context, at: &At<'_>) -> Option<IpAddr> {
    let mut object = Object::open(cx, at)?;
    let kind = object.optional(cx, "type", text).unwrap_or_else(|| "IPAddress".to_owned());
    let value = object.required(cx, "value", |cx, at| {
        let written = text(cx, at)?;
        written.parse().ok().or_else(|| cx.expected(at, "an IPv4 or IPv6 address of this machine"))
    });
    object.finish(cx);
    if kind != "IPAddress" {
        return cx.expected(at, "an address of type `IPAddress`");
    }
    value
}

fn listener(cx: &mut Context, at: &At<'_>) -> Option<Listener> {
    let mut object = Object::open(cx, at)?;
    let name = object.required(cx, "name", dns_name);
    let hostname = object.optional(cx, "hostname", hostname);
    let port = object.required(cx, "port", port);
    let protocol = object.required(cx, "protocol", protocol);
    let tls_at = object.field("tls");
    let allowed = object.optional(cx, "allowedRoutes", allowed_routes);
    object.finish(cx);
    let (name, port, protocol) = (name?, port?, protocol?);
    let Tls { passes, certificates } = match &tls_at {
        Some(at) => tls(cx, at)?,
        None => Tls { passes: false, certificates: Vec::new() },
    };
    let (protocol, ends) = match (protocol, passes) {
        (Spoken::Http, _) => (ListenerProtocol::Http, false),
        (Spoken::Tcp, _) => (ListenerProtocol::Tcp, false),
        (Spoken::Https, false) => (ListenerProtocol::Https, true),
        (Spoken::Https, true) => {
            return cx.error(at, "HTTPS ends TLS here; to pass TLS on, the protocol is `TLS`");
        }
        (Spoken::Tls, true) => (ListenerProtocol::TlsPassthrough, false),
        (Spoken::Tls, false) => (ListenerProtocol::TlsTerminate, true),
    };
    match (ends, certificates.is_empty(), tls_at.is_some()) {
        (true, true, _) => {
            return cx.error(at, "the field `tls.certificateRefs` is missing: TLS that ends here needs a certificate");
        }
        (false, false, _) => {
            return cx.error(at, "`tls.certificateRefs` belongs to listeners that end TLS");
        }
        (false, true, true) if !protocol.is_tls() => {
            return cx.error(at, "`tls` belongs to listeners of protocol HTTPS or TLS");
        }
        _ => {}
    }
    if protocol == ListenerProtocol::Tcp && hostname.is_some() {
        return cx
            .error(at, "a listener of protocol TCP has no `hostname`: nothing in TCP says one");
    }
    let (allowed, allowed_kinds) = allowed.unwrap_or((AllowedNamespaces::Same, None));
    check_kinds(cx, at, protocol, allowed_kinds.as_deref());
    Some(Listener { name, hostname, port, protocol, certificates, allowed, allowed_kinds })
}

fn check_kinds(
    cx: &mut Context,
    at: &At<'_>,
    protocol: ListenerProtocol,
    kinds: Option<&[String]>,
) {
    let fit = protocol.kinds();
    if let Some(kind) = kinds.into_iter().flatten().find(|kind| !fit.contains(&kind.as_str())) {
        cx.warn(
            at,
            format!("routes of kind {kind} cannot be attached here; what fits is {}", quoted(fit)),
        );
    }
}

/// `protocol`, as it is written.
#[derive(Clone, Copy)]
enum Spoken {
    Http,
    Https,
    Tls,
    Tcp,
}

fn protocol(cx: &mut Context, at: &At<'_>) -> Option<Spoken> {
    choice(&[
        ("HTTP", Spoken::Http),
        ("HTTPS", Spoken::Https),
        ("TLS", Spoken::Tls),
        ("TCP", Spoken::Tcp),
    ])(cx, at)
}

struct Tls {
    passes: bool,
    certificates: Vec<Name>,
}

fn tls(cx: &mut Context, at: &At<'_>) -> Option<Tls> {
    let mut object = Object::open(cx, at)?;
    let mode = choice(&[("Terminate", false), ("Passthrough", true)]);
    let passes = object.optional(cx, "mode", mode).unwrap_or(false);
    let certificates = object.list(cx, "certificateRefs", certificate_ref);
    for field in ["frontendValidation", "options"] {
        if let Some(at) = object.field(field) {
            return cx.error(&at, "is not supported");
        }
    }
    object.finish(cx);
    Some(Tls { passes, certificates })
}

fn certificate_ref(cx: &mut Context, at: &At<'_>) -> Option<Name> {
    let mut object = Object::open(cx, at)?;
    let group = object.optional(cx, "group", any_text).unwrap_or_default();
    let kind = object.optional(cx, "kind", text).unwrap_or_else(|| "Secret".to_owned());
    let name_at = object.field("name");
    let name = object.required(cx, "name", dns_name)?;
    let namespace = object.optional(cx, "namespace", dns_label);
    object.finish(cx);
    if !matches!(group.as_str(), "" | "core") || kind != "Secret" {
        return cx.expected(at, "a reference to a Secret of type `kubernetes.io/tls`");
    }
    let secret = Name::new(namespace.unwrap_or_else(|| cx.namespace.clone()), name);
    if let Some(at) = name_at {
        cx.refer(&at, Referent::Certificate(secret.clone()));
    }
    Some(secret)
}

type Allowed = (AllowedNamespaces, Option<Vec<String>>);

fn allowed_routes(cx: &mut Context, at: &At<'_>) -> Option<Allowed> {
    let mut object = Object::open(cx, at)?;
    let namespaces = object.optional(cx, "namespaces", allowed_namespaces);
    let kinds = object.field("kinds").is_some().then(|| object.list(cx, "kinds", route_kind));
    object.finish(cx);
    Some((namespaces.unwrap_or(AllowedNamespaces::Same), kinds))
}

fn route_kind(cx: &mut Context, at: &At<'_>) -> Option<String> {
    const KINDS: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"];
    let mut object = Object::open(cx, at)?;
    object.ignore(&["group"]);
    let kind = object.required(cx, "kind", text)?;
    object.finish(cx);
    if !KINDS.contains(&kind.as_str())
        && let Some(meant) = nearest(&kind, KINDS)
    {
        return cx.error(at, format!("unknown kind of route `{kind}`, did you mean `{meant}`?"));
    }
    Some(kind)
}

fn allowed_namespaces(cx: &mut Context, at: &At<'_>) -> Option<AllowedNamespaces> {
    #[derive(Clone, Copy)]
    enum From {
        Same,
        All,
        Selector,
    }
    let mut object = Object::open(cx, at)?;
    let names = choice(&[("Same", From::Same), ("All", From::All), ("Selector", From::Selector)]);
    let from = object.optional(cx, "from", names).unwrap_or(From::Same);
    let selector_at = object.field("selector");
    let selector = object.optional(cx, "selector", label_selector);
    object.finish(cx);
    Some(match (from, selector) {
        (From::Same, _) => AllowedNamespaces::Same,
        (From::All, _) => AllowedNamespaces::All,
        (From::Selector, Some(selector)) => {
            AllowedNamespaces::Chosen { selector, names: BTreeSet::new() }
        }
        // What is wrong with it was said.
        (From::Selector, None) if selector_at.is_some() => return None,
        (From::Selector, None) => {
            return cx.error(at, "the field `selector` is missing: `from` is `Selector`");
        }
    })
}

/// What listeners must be to each other.
fn check_listeners(cx: &mut Context, at: &At<'_>, listeners: &[Listener]) {
    for (index, one) in listeners.iter().enumerate() {
        for other in &listeners[..index] {
            if one.name == other.name {
                cx.error::<()>(at, format!("two listeners are named `{}`", one.name));
            } else if one.port == other.port {
                check_one_port(cx, at, one, other);
            }
        }
    }
}

fn check_one_port(cx: &mut Context, at: &At<'_>, one: &Listener, other: &Listener) {
    let (name, taken, port) = (&one.name, &other.name, one.port);
    let together = one.protocol == other.protocol && one.protocol != ListenerProtocol::Tcp
        || one.protocol.is_tls() && other.protocol.is_tls();
    if !together {
        cx.error::<()>(
            at,
            format!("the listeners `{taken}` and `{name}` both take port {port}, and cannot be told apart there"),
        );
    } else if one.hostname == other.hostname {
        let host = one.hostname.as_deref().unwrap_or("every host");
        cx.error::<()>(
            at,
            format!("the listeners `{taken}` and `{name}` both take {host} on port {port}"),
        );
    }
}
