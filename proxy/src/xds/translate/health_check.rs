//! `core.v3.HealthCheck`

use std::time::Duration;

use http::Method;
use pillion_xds::envoy::config::core::v3 as pb;
use pillion_xds::envoy::extensions::health_check::event_sinks::file::v3 as file;
use pillion_xds::envoy::r#type::v3 as kinds;

use super::at::At;
use super::{common, headers, matcher};
use crate::model::format::Piece;
use crate::model::headers::HeaderOps;
use crate::model::health_check::{
    Checker, Events, GrpcCheck, HealthCheck, HttpCheck, Intervals, TcpCheck,
};

/// Envoy's default for `no_traffic_interval`.
const NO_TRAFFIC: Duration = Duration::from_secs(60);
/// Envoy's default for `response_buffer_size`.
const BUFFER: u64 = 1024;

/// `health_checks`: none or one. `http2`: the cluster speaks HTTP/2, as gRPC needs.
#[expect(clippy::option_option, reason = "refused, not there and there are three things")]
pub(super) fn one(
    at: &At<'_>,
    checks: &[pb::HealthCheck],
    http2: bool,
) -> Option<Option<HealthCheck>> {
    match checks {
        [] => Some(None),
        [one] => check(&at.index(0), one, http2).map(Some),
        _ => at.refuse("expected one health check at most"),
    }
}

fn check(at: &At<'_>, config: &pb::HealthCheck, http2: bool) -> Option<HealthCheck> {
    let threshold = |name: &str, value: Option<u32>| {
        let at = at.field(name);
        let value = at.required(value)?;
        at.expect(value > 0, "must be at least 1").map(|()| value)
    };
    let timeout_at = at.field("timeout");
    let timeout = timeout_at.duration(timeout_at.required(config.timeout))?;
    timeout_at.expect(!timeout.is_zero(), "must be greater than 0")?;
    Some(HealthCheck {
        timeout,
        intervals: intervals(at, config)?,
        unhealthy_threshold: threshold("unhealthy_threshold", config.unhealthy_threshold)?,
        healthy_threshold: threshold("healthy_threshold", config.healthy_threshold)?,
        reuse_connection: config.reuse_connection.unwrap_or(true),
        port: match config.alt_port {
            Some(port) => Some(port_of(&at.field("alt_port"), port)?),
            None => None,
        },
        alpn: config.tls_options.as_ref().map_or_else(Vec::new, |tls| {
            tls.alpn_protocols.iter().map(|name| name.clone().into_bytes()).collect()
        }),
        events: events(at, config)?,
        checker: checker(at, config, http2)?,
    })
}

fn port_of(at: &At<'_>, port: u32) -> Option<u16> {
    let fits = u16::try_from(port).ok().filter(|port| *port > 0);
    fits.or_else(|| at.refuse(format!("{port} is no port: expected 1 to 65535")))
}

fn intervals(at: &At<'_>, config: &pb::HealthCheck) -> Option<Intervals> {
    let healthy_at = at.field("interval");
    let healthy = healthy_at.duration(healthy_at.required(config.interval))?;
    healthy_at.expect(!healthy.is_zero(), "must be greater than 0")?;
    let other = |name: &str, value: Option<prost_types::Duration>, default: Duration| {
        let Some(value) = value else { return Some(default) };
        let at = at.field(name);
        let value = at.duration(Some(value))?;
        at.expect(!value.is_zero(), "must be greater than 0").map(|()| value)
    };
    let jitter = |name: &str, value| at.field(name).duration(value).unwrap_or_default();
    let unhealthy = other("unhealthy_interval", config.unhealthy_interval, healthy)?;
    let no_traffic = other("no_traffic_interval", config.no_traffic_interval, NO_TRAFFIC)?;
    Some(Intervals {
        healthy,
        unhealthy,
        unhealthy_edge: other(
            "unhealthy_edge_interval",
            config.unhealthy_edge_interval,
            unhealthy,
        )?,
        healthy_edge: other("healthy_edge_interval", config.healthy_edge_interval, healthy)?,
        no_traffic,
        no_traffic_healthy: other(
            "no_traffic_healthy_interval",
            config.no_traffic_healthy_interval,
            no_traffic,
        )?,
        initial_jitter: jitter("initial_jitter", config.initial_jitter),
        jitter: jitter("interval_jitter", config.interval_jitter),
        jitter_percent: config.interval_jitter_percent,
    })
}

#[expect(clippy::option_option, reason = "refused, not there and there are three things")]
fn events(at: &At<'_>, config: &pb::HealthCheck) -> Option<Option<Events>> {
    let list_at = at.field("event_logger");
    let mut path = config.event_log_path.clone();
    match config.event_logger.as_slice() {
        [] => {}
        [one] => {
            let at = list_at.index(0);
            let at = at.field("typed_config");
            let packed = at.required(one.typed_config.as_ref())?;
            let sink: file::HealthCheckEventFileSink = common::unpack(&at, packed)?;
            at.field("event_log_path").expect(!sink.event_log_path.is_empty(), "is empty")?;
            list_at.expect(path.is_empty(), "there is an event_log_path already")?;
            path = sink.event_log_path;
        }
        _ => return list_at.refuse("expected one at most"),
    }
    Some((!path.is_empty()).then(|| Events {
        path: path.into(),
        all_failures: config.always_log_health_check_failures,
        all_successes: config.always_log_health_check_success,
    }))
}

fn checker(at: &At<'_>, config: &pb::HealthCheck, http2: bool) -> Option<Checker> {
    use pb::health_check::HealthChecker as Kind;
    match &config.health_checker {
        Some(Kind::HttpHealthCheck(config)) => {
            http(&at.field("http_health_check"), config).map(Checker::Http)
        }
        Some(Kind::TcpHealthCheck(config)) => {
            tcp(&at.field("tcp_health_check"), config).map(Checker::Tcp)
        }
        Some(Kind::GrpcHealthCheck(config)) => {
            let at = at.field("grpc_health_check");
            at.expect(http2, "the cluster must speak HTTP/2 for health checks by gRPC")?;
            Some(Checker::Grpc(GrpcCheck {
                service: config.service_name.clone(),
                authority: config.authority.as_str().into(),
                metadata: ops(&at, ("initial_metadata", &config.initial_metadata), ("", &[]))?,
            }))
        }
        Some(Kind::CustomHealthCheck(_)) => {
            at.field("custom_health_check").refuse("is not supported")
        }
        None => at.refuse("expected http_health_check, tcp_health_check or grpc_health_check"),
    }
}

fn http(at: &At<'_>, config: &pb::health_check::HttpHealthCheck) -> Option<HttpCheck> {
    let path_at = at.field("path");
    path_at.expect(config.path.starts_with('/'), "must start with `/`")?;
    let Ok(path) = config.path.parse() else { return path_at.refuse("is no path") };
    let receive = payloads(&at.field("receive"), &config.receive)?;
    let buffer = config.response_buffer_size.unwrap_or(BUFFER);
    let wanted: usize = receive.iter().map(Vec::len).sum();
    let fits = buffer == 0 || wanted as u64 <= buffer;
    at.field("receive").expect(fits, "is longer than response_buffer_size")?;
    let expected = ranges(&at.field("expected_statuses"), &config.expected_statuses)?;
    Some(HttpCheck {
        host: config.host.as_str().into(),
        path,
        method: method(&at.field("method"), config.method())?,
        http2: match config.codec_client_type() {
            kinds::CodecClientType::Http1 => false,
            kinds::CodecClientType::Http2 => true,
            kinds::CodecClientType::Http3 => {
                return at.field("codec_client_type").refuse("HTTP/3 is not supported");
            }
        },
        send: match &config.send {
            Some(payload) => bytes(&at.field("send"), payload)?,
            None => Vec::new(),
        },
        receive,
        buffer: usize::try_from(buffer).unwrap_or(usize::MAX),
        headers: ops(
            at,
            ("request_headers_to_add", &config.request_headers_to_add),
            ("request_headers_to_remove", &config.request_headers_to_remove),
        )?,
        expected: if expected.is_empty() { vec![(200, 201)] } else { expected },
        retriable: ranges(&at.field("retriable_statuses"), &config.retriable_statuses)?,
        service: match &config.service_name_matcher {
            Some(wanted) => Some(matcher::string(&at.field("service_name_matcher"), wanted)?),
            None => None,
        },
    })
}

fn tcp(at: &At<'_>, config: &pb::health_check::TcpHealthCheck) -> Option<TcpCheck> {
    Some(TcpCheck {
        send: match &config.send {
            Some(payload) => bytes(&at.field("send"), payload)?,
            None => Vec::new(),
        },
        receive: payloads(&at.field("receive"), &config.receive)?,
    })
}

fn method(at: &At<'_>, method: pb::RequestMethod) -> Option<Method> {
    use pb::RequestMethod as Known;
    Some(match method {
        Known::MethodUnspecified | Known::Get => Method::GET,
        Known::Head => Method::HEAD,
        Known::Post => Method::POST,
        Known::Put => Method::PUT,
        Known::Delete => Method::DELETE,
        Known::Options => Method::OPTIONS,
        Known::Trace => Method::TRACE,
        Known::Patch => Method::PATCH,
        Known::Connect => return at.refuse("CONNECT is no method of health checks"),
    })
}

/// Header changes whose values are literal.
fn ops(
    at: &At<'_>,
    (add_field, add): (&str, &[pb::HeaderValueOption]),
    remove: (&str, &[String]),
) -> Option<HeaderOps> {
    let ops = headers::ops(at, (add_field, add), remove);
    let at = at.field(add_field);
    for (index, add) in ops.add.iter().enumerate() {
        let literal = |piece: &Piece| matches!(piece, Piece::Literal(_));
        let fine = add.value.pieces.iter().all(literal);
        at.index(index).expect(fine, "command operators are not supported in health checks")?;
    }
    Some(ops)
}

/// All of them, or the refusal of one.
fn payloads(at: &At<'_>, list: &[pb::health_check::Payload]) -> Option<Vec<Vec<u8>>> {
    list.iter().enumerate().map(|(index, payload)| bytes(&at.index(index), payload)).collect()
}

fn bytes(at: &At<'_>, payload: &pb::health_check::Payload) -> Option<Vec<u8>> {
    use pb::health_check::payload::Payload as Kind;
    match &payload.payload {
        Some(Kind::Binary(bytes)) => Some(bytes.clone()),
        Some(Kind::Text(digits)) => {
            let made = (!digits.is_empty()).then(|| hexadecimal(digits)).flatten();
            made.or_else(|| at.field("text").refuse("expected pairs of hexadecimal digits"))
        }
        None => at.refuse("expected text or binary"),
    }
}

fn hexadecimal(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()
        }
        _ => None,
    };
    pairs.map(byte).collect()
}

fn ranges(at: &At<'_>, list: &[kinds::Int64Range]) -> Option<Vec<(u16, u16)>> {
    let one = |(index, range): (usize, &kinds::Int64Range)| {
        let at = at.index(index);
        at.expect(range.start < range.end, "start must be less than end, which is not in it")?;
        at.expect(range.start >= 100 && range.end <= 600, "expected statuses from 100 to 599")?;
        Some((u16::try_from(range.start).ok()?, u16::try_from(range.end).ok()?))
    };
    list.iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_hexadecimal() {
        assert_eq!(hexadecimal("50494e47"), Some(b"PING".to_vec()));
        assert_eq!(hexadecimal("5049F"), None);
        assert_eq!(hexadecimal("+1"), None);
    }
}
