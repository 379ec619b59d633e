//! Headers that tell the upstream where a request came from: `x-forwarded-for`,
//! `x-forwarded-proto`, `x-forwarded-client-cert`.

use std::fmt::Write;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::presence::Presence;
use crate::model::http::{ClientCertDetails, ForwardClientCert, HttpManager, Inside};
use crate::model::names;

const XFF: HeaderName = HeaderName::from_static("x-forwarded-for");
const XFP: HeaderName = HeaderName::from_static("x-forwarded-proto");
const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const EXTERNAL: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// What is known about the connection that a request came on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hop<'a> {
    /// Address of the peer. None: a Unix socket.
    pub peer: Option<IpAddr>,
    /// Port that the peer connected to.
    pub port: Option<u16>,
    /// The connection is TLS.
    pub tls: bool,
    /// The peer's verified certificate.
    pub certificate: Option<PeerCertificate<'a>>,
}

/// The parts of a certificate that XFCC can carry.
#[derive(Clone, Copy, Debug, Default)]
pub struct PeerCertificate<'a> {
    /// URI SAN of our own certificate (`By`).
    pub by: Option<&'a str>,
    /// Lower-case hex SHA-256 (`Hash`).
    pub sha256: &'a str,
    /// Distinguished name (`Subject`).
    pub subject: &'a str,
    /// URI SANs (`URI`).
    pub uris: &'a [String],
    /// DNS SANs (`DNS`).
    pub dns: &'a [String],
    /// URL-encoded PEM (`Cert`).
    pub pem: &'a str,
    /// The same of the whole chain (`Chain`).
    pub chain: &'a str,
}

/// Set or sanitise the forwarding headers of a request. Returns the client's address as far as it
/// can be trusted. `present`: what the request has; those of forwarding are still there ([`super::hop`] leaves them).
pub fn apply(
    headers: &mut HeaderMap,
    present: Presence,
    manager: &HttpManager,
    hop: &Hop<'_>,
) -> Option<IpAddr> {
    let certified = present.has(Presence::FORWARDED_CLIENT_CERT);
    if certified || hop.certificate.is_some() {
        let how = (manager.forward_client_cert, manager.client_cert_details);
        forward_certificate(headers, certified, how, hop);
    }
    let scheme = HeaderValue::from_static(if hop.tls { "https" } else { "http" });
    let hops = manager.xff_num_trusted_hops;
    // Nobody is inside until `internal_address_config` names some, as in Envoy.
    let inside = manager.inside.as_deref().is_some_and(|of| is_inside(headers, manager, hop, of));
    if inside {
        headers.insert(names::X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
    } else {
        if present.has(Presence::EXPECTED_TIMEOUT) {
            headers.remove(names::X_ENVOY_EXPECTED_TIMEOUT);
        }
        if present.has(Presence::ENVOY_BESIDE) {
            sanitise(headers, manager.use_remote_address);
        }
    }
    if !manager.use_remote_address {
        if !present.has(Presence::FORWARDED_PROTO) {
            headers.insert(XFP, scheme);
        }
        let chained = present.has(Presence::FORWARDED_FOR);
        return if chained { from_end(headers, hops) } else { None }.or(hop.peer);
    }
    let client = if hops == 0 { hop.peer } else { from_end(headers, hops - 1).or(hop.peer) };
    if hops == 0 || !headers.contains_key(XFP) {
        headers.insert(XFP, scheme);
    }
    if let Some(peer) = hop.peer.filter(|_| !manager.skip_xff_append) {
        append_address(headers, peer);
    }
    if let Some(port) = hop.port.filter(|_| manager.append_x_forwarded_port)
        && (hops == 0 || !headers.contains_key(PORT))
    {
        headers.insert(PORT, HeaderValue::from(port));
    }
    if let Some(Ok(client)) =
        client.filter(|_| !inside).map(|client| HeaderValue::from_str(&client.to_string()))
    {
        headers.insert(EXTERNAL, client);
    }
    client
}

/// Whether a request comes from inside: from one client alone, whose address is one of those.
fn is_inside(headers: &HeaderMap, manager: &HttpManager, hop: &Hop<'_>, of: &Inside) -> bool {
    let hops = manager.xff_num_trusted_hops;
    let mut chain = headers.get_all(XFF).iter();
    let (client, alone) = if manager.use_remote_address {
        let alone = chain.next().is_none();
        let client = if hops == 0 { hop.peer } else { from_end(headers, hops - 1).or(hop.peer) };
        (client, alone)
    } else {
        let chained = |value: &HeaderValue| value.as_bytes().contains(&b',');
        let alone = chain.next().is_some_and(|only| !chained(only)) && chain.next().is_none();
        match from_end(headers, hops) {
            Some(client) => (Some(client), alone),
            None => return false,
        }
    };
    alone
        && match client {
            Some(client) => of.networks.iter().any(|network| network.contains(&client)),
            None => of.unix_sockets,
        }
}

/// Header names that only clients inside may set (Envoy: "External request sanitising").
/// At the edge more of them than behind it. The one that most have is not among them: it has been looked for.
fn sanitise(headers: &mut HeaderMap, edge: bool) {
    // Most requests have none of them: one look at the names is cheaper than twenty searches.
    let inside = |name: &&HeaderName| {
        name.as_str().strip_prefix("x-envoy-").is_some_and(|rest| is_for_inside(rest, edge))
    };
    let gone: Vec<HeaderName> = headers.keys().filter(inside).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// By what follows `x-envoy-`.
fn is_for_inside(name: &str, edge: bool) -> bool {
    match name {
        "internal"
        | "retry-on"
        | "retry-grpc-on"
        | "max-retries"
        | "retriable-status-codes"
        | "retriable-header-names"
        | "upstream-rq-timeout-ms"
        | "upstream-rq-per-try-timeout-ms"
        | "upstream-rq-timeout-alt-response"
        | "upstream-alt-stat-name"
        | "force-trace"
        | "ip-tags"
        | "hedge-on-per-try-timeout" => true,
        "decorator-operation"
        | "original-path"
        | "original-host"
        | "downstream-service-cluster"
        | "downstream-service-node" => edge,
        _ => false,
    }
}

/// The `n`th address of `x-forwarded-for` from its end, the last being number 0.
fn from_end(headers: &HeaderMap, n: u32) -> Option<IpAddr> {
    let text = headers.get_all(XFF).iter().next_back()?.to_str().ok()?;
    text.rsplit(',').nth(n as usize)?.trim().parse().ok()
}

fn append_address(headers: &mut HeaderMap, peer: IpAddr) {
    let value = match headers.get(XFF).and_then(|value| value.to_str().ok()) {
        Some(before) => HeaderValue::from_str(&format!("{before},{peer}")),
        None => HeaderValue::from_str(&peer.to_string()),
    };
    if let Ok(value) = value {
        headers.insert(XFF, value);
    }
}

/// `brought`: the request has the header.
fn forward_certificate(
    headers: &mut HeaderMap,
    brought: bool,
    (action, details): (ForwardClientCert, ClientCertDetails),
    hop: &Hop<'_>,
) {
    let mutual = hop.certificate.is_some();
    match action {
        ForwardClientCert::AlwaysForwardOnly => {}
        ForwardClientCert::ForwardOnly if mutual => {}
        ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet if mutual => {
            let Some(certificate) = &hop.certificate else { return };
            let mut value = String::new();
            if action == ForwardClientCert::AppendForward
                && let Some(before) = headers.get(XFCC).and_then(|value| value.to_str().ok())
            {
                value.push_str(before);
                value.push(',');
            }
            element(&mut value, certificate, details);
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(XFCC, value);
            }
        }
        _ if brought => {
            headers.remove(XFCC);
        }
        _ => {}
    }
}

/// `By=…;Hash=…;Subject="…";URI=…;DNS=…` (Envoy: HTTP header manipulation, XFCC).
fn element(out: &mut String, certificate: &PeerCertificate<'_>, details: ClientCertDetails) {
    if let Some(by) = certificate.by {
        let _ = write!(out, "By={by};");
    }
    let _ = write!(out, "Hash={}", certificate.sha256);
    if details.cert && !certificate.pem.is_empty() {
        let _ = write!(out, ";Cert=\"{}\"", certificate.pem);
    }
    if details.chain && !certificate.chain.is_empty() {
        let _ = write!(out, ";Chain=\"{}\"", certificate.chain);
    }
    if details.subject {
        let _ = write!(out, ";Subject=\"{}\"", certificate.subject.replace('"', "\\\""));
    }
    if details.uri {
        for uri in certificate.uris {
            let _ = write!(out, ";URI={uri}");
        }
    }
    if details.dns {
        for dns in certificate.dns {
            let _ = write!(out, ";DNS={dns}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(peer: &str) -> Hop<'static> {
        Hop { peer: Some(peer.parse().unwrap()), ..Hop::default() }
    }

    fn told(headers: &mut HeaderMap, manager: &HttpManager, hop: &Hop<'_>) -> Option<IpAddr> {
        let present = Presence::of(headers);
        apply(headers, present, manager, hop)
    }

    fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
        headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn an_edge_extends_the_chain_and_drops_what_strangers_may_not_say() {
        let manager = HttpManager { use_remote_address: true, ..HttpManager::default() };
        let mut headers = HeaderMap::new();
        headers.insert(XFF, HeaderValue::from_static("10.1.1.1"));
        headers.insert(XFP, HeaderValue::from_static("https"));
        headers.insert("x-envoy-retry-on", HeaderValue::from_static("5xx"));
        let client = told(&mut headers, &manager, &hop("198.51.100.7"));
        assert_eq!(client, Some("198.51.100.7".parse().unwrap()));
        assert_eq!(text(&headers, "x-forwarded-for"), Some("10.1.1.1,198.51.100.7"));
        assert_eq!(text(&headers, "x-forwarded-proto"), Some("http"));
        assert_eq!(text(&headers, "x-envoy-retry-on"), None);
        assert_eq!(text(&headers, "x-envoy-external-address"), Some("198.51.100.7"));
    }

    #[test]
    fn who_is_inside_may_say_what_strangers_may_not() {
        let networks = vec!["10.0.0.0/8".parse().unwrap()];
        let inside = Some(std::sync::Arc::new(Inside { unix_sockets: false, networks }));
        let manager = HttpManager {
            use_remote_address: true,
            append_x_forwarded_port: true,
            inside,
            ..HttpManager::default()
        };
        let asked = |chain: Option<&'static str>, peer: &str| {
            let mut headers = HeaderMap::new();
            headers.extend(chain.map(|chain| (XFF, HeaderValue::from_static(chain))));
            headers.insert("x-envoy-retry-on", HeaderValue::from_static("5xx"));
            told(&mut headers, &manager, &Hop { port: Some(8443), ..hop(peer) });
            assert_eq!(text(&headers, "x-forwarded-port"), Some("8443"));
            let external = headers.contains_key(EXTERNAL);
            assert_eq!(headers.contains_key(names::X_ENVOY_INTERNAL), !external);
            (headers.contains_key("x-envoy-retry-on"), external)
        };
        assert_eq!(asked(None, "10.0.0.1"), (true, false));
        assert_eq!(asked(None, "198.51.100.7"), (false, true));
        assert_eq!(asked(Some("10.0.0.2"), "10.0.0.1"), (false, true));
    }

    #[test]
    fn a_trusted_hop_in_front_names_the_client() {
        let manager = HttpManager {
            use_remote_address: true,
            xff_num_trusted_hops: 1,
            ..HttpManager::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert(XFF, HeaderValue::from_static("6.6.6.6, 198.51.100.7"));
        let client = told(&mut headers, &manager, &hop("10.0.0.1"));
        assert_eq!(client, Some("198.51.100.7".parse().unwrap()));
    }

    #[test]
    fn a_certificate_is_told_only_where_it_was_verified() {
        let manager = HttpManager {
            forward_client_cert: ForwardClientCert::SanitizeSet,
            client_cert_details: ClientCertDetails { uri: true, ..Default::default() },
            ..HttpManager::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert(XFCC, HeaderValue::from_static("URI=spiffe://forged"));
        told(&mut headers, &manager, &hop("10.0.0.1"));
        assert_eq!(text(&headers, "x-forwarded-client-cert"), None);
        let uris = ["spiffe://shop.local/ns/default/sa/web".to_owned()];
        let certificate = PeerCertificate { sha256: "ab12", uris: &uris, ..Default::default() };
        let hop = Hop { tls: true, certificate: Some(certificate), ..hop("10.0.0.1") };
        told(&mut headers, &manager, &hop);
        let want = "Hash=ab12;URI=spiffe://shop.local/ns/default/sa/web";
        assert_eq!(text(&headers, "x-forwarded-client-cert"), Some(want));
    }
}
