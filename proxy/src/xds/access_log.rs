//! Entries of Envoy's access log service (`envoy.service.accesslog.v3`).

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::HeaderName;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::data::accesslog::v3 as data;
use pillion_xds::envoy::service::accesslog::v3 as pb;
use prost::Message as _;

use crate::model::access_log::{LogEntries, LogService};
use crate::telemetry::access_log::{self, remote::Encode};
use crate::telemetry::format::{self, Certificate, LogKind, Record};

/// Writes entries in the name of a node.
#[derive(Debug)]
pub struct Entries {
    node: core::Node,
}

impl Entries {
    /// In the name of this node.
    pub fn new(node: core::Node) -> Self {
        Self { node }
    }
}

impl Encode for Entries {
    fn entry(&self, service: &LogService, record: &Record<'_>) -> Vec<u8> {
        match &service.entries {
            LogEntries::Tcp | LogEntries::OpenTelemetry { .. } => {
                tcp(service, record).encode_to_vec()
            }
            LogEntries::Http { request_headers, response_headers, response_trailers } => {
                let wanted = [request_headers, response_headers, response_trailers];
                http(service, record, wanted.map(Vec::as_slice)).encode_to_vec()
            }
        }
    }

    fn message(&self, service: &LogService, entries: &[Vec<u8>]) -> Vec<u8> {
        use pb::stream_access_logs_message as message;
        let log_entries = match &service.entries {
            LogEntries::Http { .. } => {
                message::LogEntries::HttpLogs(message::HttpAccessLogEntries {
                    log_entry: decoded(entries),
                })
            }
            LogEntries::Tcp | LogEntries::OpenTelemetry { .. } => {
                message::LogEntries::TcpLogs(message::TcpAccessLogEntries {
                    log_entry: decoded(entries),
                })
            }
        };
        pb::StreamAccessLogsMessage {
            identifier: Some(message::Identifier {
                node: Some(self.node.clone()),
                log_name: service.name.to_string(),
            }),
            log_entries: Some(log_entries),
        }
        .encode_to_vec()
    }
}

/// What was encoded here before.
fn decoded<M: prost::Message + Default>(entries: &[Vec<u8>]) -> Vec<M> {
    entries.iter().filter_map(|entry| M::decode(entry.as_slice()).ok()).collect()
}

fn tcp(service: &LogService, record: &Record<'_>) -> data::TcpAccessLogEntry {
    data::TcpAccessLogEntry {
        common_properties: Some(common(service, record)),
        connection_properties: Some(data::ConnectionProperties {
            received_bytes: record.bytes_received,
            sent_bytes: record.bytes_sent,
        }),
    }
}

fn http(
    service: &LogService,
    record: &Record<'_>,
    [request, response, trailers]: [&[HeaderName]; 3],
) -> data::HttpAccessLogEntry {
    use data::http_access_log_entry::HttpVersion;
    let version = match record.protocol {
        Some("HTTP/1.0") => HttpVersion::Http10,
        Some("HTTP/1.1") => HttpVersion::Http11,
        Some("HTTP/2") => HttpVersion::Http2,
        _ => HttpVersion::ProtocolUnspecified,
    };
    let header = |name: &str| {
        let value = record.request_headers.and_then(|headers| headers.get(name));
        value.map_or_else(String::new, |value| String::from_utf8_lossy(value.as_bytes()).into())
    };
    let method = record.method.and_then(core::RequestMethod::from_str_name);
    data::HttpAccessLogEntry {
        common_properties: Some(common(service, record)),
        protocol_version: version.into(),
        request: Some(data::HttpRequestProperties {
            request_method: method.unwrap_or(core::RequestMethod::MethodUnspecified).into(),
            scheme: record.scheme.unwrap_or_default().to_owned(),
            authority: record.authority.unwrap_or_default().to_owned(),
            path: record.path.unwrap_or_default().to_owned(),
            user_agent: header("user-agent"),
            referer: header("referer"),
            forwarded_for: header("x-forwarded-for"),
            request_id: header("x-request-id"),
            original_path: header("x-envoy-original-path"),
            request_headers_bytes: format::request_bytes(record) as u64,
            request_body_bytes: record.bytes_received,
            request_headers: chosen(record.request_headers, request),
            ..data::HttpRequestProperties::default()
        }),
        response: Some(data::HttpResponseProperties {
            response_code: record.status.map(u32::from),
            response_headers_bytes: format::response_bytes(record) as u64,
            response_body_bytes: record.bytes_sent,
            response_headers: chosen(record.response_headers, response),
            response_trailers: chosen(record.response_trailers, trailers),
            response_code_details: record.details.unwrap_or_default().to_owned(),
            ..data::HttpResponseProperties::default()
        }),
    }
}

/// Headers that are wanted and there, several lines as one.
fn chosen(
    headers: Option<&HeaderMap>,
    wanted: &[HeaderName],
) -> std::collections::HashMap<String, String> {
    let Some(headers) = headers else { return Default::default() };
    let lines = |name: &HeaderName| {
        let all: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        (!all.is_empty()).then(|| (name.to_string(), all.join(",")))
    };
    wanted.iter().filter_map(lines).collect()
}

fn common(service: &LogService, record: &Record<'_>) -> data::AccessLogCommon {
    let upstream = record.upstream;
    let wire = upstream.and_then(|upstream| upstream.wire).unwrap_or_default();
    let downstream = record.wire.unwrap_or_default();
    data::AccessLogCommon {
        downstream_remote_address: record.downstream_remote.map(address),
        downstream_direct_remote_address: record.downstream_direct_remote.map(address),
        downstream_local_address: record.downstream_local.map(address),
        tls_properties: record.tls.map(|_| tls(record)),
        start_time: record.start.map(timestamp),
        time_to_last_rx_byte: record.request_duration.map(duration),
        time_to_first_upstream_tx_byte: record.times.send_start.map(duration),
        time_to_last_upstream_tx_byte: record.times.send_end.map(duration),
        time_to_first_upstream_rx_byte: record.response_duration.map(duration),
        time_to_last_upstream_rx_byte: record.times.response_end.map(duration),
        time_to_first_downstream_tx_byte: record.times.reply_start.map(duration),
        time_to_last_downstream_tx_byte: record.duration.map(duration),
        upstream_remote_address: parsed(record.upstream_host),
        upstream_local_address: parsed(record.upstream_local),
        upstream_cluster: record.upstream_cluster.unwrap_or_default().to_owned(),
        response_flags: Some(flags(record.flags)),
        upstream_transport_failure_reason: record
            .upstream_transport_failure
            .unwrap_or_default()
            .to_owned(),
        route_name: record.route.unwrap_or_default().to_owned(),
        custom_tags: access_log::tags(service, record).into_iter().collect(),
        duration: record.duration.map(duration),
        upstream_request_attempt_count: record.upstream_attempts,
        connection_termination_details: record.termination.unwrap_or_default().to_owned(),
        stream_id: format::stream_id(record),
        downstream_transport_failure_reason: record
            .downstream_transport_failure
            .unwrap_or_default()
            .to_owned(),
        downstream_wire_bytes_sent: downstream.sent,
        downstream_wire_bytes_received: downstream.received,
        upstream_wire_bytes_sent: wire.sent,
        upstream_wire_bytes_received: wire.received,
        access_log_type: kind(record.kind).into(),
        ..data::AccessLogCommon::default()
    }
}

fn tls(record: &Record<'_>) -> data::TlsProperties {
    use data::tls_properties::TlsVersion;
    let session = record.tls;
    let version = match session.map(|session| session.version) {
        Some("TLSv1.3") => TlsVersion::TlSv13,
        Some("TLSv1.2") => TlsVersion::TlSv12,
        _ => TlsVersion::VersionUnspecified,
    };
    data::TlsProperties {
        tls_version: version.into(),
        tls_cipher_suite: session.map(|session| session.cipher_number.into()),
        tls_sni_hostname: record.sni.unwrap_or_default().to_owned(),
        local_certificate_properties: record.local.map(certificate),
        peer_certificate_properties: record.peer.map(certificate),
        ..data::TlsProperties::default()
    }
}

fn certificate(certificate: &dyn Certificate) -> data::tls_properties::CertificateProperties {
    use data::tls_properties::certificate_properties::{SubjectAltName, subject_alt_name::San};
    let uris = certificate.uris().iter().map(|name| San::Uri(name.clone()));
    let dns = certificate.dns().iter().map(|name| San::Dns(name.clone()));
    data::tls_properties::CertificateProperties {
        subject_alt_name: uris.chain(dns).map(|san| SubjectAltName { san: Some(san) }).collect(),
        subject: certificate.subject().to_owned(),
        issuer: certificate.issuer().to_owned(),
    }
}

fn flags(flags: &[&'static str]) -> data::ResponseFlags {
    use data::response_flags::{Unauthorized, unauthorized::Reason};
    let has = |flag: &str| flags.contains(&flag);
    data::ResponseFlags {
        failed_local_healthcheck: has("LH"),
        no_healthy_upstream: has("UH"),
        upstream_request_timeout: has("UT"),
        local_reset: has("LR"),
        upstream_remote_reset: has("UR"),
        upstream_connection_failure: has("UF"),
        upstream_connection_termination: has("UC"),
        upstream_overflow: has("UO"),
        no_route_found: has("NR"),
        delay_injected: has("DI"),
        fault_injected: has("FI"),
        rate_limited: has("RL"),
        unauthorized_details: has("UAEX")
            .then(|| Unauthorized { reason: Reason::ExternalService.into() }),
        rate_limit_service_error: has("RLSE"),
        downstream_connection_termination: has("DC"),
        upstream_retry_limit_exceeded: has("URX"),
        stream_idle_timeout: has("SI"),
        invalid_envoy_request_headers: has("IH"),
        downstream_protocol_error: has("DPE"),
        upstream_max_stream_duration_reached: has("UMSDR"),
        response_from_cache_filter: has("RFCF"),
        no_filter_config_found: has("NFCF"),
        duration_timeout: has("DT"),
        upstream_protocol_error: has("UPE"),
        no_cluster_found: has("NC"),
        overload_manager: has("OM"),
        dns_resolution_failure: has("DF"),
        downstream_remote_reset: has("DR"),
    }
}

fn kind(kind: LogKind) -> data::AccessLogType {
    use data::AccessLogType as Type;
    match kind {
        LogKind::DownstreamEnd => Type::DownstreamEnd,
        LogKind::DownstreamStart => Type::DownstreamStart,
        LogKind::DownstreamPeriodic => Type::DownstreamPeriodic,
        LogKind::TunnelEstablished => Type::DownstreamTunnelSuccessfullyEstablished,
        LogKind::TcpConnected => Type::TcpUpstreamConnected,
        LogKind::TcpPeriodic => Type::TcpPeriodic,
        LogKind::TcpEnd => Type::TcpConnectionEnd,
    }
}

fn address(address: SocketAddr) -> core::Address {
    use core::socket_address::PortSpecifier;
    let socket = core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
        ..core::SocketAddress::default()
    };
    core::Address { address: Some(core::address::Address::SocketAddress(socket)) }
}

fn parsed(text: Option<&str>) -> Option<core::Address> {
    let text = text?;
    match text.parse() {
        Ok(socket) => Some(address(socket)),
        Err(_) => {
            let pipe = core::Pipe { path: text.to_owned(), ..core::Pipe::default() };
            Some(core::Address { address: Some(core::address::Address::Pipe(pipe)) })
        }
    }
}

fn timestamp(time: SystemTime) -> prost_types::Timestamp {
    time.into()
}

fn duration(time: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::collector::{Collector, CollectorProtocol};

    #[test]
    fn an_entry_says_what_was_asked_for() {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", "curl".parse().unwrap());
        headers.append("x-a", "1".parse().unwrap());
        headers.append("x-a", "2".parse().unwrap());
        let collector = Collector {
            cluster: "als".into(),
            authority: "als".into(),
            protocol: CollectorProtocol::Grpc,
            headers: Vec::new(),
        };
        let service = LogService {
            collector,
            name: "log".into(),
            flush_interval: Duration::from_secs(1),
            buffer_bytes: 1,
            entries: LogEntries::Http {
                request_headers: vec!["x-a".parse().unwrap(), "x-no".parse().unwrap()],
                response_headers: Vec::new(),
                response_trailers: Vec::new(),
            },
            tags: Vec::new(),
        };
        let record = Record {
            method: Some("GET"),
            protocol: Some("HTTP/2"),
            request_headers: Some(&headers),
            status: Some(503),
            flags: &["UF", "URX"],
            ..Record::default()
        };
        let entries = Entries::new(core::Node { id: "me".into(), ..core::Node::default() });
        let bytes = entries.message(&service, &[entries.entry(&service, &record)]);
        let message = pb::StreamAccessLogsMessage::decode(bytes.as_slice()).unwrap();
        let identifier = message.identifier.unwrap();
        assert_eq!(
            (identifier.log_name.as_str(), identifier.node.unwrap().id.as_str()),
            ("log", "me")
        );
        let Some(pb::stream_access_logs_message::LogEntries::HttpLogs(logs)) = message.log_entries
        else {
            panic!("no HTTP entries")
        };
        let [entry] = logs.log_entry.as_slice() else { panic!("{logs:?}") };
        let request = entry.request.as_ref().unwrap();
        assert_eq!(request.request_method(), core::RequestMethod::Get);
        assert_eq!(
            (request.user_agent.as_str(), &*request.request_headers["x-a"]),
            ("curl", "1,2")
        );
        let flags = entry.common_properties.as_ref().unwrap().response_flags.as_ref().unwrap();
        assert!(flags.upstream_connection_failure && flags.upstream_retry_limit_exceeded);
        assert!(!flags.no_route_found);
    }
}
