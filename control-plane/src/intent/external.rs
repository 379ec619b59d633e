//! `ExternalService`: a host outside of the mesh that its workloads may call.

use super::decode::{At, Context, Object, dns_label, dns_name, port, text};
use super::document::Referent;
use super::hostname::hostname;
use super::meta::{Meta, Name};
use super::service::AppProtocol;

/// Where roots of public authorities are on Debian and its like.
const PUBLIC_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A host outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalService {
    /// Namespace and name.
    pub name: Name,
    /// Its host names, as clients say them; never empty.
    pub hosts: Vec<String>,
    /// Where it is: addresses or DNS names. Empty: where DNS says that the first host is.
    pub addresses: Vec<String>,
    /// Its ports.
    pub ports: Vec<ExternalPort>,
    /// The gateway that its traffic leaves through. `None`: straight from the sidecars.
    pub via: Option<Name>,
}

/// A port of a host outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalPort {
    /// Port that clients name.
    pub port: u16,
    /// Port that is connected to.
    pub target: u16,
    /// What clients speak.
    pub protocol: AppProtocol,
    /// TLS that begins here, so that clients speak plain text.
    pub tls: Option<Origination>,
}

/// TLS towards a host outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origination {
    /// Server name that is asked for.
    pub sni: String,
    /// File with the roots that are trusted, on the machine of the proxy.
    pub ca_file: String,
    /// DNS names of which the certificate must bear one; never empty.
    pub names: Vec<String>,
}

impl ExternalService {
    /// The port of this number, or the only one.
    #[must_use]
    pub fn port(&self, number: Option<u16>) -> Option<&ExternalPort> {
        match (number, self.ports.as_slice()) {
            (Some(number), ports) => ports.iter().find(|port| port.port == number),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }

    pub(crate) fn decode(cx: &mut Context, meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let hosts = object.required(cx, "hosts", |cx, at| {
            let hosts: Vec<String> =
                at.items(cx)?.iter().filter_map(|at| whole_host(cx, at)).collect();
            if hosts.is_empty() { cx.expected(at, "at least one host name") } else { Some(hosts) }
        });
        let first = hosts.as_ref().and_then(|hosts| hosts.first().cloned()).unwrap_or_default();
        let addresses = object.list(cx, "addresses", address);
        let ports = object.required(cx, "ports", |cx, at| {
            let items = at.items(cx)?;
            if items.is_empty() {
                return cx.expected(at, "at least one port");
            }
            Some(items.iter().filter_map(|at| external_port(cx, at, &first)).collect::<Vec<_>>())
        });
        let via_at = object.field("via");
        let via = via_at.as_ref().and_then(|at| via(cx, at));
        object.finish(cx);
        let ports = ports?;
        for (index, port) in ports.iter().enumerate() {
            if ports[..index].iter().any(|other| other.port == port.port) {
                return cx.error(spec, format!("port {} stands twice in it", port.port));
            }
        }
        if let (Some(at), Some(port)) =
            (&via_at, ports.iter().find(|port| !port.protocol.is_http()))
        {
            return cx.error(
                at,
                format!(
                    "only HTTP can leave through a gateway, and port {} is not HTTP",
                    port.port
                ),
            );
        }
        Some(Self { name: meta.name.clone(), hosts: hosts?, addresses, ports, via })
    }
}

fn whole_host(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let host = hostname(cx, at)?;
    if host.starts_with('*') {
        return cx.expected(at, "a whole host name, without `*`");
    }
    Some(host)
}

/// An IP address, or a DNS name.
fn address(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let written = text(cx, at)?;
    if written.parse::<std::net::IpAddr>().is_ok() {
        return Some(written);
    }
    whole_host(cx, at)
}

fn external_port(cx: &mut Context, at: &At<'_>, host: &str) -> Option<ExternalPort> {
    let mut object = Object::open(cx, at)?;
    // For people.
    object.optional(cx, "name", text);
    let number = object.required(cx, "port", port);
    let target = object.optional(cx, "targetPort", port);
    let protocol = object.optional(cx, "appProtocol", |cx, at| {
        let written = text(cx, at)?;
        let known = AppProtocol::named(&written);
        known.or_else(|| cx.expected(at, "one of `http`, `http2`, `grpc`, `tls`, `tcp`"))
    });
    let tls = object.optional(cx, "tls", |cx, at| origination(cx, at, host));
    object.finish(cx);
    let port = number?;
    let default = if port == 443 && tls.is_none() { AppProtocol::Tcp } else { AppProtocol::Http };
    Some(ExternalPort {
        port,
        target: target.unwrap_or(port),
        protocol: protocol.unwrap_or(default),
        tls,
    })
}

fn origination(cx: &mut Context, at: &At<'_>, host: &str) -> Option<Origination> {
    let mut object = Object::open(cx, at)?;
    let sni = object.optional(cx, "sni", dns_name).unwrap_or_else(|| host.to_owned());
    let ca_file = object.optional(cx, "caFile", text).unwrap_or_else(|| PUBLIC_ROOTS.to_owned());
    let mut names = object.list(cx, "subjectAltNames", dns_name);
    object.finish(cx);
    if names.is_empty() {
        names.push(sni.clone());
    }
    Some(Origination { sni, ca_file, names })
}

fn via(cx: &mut Context, at: &At<'_>) -> Option<Name> {
    let mut object = Object::open(cx, at)?;
    let name_at = object.field("gateway");
    let name = object.required(cx, "gateway", dns_name)?;
    let namespace = object.optional(cx, "namespace", dns_label);
    object.finish(cx);
    let gateway = Name::new(namespace.unwrap_or_else(|| cx.namespace.clone()), name);
    if let Some(at) = name_at {
        cx.refer(&at, Referent::Egress(gateway.clone()));
    }
    Some(gateway)
}
