//! Filling in format strings: what each command operator says about an exchange.

use std::fmt::{Display, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::reason::long_flag;
use super::time;
use super::trace::Span;
use crate::model::duration::millis;
use crate::model::format::{Fact, Header, Operator, Piece, Template};

/// What is known about an exchange or a TCP connection. What is not known is written as `-`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// When it began.
    pub start: Option<SystemTime>,
    /// From there until now.
    pub duration: Option<Duration>,
    /// To the last byte of the request.
    pub request_duration: Option<Duration>,
    /// To the first byte of the response.
    pub response_duration: Option<Duration>,
    /// `:method`
    pub method: Option<&'a str>,
    /// `:path`, with its query.
    pub path: Option<&'a str>,
    /// `:authority`
    pub authority: Option<&'a str>,
    /// `:scheme`
    pub scheme: Option<&'a str>,
    /// `HTTP/1.1`, `HTTP/2`
    pub protocol: Option<&'a str>,
    /// Of the request.
    pub request_headers: Option<&'a HeaderMap>,
    /// Of the response.
    pub response_headers: Option<&'a HeaderMap>,
    /// Of the response.
    pub response_trailers: Option<&'a HeaderMap>,
    /// Of the response. None: there was none.
    pub status: Option<u16>,
    /// Response flags.
    pub flags: &'a [&'static str],
    /// Response code details.
    pub details: Option<&'a str>,
    /// The request was gRPC.
    pub grpc: bool,
    /// Bytes of the request's body.
    pub bytes_received: u64,
    /// Bytes of the response's body.
    pub bytes_sent: u64,
    /// Address of the endpoint.
    pub upstream_host: Option<&'a str>,
    /// Our end of the connection to it.
    pub upstream_local: Option<&'a str>,
    /// Name of the cluster.
    pub upstream_cluster: Option<&'a str>,
    /// Tries.
    pub upstream_attempts: u32,
    /// What failed towards the endpoint.
    pub upstream_transport_failure: Option<&'a str>,
    /// Address of the client, as far as it can be trusted.
    pub downstream_remote: Option<SocketAddr>,
    /// Address of the peer of the connection.
    pub downstream_direct_remote: Option<SocketAddr>,
    /// Address that it connected to.
    pub downstream_local: Option<SocketAddr>,
    /// The peer's certificate.
    pub peer: Peer<'a>,
    /// URI name of our own certificate.
    pub local_uri: Option<&'a str>,
    /// Server name that the client asked for.
    pub sni: Option<&'a str>,
    /// `TLSv1.3`
    pub tls_version: Option<&'a str>,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Name of the virtual host.
    pub virtual_host: Option<&'a str>,
    /// Name of the filter chain.
    pub filter_chain: Option<&'a str>,
    /// Of the downstream connection.
    pub connection_id: u64,
    /// Name that the route gives to spans.
    pub operation: Option<&'a str>,
    /// The span.
    pub span: Option<&'a Span>,
}

/// What a certificate of the peer says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'a> {
    /// URI names.
    pub uris: &'a [String],
    /// DNS names.
    pub dns: &'a [String],
    /// Subject.
    pub subject: &'a str,
    /// Issuer.
    pub issuer: &'a str,
    /// Serial number.
    pub serial: &'a str,
    /// SHA-256, hexadecimal.
    pub sha256: &'a str,
}

/// Append a template's text.
pub fn write(template: &Template, record: &Record<'_>, out: &mut String) {
    for piece in &template.pieces {
        match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Operator(operator, limit) => {
                let start = out.len();
                if value(operator, record, out).is_none() || out.len() == start {
                    out.truncate(start);
                    out.push('-');
                } else if let Some(limit) = limit {
                    truncate(out, start, *limit);
                }
            }
        }
    }
}

/// Append an operator's value. None: there is none.
pub fn value(operator: &Operator, record: &Record<'_>, out: &mut String) -> Option<()> {
    match operator {
        Operator::Request(first, other) => {
            either(first, other.as_ref(), |header| request(header, record, out))
        }
        Operator::RequestWithoutQuery(first, other) => {
            let start = out.len();
            either(first, other.as_ref(), |header| request(header, record, out))?;
            if let Some(query) = out[start..].find('?') {
                out.truncate(start + query);
            }
            Some(())
        }
        Operator::Response(first, other) => either(first, other.as_ref(), |header| match header {
            Header::Status => push(out, record.status?),
            header => lookup(record.response_headers?, header, out),
        }),
        Operator::Trailer(first, other) => {
            either(first, other.as_ref(), |header| lookup(record.response_trailers?, header, out))
        }
        Operator::StartTime(format) => {
            time::write(record.start?, format.as_deref(), out);
            Some(())
        }
        Operator::QueryParameter(name) => {
            let (_, query) = record.path?.split_once('?')?;
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(key, _)| key == name)?;
            push(out, value)
        }
        Operator::GrpcStatus(as_name) => {
            let code = grpc_status(record)?;
            if *as_name { push(out, grpc_name(code)) } else { push(out, code) }
        }
        Operator::Fact(fact) => self::fact(*fact, record, out),
    }
}

/// Whether an operator's value is a number in typed JSON.
pub fn is_number(operator: &Operator) -> bool {
    use Fact as F;
    matches!(
        operator,
        Operator::GrpcStatus(false)
            | Operator::Fact(
                F::ResponseCode
                    | F::BytesReceived
                    | F::BytesSent
                    | F::Duration
                    | F::RequestDuration
                    | F::ResponseDuration
                    | F::ResponseTxDuration
                    | F::UpstreamAttempts
                    | F::RemotePort
                    | F::LocalPort
                    | F::DirectRemotePort
                    | F::UpstreamRemotePort
                    | F::UpstreamLocalPort
                    | F::ConnectionId
                    | F::GrpcStatusNumber
            )
    )
}

fn either(
    first: &Header,
    other: Option<&Header>,
    mut write: impl FnMut(&Header) -> Option<()>,
) -> Option<()> {
    write(first).or_else(|| write(other?))
}

fn request(header: &Header, record: &Record<'_>, out: &mut String) -> Option<()> {
    match header {
        Header::Method => push(out, record.method?),
        Header::Path => push(out, record.path?),
        Header::Authority => push(out, record.authority?),
        Header::Scheme => push(out, record.scheme?),
        header => lookup(record.request_headers?, header, out),
    }
}

fn lookup(headers: &HeaderMap, header: &Header, out: &mut String) -> Option<()> {
    let Header::Name(name) = header else { return None };
    let value = headers.get(name)?;
    push(out, String::from_utf8_lossy(value.as_bytes()))
}

fn fact(fact: Fact, record: &Record<'_>, out: &mut String) -> Option<()> {
    let list = |names: &[String]| (!names.is_empty()).then(|| names.join(","));
    match fact {
        Fact::Protocol => push(out, record.protocol?),
        Fact::ResponseCode => push(out, record.status.unwrap_or(0)),
        Fact::ResponseCodeDetails => push(out, record.details?),
        Fact::ConnectionTerminationDetails => None,
        Fact::ResponseFlags => push(out, record.flags.join(",")),
        Fact::ResponseFlagsLong => {
            let long: Vec<&str> = record.flags.iter().map(|flag| long_flag(flag)).collect();
            push(out, long.join(","))
        }
        Fact::AccessLogType => {
            push(out, if record.method.is_some() { "DownstreamEnd" } else { "TcpConnectionEnd" })
        }
        Fact::BytesReceived => push(out, record.bytes_received),
        Fact::BytesSent => push(out, record.bytes_sent),
        Fact::Duration => push(out, millis(record.duration?)),
        Fact::RequestDuration => push(out, millis(record.request_duration?)),
        Fact::ResponseDuration => push(out, millis(record.response_duration?)),
        Fact::ResponseTxDuration => {
            push(out, millis(record.duration?.saturating_sub(record.response_duration?)))
        }
        Fact::RouteName => push(out, record.route?),
        Fact::VirtualHostName => push(out, record.virtual_host?),
        Fact::UpstreamHost | Fact::UpstreamRemoteAddress => push(out, record.upstream_host?),
        Fact::UpstreamRemoteIp => push(out, ip(record.upstream_host?)?),
        Fact::UpstreamRemotePort => push(out, port(record.upstream_host?)?),
        Fact::UpstreamLocalIp => push(out, ip(record.upstream_local?)?),
        Fact::UpstreamLocalPort => push(out, port(record.upstream_local?)?),
        Fact::UpstreamLocalAddress => push(out, record.upstream_local?),
        Fact::UpstreamCluster | Fact::UpstreamClusterRaw => push(out, record.upstream_cluster?),
        Fact::UpstreamAttempts => push(out, record.upstream_attempts),
        Fact::UpstreamFailure => push(out, record.upstream_transport_failure?),
        Fact::RemoteAddress => push(out, record.downstream_remote?),
        Fact::RemoteIp => push(out, record.downstream_remote?.ip()),
        Fact::DirectRemotePort => push(out, record.downstream_direct_remote?.port()),
        Fact::RemotePort => push(out, record.downstream_remote?.port()),
        Fact::DirectRemoteAddress => push(out, record.downstream_direct_remote?),
        Fact::DirectRemoteIp => push(out, record.downstream_direct_remote?.ip()),
        Fact::LocalAddress => push(out, record.downstream_local?),
        Fact::LocalIp => push(out, record.downstream_local?.ip()),
        Fact::LocalPort => push(out, record.downstream_local?.port()),
        Fact::PeerUriSan => push(out, list(record.peer.uris)?),
        Fact::PeerDnsSan => push(out, list(record.peer.dns)?),
        Fact::PeerSubject => push(out, record.peer.subject),
        Fact::PeerIssuer => push(out, record.peer.issuer),
        Fact::PeerSerial => push(out, record.peer.serial),
        Fact::PeerFingerprint => push(out, record.peer.sha256),
        Fact::LocalUriSan => push(out, record.local_uri?),
        Fact::TlsVersion => push(out, record.tls_version?),
        Fact::ServerName => push(out, record.sni?),
        Fact::ConnectionId => push(out, record.connection_id),
        Fact::FilterChainName => push(out, record.filter_chain?),
        Fact::Hostname => push(out, hostname()),
        Fact::TraceId => push(out, record.span?.trace_id()),
        Fact::SpanId => push(out, record.span?.span_id()),
        Fact::GrpcStatusNumber => push(out, grpc_status(record)?),
    }
}

/// The address in `IP:PORT`; IPv6 without its brackets. None: it is no such thing, as a Unix socket.
fn ip(address: &str) -> Option<IpAddr> {
    Some(address.parse::<SocketAddr>().ok()?.ip())
}

fn port(address: &str) -> Option<u16> {
    Some(address.parse::<SocketAddr>().ok()?.port())
}

fn push(out: &mut String, value: impl Display) -> Option<()> {
    write!(out, "{value}").ok()
}

/// Cut what was appended since `start` to `limit` characters.
fn truncate(out: &mut String, start: usize, limit: usize) {
    if let Some((at, _)) = out[start..].char_indices().nth(limit) {
        out.truncate(start + at);
    }
}

/// `grpc-status`, from the trailers or, in a trailers-only answer, from the headers.
pub fn grpc_status(record: &Record<'_>) -> Option<u32> {
    let found =
        |headers: Option<&HeaderMap>| headers?.get("grpc-status")?.to_str().ok()?.parse().ok();
    if !record.grpc {
        return None;
    }
    found(record.response_trailers).or_else(|| found(record.response_headers))
}

fn grpc_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(code as usize).copied().unwrap_or("InvalidCode")
}

fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let name = rustix::system::uname();
        name.nodename().to_string_lossy().into_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::model::format::DEFAULT_ACCESS_LOG;

    fn line(format: &str, record: &Record<'_>) -> String {
        let mut out = String::new();
        write(&Template::parse(format).unwrap(), record, &mut out);
        out
    }

    #[test]
    fn the_default_format_writes_the_line_that_people_know() {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "curl/8".parse().unwrap());
        headers.insert("x-request-id", "id-1".parse().unwrap());
        let record = Record {
            start: Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)),
            duration: Some(Duration::from_micros(12_900)),
            method: Some("GET"),
            path: Some("/a?b"),
            authority: Some("shop"),
            protocol: Some("HTTP/1.1"),
            request_headers: Some(&headers),
            status: Some(503),
            flags: &["UF", "URX"],
            bytes_sent: 7,
            upstream_host: Some("127.0.0.1:80"),
            ..Record::default()
        };
        let want = "[2023-11-14T22:13:20.123Z] \"GET /a?b HTTP/1.1\" 503 UF,URX 0 7 12 - \"-\" \
                    \"curl/8\" \"id-1\" \"shop\" \"127.0.0.1:80\"\n";
        assert_eq!(line(DEFAULT_ACCESS_LOG, &record), want);
    }

    #[test]
    fn operators_cut_fall_back_and_say_nothing_for_what_is_unknown() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "14".parse().unwrap());
        let record = Record {
            path: Some("/über?q=1&r=2"),
            grpc: true,
            response_trailers: Some(&trailers),
            ..Record::default()
        };
        assert_eq!(line("%REQ(X-NO?:PATH):4%", &record), "/übe");
        assert_eq!(line("%PATH(NQ)% %QUERY_PARAM(r)%", &record), "/über 2");
        assert_eq!(line("%GRPC_STATUS% %GRPC_STATUS(NUMBER)%", &record), "Unavailable 14");
        assert_eq!(line("%ROUTE_NAME%|%RESPONSE_FLAGS%|%RESPONSE_CODE%", &record), "-|-|0");
    }

    #[test]
    fn long_flags_and_the_parts_of_addresses() {
        let record = Record {
            method: Some("GET"),
            flags: &["UF", "URX"],
            upstream_host: Some("[::1]:8080"),
            upstream_local: Some("/run/app.sock"),
            ..Record::default()
        };
        let want = "UpstreamConnectionFailure,UpstreamRetryLimitExceeded DownstreamEnd ::1 8080 -";
        let format = "%RESPONSE_FLAGS_LONG% %ACCESS_LOG_TYPE% \
                      %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_PORT%";
        assert_eq!(line(format, &record), want);
        assert_eq!(line("%RESPONSE_FLAGS_LONG%", &Record::default()), "-");
        assert_eq!(line("%ACCESS_LOG_TYPE%", &Record::default()), "TcpConnectionEnd");
    }
}
