//! `HttpConnectionManager`

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;

use super::at::At;
use super::{access_log, common, filter, local_reply, route, source, tracing, upstream_http};
use crate::model::Name;
use crate::model::access_log::LogMoments;
use crate::model::http::{
    ClientCertDetails, Codec, EscapedSlashes, ForwardClientCert, HttpLimits, HttpManager,
    HttpTimeouts, Inside, PathOptions, RouteSource, ServerHeader, StripPort, Underscores,
};

/// `HttpConnectionManager`
pub(super) fn manager(at: &At<'_>, config: &pb::HttpConnectionManager) -> Option<HttpManager> {
    let defaults = HttpManager::default();
    let header = |field: &str, text: &str, default: HeaderValue| match text {
        "" => Some(default),
        text => HeaderValue::from_str(text)
            .ok()
            .or_else(|| at.field(field).refuse("is no header value")),
    };
    let via = header("via", &config.via, HeaderValue::from_static(""))?;
    let upgrades = at.field("upgrade_configs");
    let upgrades = upgrades.each(&config.upgrade_configs, upgrade);
    let http1 = config.http_protocol_options.as_ref();
    check_http1(&at.field("http_protocol_options"), http1)?;
    let http2_at = at.field("http2_protocol_options");
    Some(HttpManager {
        stat_prefix: config.stat_prefix.replace(':', "_").as_str().into(),
        codec: codec(at, config)?,
        routes: routes(at, config)?,
        filters: filter::all(&at.field("http_filters"), &config.http_filters)?,
        access_log: access_log::all(&at.field("access_log"), &config.access_log),
        log_moments: log_moments(at, config)?,
        local_replies: local_reply::config(at, config.local_reply_config.as_ref())?,
        tracing: match &config.tracing {
            Some(config) => tracing::tracing(&at.field("tracing"), config)?.map(Arc::new),
            None => None,
        },
        timeouts: timeouts(at, config),
        limits: limits(at, config)?,
        http2: upstream_http::http2(&http2_at, config.http2_protocol_options.as_ref()),
        accept_http_10: http1.is_some_and(|options| options.accept_http_10),
        default_host_for_http_10: default_host(at, http1)?,
        allow_chunked_length: http1.is_some_and(|options| options.allow_chunked_length),
        title_case_headers: http1.is_some_and(upstream_http::title_case),
        server_name: header("server_name", &config.server_name, defaults.server_name)?,
        server_header: match config.server_header_transformation() {
            hcm::ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
            hcm::ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
            hcm::ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
        },
        use_remote_address: config.use_remote_address == Some(true),
        inside: inside(at, config),
        append_x_forwarded_port: config.append_x_forwarded_port,
        strip_trailing_host_dot: config.strip_trailing_host_dot,
        xff_num_trusted_hops: config.xff_num_trusted_hops,
        skip_xff_append: config.skip_xff_append,
        generate_request_id: config.generate_request_id != Some(false),
        preserve_external_request_id: config.preserve_external_request_id,
        append_local_overload: config.append_local_overload,
        always_set_request_id_in_response: config.always_set_request_id_in_response,
        forward_client_cert: forward_client_cert(config),
        client_cert_details: client_cert_details(config),
        path: path(config),
        upgrades: upgrades.into_iter().flatten().collect(),
        via: (!via.is_empty()).then_some(via),
        strip_port: strip_port(config),
        add_user_agent: false,
    })
}

/// `access_log_options`, or the deprecated fields that came before it.
fn log_moments(at: &At<'_>, config: &pb::HttpConnectionManager) -> Option<LogMoments> {
    let options = config.access_log_options.unwrap_or_default();
    let interval = (options.access_log_flush_interval, config.access_log_flush_interval);
    let start = options.flush_access_log_on_new_request || config.flush_access_log_on_new_request;
    let tunnel = options.flush_log_on_tunnel_successfully_established;
    access_log::moments(&at.field("access_log_options"), interval, (start, tunnel))
}

/// Inner None: it is turned off.
#[expect(clippy::option_option, reason = "refused, off and on are three things")]
fn upgrade(at: &At<'_>, config: &hcm::UpgradeConfig) -> Option<Option<Name>> {
    let kind = upgrade_type(&at.field("upgrade_type"), &config.upgrade_type)?;
    Some((config.enabled != Some(false)).then(|| kind.into()))
}

/// Any protocol over TCP; CONNECT-UDP is none.
pub(super) fn upgrade_type(at: &At<'_>, kind: &str) -> Option<String> {
    let kind = kind.to_ascii_lowercase();
    at.expect(!kind.is_empty(), "is empty")?;
    at.expect(kind != "connect-udp", "`connect-udp` is not supported")?;
    Some(kind)
}

/// Inner None: there is none.
#[expect(clippy::option_option, reason = "refused, none and some are three things")]
fn default_host(
    at: &At<'_>,
    options: Option<&core::Http1ProtocolOptions>,
) -> Option<Option<HeaderValue>> {
    let host = options.map_or("", |options| options.default_host_for_http_10.as_str());
    if host.is_empty() {
        return Some(None);
    }
    let at = at.field("http_protocol_options");
    HeaderValue::from_str(host)
        .ok()
        .map(Some)
        .or_else(|| at.field("default_host_for_http_10").refuse("is no header value"))
}

fn check_http1(at: &At<'_>, options: Option<&core::Http1ProtocolOptions>) -> Option<()> {
    let Some(options) = options else { return Some(()) };
    at.field("allow_absolute_url").expect(
        options.allow_absolute_url != Some(false),
        "absolute request targets are always accepted (RFC 9112 section 3.2.2)",
    )
}

fn codec(at: &At<'_>, config: &pb::HttpConnectionManager) -> Option<Codec> {
    match config.codec_type() {
        hcm::CodecType::Auto => Some(Codec::Auto),
        hcm::CodecType::Http1 => Some(Codec::Http1),
        hcm::CodecType::Http2 => Some(Codec::Http2),
        hcm::CodecType::Http3 => at.field("codec_type").refuse("HTTP/3 is not supported"),
    }
}

fn routes(at: &At<'_>, config: &pb::HttpConnectionManager) -> Option<RouteSource> {
    match &config.route_specifier {
        Some(hcm::RouteSpecifier::RouteConfig(table)) => {
            let table = route::table(&at.field("route_config"), table)?;
            Some(RouteSource::Inline(Arc::new(table)))
        }
        Some(hcm::RouteSpecifier::Rds(rds)) => {
            let at = at.field("rds");
            let name = &rds.route_config_name;
            at.field("route_config_name").expect(!name.is_empty(), "is empty")?;
            let source_at = at.field("config_source");
            source::reference(&source_at, name, rds.config_source.as_ref()).map(RouteSource::Rds)
        }
        Some(hcm::RouteSpecifier::ScopedRoutes(_)) => {
            at.field("scoped_routes").refuse("is not supported")
        }
        None => at.refuse("expected rds or route_config"),
    }
}

fn timeouts(at: &At<'_>, config: &pb::HttpConnectionManager) -> HttpTimeouts {
    let defaults = HttpTimeouts::default();
    let common_at = at.field("common_http_protocol_options");
    let common = config.common_http_protocol_options.as_ref();
    let limit = |field: &str, value, default| at.field(field).limit(value, default);
    let shared = |field: &str, value: Option<prost_types::Duration>, default: Option<Duration>| {
        common_at.field(field).limit(value, default)
    };
    HttpTimeouts {
        idle: shared("idle_timeout", common.and_then(|c| c.idle_timeout), defaults.idle),
        max_connection_duration: shared(
            "max_connection_duration",
            common.and_then(|c| c.max_connection_duration),
            None,
        ),
        max_stream_duration: shared(
            "max_stream_duration",
            common.and_then(|c| c.max_stream_duration),
            None,
        ),
        stream_idle: limit("stream_idle_timeout", config.stream_idle_timeout, defaults.stream_idle),
        request: limit("request_timeout", config.request_timeout, None),
        request_headers: limit("request_headers_timeout", config.request_headers_timeout, None),
        drain: at.field("drain_timeout").duration(config.drain_timeout).unwrap_or(defaults.drain),
    }
}

fn limits(at: &At<'_>, config: &pb::HttpConnectionManager) -> Option<HttpLimits> {
    use core::http_protocol_options::HeadersWithUnderscoresAction as Action;
    let defaults = HttpLimits::default();
    let common = config.common_http_protocol_options.as_ref();
    let kb = config.max_request_headers_kb.unwrap_or(defaults.max_request_headers_kb);
    at.field("max_request_headers_kb").expect((1..=8192).contains(&kb), "expected 1 to 8192")?;
    Some(HttpLimits {
        max_request_headers_kb: kb,
        max_headers_count: common
            .and_then(|options| options.max_headers_count)
            .unwrap_or(defaults.max_headers_count),
        max_requests_per_connection: common
            .and_then(|options| options.max_requests_per_connection)
            .filter(|limit| *limit > 0),
        underscores: match common.map(core::HttpProtocolOptions::headers_with_underscores_action) {
            None | Some(Action::Allow) => Underscores::Allow,
            Some(Action::RejectRequest) => Underscores::RejectRequest,
            Some(Action::DropHeader) => Underscores::DropHeader,
        },
    })
}

fn inside(at: &At<'_>, config: &pb::HttpConnectionManager) -> Option<Arc<Inside>> {
    let inside = config.internal_address_config.as_ref()?;
    let at = at.field("internal_address_config");
    let networks = at.field("cidr_ranges").each(&inside.cidr_ranges, common::cidr);
    Some(Arc::new(Inside { unix_sockets: inside.unix_sockets, networks }))
}

fn forward_client_cert(config: &pb::HttpConnectionManager) -> ForwardClientCert {
    use hcm::ForwardClientCertDetails as Details;
    match config.forward_client_cert_details() {
        Details::Sanitize => ForwardClientCert::Sanitize,
        Details::ForwardOnly => ForwardClientCert::ForwardOnly,
        Details::AppendForward => ForwardClientCert::AppendForward,
        Details::SanitizeSet => ForwardClientCert::SanitizeSet,
        Details::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    }
}

fn client_cert_details(config: &pb::HttpConnectionManager) -> ClientCertDetails {
    let Some(details) = &config.set_current_client_cert_details else {
        return ClientCertDetails::default();
    };
    ClientCertDetails {
        subject: details.subject == Some(true),
        cert: details.cert,
        chain: details.chain,
        dns: details.dns,
        uri: details.uri,
    }
}

fn path(config: &pb::HttpConnectionManager) -> PathOptions {
    use hcm::PathWithEscapedSlashesAction as Action;
    PathOptions {
        normalize: config.normalize_path == Some(true),
        merge_slashes: config.merge_slashes,
        escaped_slashes: match config.path_with_escaped_slashes_action() {
            Action::ImplementationSpecificDefault | Action::KeepUnchanged => EscapedSlashes::Keep,
            Action::RejectRequest => EscapedSlashes::Reject,
            Action::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
            Action::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
        },
    }
}

fn strip_port(config: &pb::HttpConnectionManager) -> StripPort {
    use hcm::StripPortMode;
    match &config.strip_port_mode {
        Some(StripPortMode::StripAnyHostPort(true)) => StripPort::Any,
        _ if config.strip_matching_host_port => StripPort::Matching,
        _ => StripPort::None,
    }
}
