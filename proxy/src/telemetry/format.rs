//! Filling in format strings: what each command operator says about an exchange.

mod fact;
mod noted;
mod record;

use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use percent_encoding::percent_decode_str;

pub use fact::{request_bytes, response_bytes, stream_id};
pub use noted::json;
pub use record::{Certificate, LogKind, Record, Session, Times, Upstream, WireBytes};

use super::{environment, time};
use crate::model::format::{
    GrpcForm, Header, Moment, Operator, PathSource, Piece, Point, Template, Unit,
};

/// Append a template's text.
pub fn write(template: &Template, record: &Record<'_>, out: &mut String) {
    let start = out.len();
    pieces(template, record, out);
    if let Some(otherwise) = &template.otherwise
        && matches!(out.get(start..), Some("" | "-"))
    {
        out.truncate(start);
        out.push_str(otherwise);
    }
}

fn pieces(template: &Template, record: &Record<'_>, out: &mut String) {
    for piece in &template.pieces {
        match piece {
            Piece::Literal(text) => out.push_str(text),
            Piece::Operator(operator, limit) => {
                let start = out.len();
                if value(operator, record, out).is_none() {
                    out.truncate(start);
                    out.push_str(if template.omit_empty { "" } else { "-" });
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
            cut_query(out, start)
        }
        Operator::Path(with_query, source) => {
            let start = out.len();
            push(out, path(*source, record)?)?;
            if *with_query { Some(()) } else { cut_query(out, start) }
        }
        Operator::Response(first, other) => either(first, other.as_ref(), |header| match header {
            Header::Status => push(out, record.response_status.or(record.status)?),
            header => lookup(record.response_headers?, header, out),
        }),
        Operator::Trailer(first, other) => {
            either(first, other.as_ref(), |header| lookup(record.response_trailers?, header, out))
        }
        Operator::Time(moment, format) => {
            time::write(self::moment(*moment, record)?, format.as_deref(), out);
            Some(())
        }
        Operator::Between(from, to, unit) => {
            let took = point(*to, record)?.checked_sub(point(*from, record)?)?;
            push(out, in_unit(took, *unit))
        }
        Operator::QueryParameter(name) => {
            let (_, query) = path(PathSource::OriginalOrCurrent, record)?.split_once('?')?;
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(key, _)| key == name)?;
            push(out, percent_decode_str(value).decode_utf8_lossy())
        }
        Operator::Query => {
            push(out, path(PathSource::OriginalOrCurrent, record)?.split_once('?')?.1)
        }
        Operator::ServerNameOrHost(host_first) => push(out, server_name(*host_first, record)?),
        Operator::GrpcStatus(form) => {
            let code = grpc_status(record)?;
            match form {
                GrpcForm::Camel => push(out, grpc_name(code)),
                GrpcForm::Snake => push(out, snake(grpc_name(code))),
                GrpcForm::Number => push(out, code),
            }
        }
        Operator::DynamicMetadata(namespace, path) => {
            noted::metadata(&record.dynamic?.metadata, namespace, path, out)
        }
        Operator::UpstreamMetadata(namespace, path) => {
            noted::metadata(record.upstream_metadata?, namespace, path, out)
        }
        Operator::FilterState(key, plain) => noted::state(record, key, *plain, out),
        Operator::Environment(name) => push(out, environment::get(name).unwrap_or("-")),
        Operator::Fact(fact) => fact::write(*fact, record, out),
    }
}

/// Whether an operator's value is a number in typed JSON.
pub fn is_number(operator: &Operator) -> bool {
    match operator {
        Operator::GrpcStatus(GrpcForm::Number) | Operator::Between(..) => true,
        Operator::Fact(fact) => fact.is_number(),
        _ => false,
    }
}

/// `grpc-status` of a gRPC request: from the trailers, in a trailers-only answer from the headers,
/// else what the HTTP status means.
pub fn grpc_status(record: &Record<'_>) -> Option<u32> {
    if record.grpc { any_grpc_status(record) } else { None }
}

/// The same for whatever kind of request: access log filters ask so.
pub(super) fn any_grpc_status(record: &Record<'_>) -> Option<u32> {
    told_grpc_status(record.response_trailers, record.response_headers)
        .or_else(|| record.status.map(as_grpc))
}

/// `grpc-status` as trailers or headers tell it.
pub fn told_grpc_status(trailers: Option<&HeaderMap>, headers: Option<&HeaderMap>) -> Option<u32> {
    let found =
        |headers: Option<&HeaderMap>| headers?.get("grpc-status")?.to_str().ok()?.parse().ok();
    found(trailers).or_else(|| found(headers))
}

/// What an HTTP status means in gRPC (gRPC: "HTTP to gRPC Status Code Mapping").
fn as_grpc(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn path<'a>(source: PathSource, record: &Record<'a>) -> Option<&'a str> {
    let original = || {
        let headers = record.request_headers?;
        headers.get("x-envoy-original-path")?.to_str().ok()
    };
    match source {
        PathSource::Current => record.path,
        PathSource::Original => original(),
        PathSource::OriginalOrCurrent => original().or(record.path),
    }
}

fn cut_query(out: &mut String, start: usize) -> Option<()> {
    if let Some(query) = out.get(start..)?.find('?') {
        out.truncate(start + query);
    }
    Some(())
}

fn moment(moment: Moment, record: &Record<'_>) -> Option<SystemTime> {
    match moment {
        Moment::Start => record.start,
        Moment::Emit => Some(record.start? + record.duration?),
        Moment::PeerCertStart => record.peer?.validity().0,
        Moment::PeerCertEnd => record.peer?.validity().1,
        Moment::UpstreamCertStart => record.upstream?.peer?.validity().0,
        Moment::UpstreamCertEnd => record.upstream?.peer?.validity().1,
    }
}

/// From the start to there.
fn point(point: Point, record: &Record<'_>) -> Option<Duration> {
    match point {
        Point::RequestStart => Some(Duration::ZERO),
        Point::RequestEnd => record.request_duration,
        Point::SendStart => record.times.send_start,
        Point::SendEnd => record.times.send_end,
        Point::ResponseStart => record.response_duration,
        Point::ResponseEnd => record.times.response_end,
        Point::ReplyStart => record.times.reply_start,
        Point::ReplyEnd => record.duration,
    }
}

fn in_unit(took: Duration, unit: Unit) -> u128 {
    match unit {
        Unit::Millis => took.as_millis(),
        Unit::Micros => took.as_micros(),
        Unit::Nanos => took.as_nanos(),
    }
}

fn either(
    first: &Header,
    other: Option<&Header>,
    mut write: impl FnMut(&Header) -> Option<()>,
) -> Option<()> {
    write(first).or_else(|| write(other?))
}

/// What TLS asked for and the host: the one, else the other.
fn server_name<'a>(host_first: bool, record: &Record<'a>) -> Option<&'a str> {
    let (name, host) = (record.sni.filter(|name| !name.is_empty()), record.authority);
    let (first, other) = if host_first { (host, name) } else { (name, host) };
    first.or(other)
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

fn push(out: &mut String, value: impl Display) -> Option<()> {
    write!(out, "{value}").ok()
}

/// Cut what was appended since `start` to `limit` characters.
fn truncate(out: &mut String, start: usize, limit: usize) {
    if let Some((at, _)) = out[start..].char_indices().nth(limit) {
        out.truncate(start + at);
    }
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

/// `NotFound` as `NOT_FOUND`.
fn snake(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 4);
    let mut lower = false;
    for c in camel.chars() {
        if c.is_ascii_uppercase() && lower {
            out.push('_');
        }
        lower = c.is_ascii_lowercase();
        out.push(c.to_ascii_uppercase());
    }
    out
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
        assert_eq!(line("%GRPC_STATUS(SNAKE_STRING)%", &record), "UNAVAILABLE");
        assert_eq!(line("%QUERY_PARAMS% %ENVIRONMENT(NO_SUCH)%", &record), "q=1&r=2 -");
        assert_eq!(line("%ROUTE_NAME%|%RESPONSE_FLAGS%|%RESPONSE_CODE%", &record), "-|-|0");
    }

    #[test]
    fn endpoints_and_clients_are_told_by_what_is_known_of_them() {
        use crate::model::metadata::{Fields, Metadata, Value};
        let book = Fields::from([("title".to_owned(), Value::Text("tea".to_owned()))]);
        let shelf = Fields::from([("book".to_owned(), Value::Struct(book))]);
        let metadata = Metadata::from([("shelf".to_owned(), shelf)]);
        let record = Record {
            authority: Some("host.test"),
            upstream_metadata: Some(&metadata),
            ..Record::default()
        };
        let names = "%REQUESTED_SERVER_NAME(SNI_FIRST)% %REQUESTED_SERVER_NAME(HOST_FIRST)%";
        assert_eq!(line(names, &record), "host.test host.test");
        assert_eq!(line(names, &Record { sni: Some("sni.test"), ..record }), "sni.test host.test");
        let told = "%UPSTREAM_METADATA(shelf:book:title)% %METADATA(UPSTREAM_HOST:shelf)%";
        assert_eq!(line(told, &record), r#"tea {"book":{"title":"tea"}}"#);
        assert_eq!(line("%METADATA(DYNAMIC:shelf)%", &record), "-");
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
        let upstream = Upstream {
            connection_id: 7,
            protocol: Some("HTTP/2"),
            tls: None,
            sni: None,
            peer: None,
            local: None,
            wire: None,
        };
        let record = Record { upstream: Some(upstream), ..record };
        let format = "%RESPONSE_FLAGS_LONG% %ACCESS_LOG_TYPE% \
                      %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT% %UPSTREAM_LOCAL_PORT%";
        assert_eq!(line(format, &record), want);
        assert_eq!(line("%RESPONSE_FLAGS_LONG%", &Record::default()), "-");
        let end = Record { kind: LogKind::TcpEnd, ..Record::default() };
        assert_eq!(line("%ACCESS_LOG_TYPE%", &end), "TcpConnectionEnd");
    }

    #[test]
    fn points_of_an_exchange_and_what_is_left_out() {
        let record = Record {
            duration: Some(Duration::from_micros(9_500)),
            response_duration: Some(Duration::from_micros(4_200)),
            times: Times { send_start: Some(Duration::from_micros(1_100)), ..Times::default() },
            unique: u128::MAX,
            ..Record::default()
        };
        let format = "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)% \
                      %COMMON_DURATION(DS_RX_BEG:DS_TX_END:ms)% \
                      %COMMON_DURATION(DS_RX_END:DS_TX_END:ns)%";
        assert_eq!(line(format, &record), "3100 9 -");
        assert_eq!(line("%UNIQUE_ID%", &record), "ffffffff-ffff-4fff-bfff-fffffffffffe");
        let template = Template::parse("[%ROUTE_NAME%%RESPONSE_CODE%]").unwrap().omitting();
        let mut out = String::new();
        write(&template, &record, &mut out);
        assert_eq!(out, "[0]");
    }
}
