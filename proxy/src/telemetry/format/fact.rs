//! Values of the operators without an argument.

use std::fmt::{Display, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use http::HeaderMap;

use super::{Certificate, Record, Session, Upstream, WireBytes, grpc_status, push};
use crate::model::duration::millis;
use crate::model::format::Fact;
use crate::telemetry::reason::long_flag;

/// Append a fact. None: there is none.
pub(super) fn write(fact: Fact, record: &Record<'_>, out: &mut String) -> Option<()> {
    if fact == Fact::LocalReplyBody {
        return push(out, record.local_reply.unwrap_or_default());
    }
    let start = out.len();
    exchange(fact, record, out)
        .or_else(|| upstream(fact, record, out))
        .or_else(|| downstream(fact, record, out))?;
    // Only what somebody sent may be empty.
    (out.len() > start).then_some(())
}

/// About the request, its answer and its times.
fn exchange(fact: Fact, record: &Record<'_>, out: &mut String) -> Option<()> {
    match fact {
        Fact::Protocol => push(out, record.protocol?),
        Fact::ResponseCode => push(out, record.status.unwrap_or(0)),
        Fact::ResponseCodeDetails => push(out, record.details?),
        Fact::ConnectionTerminationDetails => push(out, record.termination?),
        Fact::ResponseFlags if record.flags.is_empty() => push(out, "-"),
        Fact::ResponseFlags => join(out, record.flags.iter()),
        Fact::ResponseFlagsLong if record.flags.is_empty() => push(out, "-"),
        Fact::ResponseFlagsLong => join(out, record.flags.iter().map(|flag| long_flag(flag))),
        Fact::AccessLogType => push(out, record.kind.as_str()),
        Fact::BytesReceived => push(out, record.bytes_received),
        Fact::BytesSent => push(out, record.bytes_sent),
        Fact::RequestHeadersBytes => push(out, request_bytes(record)),
        Fact::ResponseHeadersBytes => push(out, response_bytes(record)),
        Fact::ResponseTrailersBytes => push(out, record.response_trailers.map_or(0, bytes)),
        Fact::Duration => push(out, millis(record.duration?)),
        Fact::RequestDuration => push(out, millis(record.request_duration?)),
        Fact::RequestTxDuration => push(out, millis(record.times.send_end?)),
        Fact::ResponseDuration => push(out, millis(record.response_duration?)),
        Fact::ResponseTxDuration => {
            push(out, millis(record.duration?.saturating_sub(record.response_duration?)))
        }
        Fact::RouteName => push(out, record.route?),
        Fact::VirtualHostName => push(out, record.virtual_host?),
        Fact::VirtualClusterName => push(out, record.virtual_cluster?),
        Fact::FilterChainName => push(out, record.filter_chain?),
        Fact::ListenerName => push(out, record.listener?),
        Fact::ConnectionId => push(out, record.connection_id),
        Fact::StreamId => push(out, stream_id(record)),
        Fact::UniqueId => uuid(out, record.unique.rotate_left(64) ^ 1),
        Fact::Hostname => push(out, hostname()),
        Fact::TraceId => push(out, record.span?.trace_id()),
        Fact::SpanId => push(out, record.span?.span_id()),
        Fact::GrpcStatusNumber => push(out, grpc_status(record)?),
        _ => None,
    }
}

/// About the endpoint and the connection to it.
fn upstream(fact: Fact, record: &Record<'_>, out: &mut String) -> Option<()> {
    let connection = || record.upstream;
    let session = || connection()?.tls;
    let peer = || connection()?.peer;
    let local = || connection()?.local;
    let wire = || match connection() {
        Some(upstream) => upstream.wire,
        None => Some(WireBytes::default()),
    };
    let remote = || connection().and(record.upstream_host);
    match fact {
        Fact::UpstreamHost => push(out, record.upstream_host?),
        Fact::UpstreamHostName => push(out, record.upstream_hostname.or(record.upstream_host)?),
        Fact::UpstreamHostNameBare => {
            push(out, bare(record.upstream_hostname.or(record.upstream_host)?))
        }
        Fact::UpstreamRemoteAddress => push(out, remote()?),
        Fact::UpstreamRemoteIp => push(out, ip(remote()?)?),
        Fact::UpstreamRemotePort => push(out, port(remote()?)?),
        Fact::UpstreamLocalIp => push(out, ip(record.upstream_local?)?),
        Fact::UpstreamLocalPort => push(out, port(record.upstream_local?)?),
        Fact::UpstreamLocalAddress => push(out, record.upstream_local?),
        Fact::UpstreamCluster | Fact::UpstreamClusterRaw => push(out, record.upstream_cluster?),
        Fact::UpstreamAttempts => push(out, record.upstream_attempts),
        Fact::UpstreamConnectionId => {
            push(out, connection().map_or(0, |upstream: Upstream<'_>| upstream.connection_id))
        }
        Fact::UpstreamProtocol => push(out, connection()?.protocol?),
        Fact::UpstreamFailure => push(out, record.upstream_transport_failure?.replace(' ', "_")),
        Fact::UpstreamServerName => push(out, connection()?.sni?),
        Fact::UpstreamTlsVersion => push(out, session()?.version),
        Fact::UpstreamTlsCipher => push(out, session()?.cipher),
        Fact::UpstreamTlsGroup => push(out, session()?.group),
        Fact::UpstreamWireBytesReceived => push(out, wire()?.received),
        Fact::UpstreamWireBytesSent => push(out, wire()?.sent),
        Fact::UpstreamPeerSubject => push(out, peer()?.subject()),
        Fact::UpstreamPeerIssuer => push(out, peer()?.issuer()),
        Fact::UpstreamPeerCert => push(out, peer()?.pem()),
        Fact::UpstreamPeerUriSan => join(out, peer()?.uris().iter()),
        Fact::UpstreamPeerDnsSan => join(out, peer()?.dns().iter()),
        Fact::UpstreamPeerIpSan => join(out, peer()?.ips().iter()),
        Fact::UpstreamLocalUriSan => join(out, local()?.uris().iter()),
        Fact::UpstreamLocalDnsSan => join(out, local()?.dns().iter()),
        Fact::UpstreamLocalIpSan => join(out, local()?.ips().iter()),
        _ => None,
    }
}

/// About the client and the connection that it came on.
fn downstream(fact: Fact, record: &Record<'_>, out: &mut String) -> Option<()> {
    let (peer, local): (Option<&dyn Certificate>, _) = (record.peer, record.local);
    let session = || -> Option<Session> { record.tls };
    let direct = || record.downstream_direct_local.or(record.downstream_local);
    match fact {
        Fact::RemoteAddress => push(out, record.downstream_remote?),
        Fact::RemoteIp => push(out, record.downstream_remote?.ip()),
        Fact::RemotePort => push(out, record.downstream_remote?.port()),
        Fact::DirectRemoteAddress => push(out, record.downstream_direct_remote?),
        Fact::DirectRemoteIp => push(out, record.downstream_direct_remote?.ip()),
        Fact::DirectRemotePort => push(out, record.downstream_direct_remote?.port()),
        Fact::LocalAddress => push(out, record.downstream_local?),
        Fact::LocalIp => push(out, record.downstream_local?.ip()),
        Fact::LocalPort => push(out, record.downstream_local?.port()),
        Fact::DirectLocalAddress => push(out, direct()?),
        Fact::DirectLocalIp => push(out, direct()?.ip()),
        Fact::DirectLocalPort => push(out, direct()?.port()),
        Fact::DownstreamWireBytesReceived => push(out, record.wire?.received),
        Fact::DownstreamWireBytesSent => push(out, record.wire?.sent),
        Fact::PeerUriSan => join(out, peer?.uris().iter()),
        Fact::PeerDnsSan => join(out, peer?.dns().iter()),
        Fact::PeerIpSan => join(out, peer?.ips().iter()),
        Fact::PeerEmailSan => join(out, peer?.emails().iter()),
        Fact::PeerSubject => push(out, peer?.subject()),
        Fact::PeerIssuer => push(out, peer?.issuer()),
        Fact::PeerSerial => push(out, peer?.serials().first()?),
        Fact::PeerFingerprint => push(out, peer?.sha256().first()?),
        Fact::PeerFingerprintSha1 => push(out, peer?.sha1().first()?),
        Fact::PeerCert => push(out, peer?.pem()),
        Fact::PeerChainFingerprints => join(out, peer?.sha256().iter()),
        Fact::PeerChainFingerprintsSha1 => join(out, peer?.sha1().iter()),
        Fact::PeerChainSerials => join(out, peer?.serials().iter()),
        Fact::LocalUriSan => join(out, local?.uris().iter()),
        Fact::LocalDnsSan => join(out, local?.dns().iter()),
        Fact::LocalIpSan => join(out, local?.ips().iter()),
        Fact::LocalEmailSan => join(out, local?.emails().iter()),
        Fact::LocalSubject => push(out, local?.subject()),
        Fact::TlsVersion => push(out, session()?.version),
        Fact::TlsCipher => push(out, session()?.cipher),
        Fact::TlsGroup => push(out, session()?.group),
        Fact::DownstreamFailure => {
            push(out, record.downstream_transport_failure?.replace(' ', "_"))
        }
        Fact::ServerName => push(out, record.sni?),
        _ => None,
    }
}

/// `x-request-id`, else random.
pub fn stream_id(record: &Record<'_>) -> String {
    let id = record.request_headers.and_then(|headers| headers.get("x-request-id"));
    match id.and_then(|id| id.to_str().ok()) {
        Some(id) => id.to_owned(),
        None => {
            let mut out = String::with_capacity(36);
            let _ = uuid(&mut out, record.unique);
            out
        }
    }
}

/// With commas between.
fn join<T: Display>(out: &mut String, items: impl Iterator<Item = T>) -> Option<()> {
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        write!(out, "{item}").ok()?;
    }
    Some(())
}

/// Names and values, as Envoy counts headers.
fn bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

/// Headers of the request with `:method`, `:path`, `:authority` and `:scheme`.
pub fn request_bytes(record: &Record<'_>) -> usize {
    let Some(headers) = record.request_headers else { return 0 };
    let pseudo = [
        (":method", record.method),
        (":path", record.path),
        (":scheme", record.scheme),
        (":authority", record.authority.filter(|_| !headers.contains_key("host"))),
    ];
    let pseudo = pseudo.into_iter().filter_map(|(name, value)| Some(name.len() + value?.len()));
    // `host` is `:authority` there.
    let renamed = if headers.contains_key("host") { ":authority".len() - "host".len() } else { 0 };
    bytes(headers) + pseudo.sum::<usize>() + renamed
}

/// Headers of the response with `:status`.
pub fn response_bytes(record: &Record<'_>) -> usize {
    record.response_headers.map_or(0, |headers| bytes(headers) + ":status".len() + 3)
}

/// The address in `IP:PORT`; IPv6 without its brackets. None: it is no such thing, as a Unix socket.
fn ip(address: &str) -> Option<IpAddr> {
    Some(address.parse::<SocketAddr>().ok()?.ip())
}

fn port(address: &str) -> Option<u16> {
    Some(address.parse::<SocketAddr>().ok()?.port())
}

/// A host name or an address without its port.
fn bare(host: &str) -> String {
    match (ip(host), host.rsplit_once(':')) {
        (Some(ip), _) => ip.to_string(),
        (None, Some((name, port))) if port.parse::<u16>().is_ok() => name.to_owned(),
        _ => host.to_owned(),
    }
}

/// A version 4 UUID.
fn uuid(out: &mut String, random: u128) -> Option<()> {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    push(out, parts.join("-"))
}

fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = rustix::system::uname();
        name.nodename().to_string_lossy().into_owned()
    })
}
