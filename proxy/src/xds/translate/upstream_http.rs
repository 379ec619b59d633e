//! HTTP towards the endpoints: `HttpProtocolOptions`, and the deprecated fields that mean the same.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use pillion_xds::envoy::config::cluster::v3 as pb;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::upstreams::http::v3 as options;

use super::at::At;
use super::{common, headers};
use crate::model::cluster::{FrameLimits, Http2Options, Protocol};
use crate::model::tls::UpstreamTls;

const EXTENSION: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// How endpoints are spoken to.
pub(super) struct Upstream {
    pub(super) protocol: Protocol,
    pub(super) http2: Http2Options,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) max_connection_duration: Option<Duration>,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) names: Names,
}

/// What the host of a request means for TLS (`UpstreamHttpProtocolOptions`).
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    sni: bool,
    san: bool,
    /// Names the host in place of the authority.
    pub(super) header: Option<HeaderName>,
}

impl Names {
    /// The context with that in it.
    pub(super) fn put_into(&self, tls: Arc<UpstreamTls>) -> Arc<UpstreamTls> {
        if !self.sni {
            return tls;
        }
        let auto_sni_san_validation = tls.auto_sni_san_validation || self.san;
        Arc::new(UpstreamTls {
            by_request: true,
            auto_sni_san_validation,
            ..UpstreamTls::clone(&tls)
        })
    }
}

/// The cluster's HTTP options.
pub(super) fn options(at: &At<'_>, config: &pb::Cluster) -> Option<Upstream> {
    let map_at = at.field("typed_extension_protocol_options");
    for key in config.typed_extension_protocol_options.keys() {
        map_at.key(key).expect(key == EXTENSION, "is not supported")?;
    }
    let Some(packed) = config.typed_extension_protocol_options.get(EXTENSION) else {
        return Some(deprecated(at, config));
    };
    let at = map_at.key(EXTENSION);
    let typed: options::HttpProtocolOptions = common::unpack(&at, packed)?;
    let options_at = at.field("upstream_http_protocol_options");
    let names = names(&options_at, typed.upstream_http_protocol_options.as_ref())?;
    let (protocol, http2) = protocol(&at, &typed)?;
    let shared = typed.common_http_protocol_options.as_ref();
    let made = upstream(&at.field("common_http_protocol_options"), shared, protocol, http2);
    Some(Upstream { names, ..made })
}

fn deprecated(at: &At<'_>, config: &pb::Cluster) -> Upstream {
    let http2_at = at.field("http2_protocol_options");
    let http2 = http2(&http2_at, config.http2_protocol_options.as_ref());
    let protocol = match config.http2_protocol_options {
        Some(_) => Protocol::Http2,
        None => Protocol::Http1,
    };
    let shared = config.common_http_protocol_options.as_ref();
    let shared_at = at.field("common_http_protocol_options");
    let mut made = upstream(&shared_at, shared, protocol, http2);
    made.max_requests_per_connection = made
        .max_requests_per_connection
        .or(config.max_requests_per_connection)
        .filter(|limit| *limit > 0);
    made
}

fn upstream(
    at: &At<'_>,
    shared: Option<&core::HttpProtocolOptions>,
    protocol: Protocol,
    http2: Http2Options,
) -> Upstream {
    let hour = Some(Duration::from_secs(3600));
    let idle = shared.and_then(|options| options.idle_timeout);
    let age = shared.and_then(|options| options.max_connection_duration);
    Upstream {
        protocol,
        http2,
        names: Names::default(),
        idle_timeout: at.field("idle_timeout").limit(idle, hour),
        max_connection_duration: at.field("max_connection_duration").limit(age, None),
        max_requests_per_connection: shared
            .and_then(|options| options.max_requests_per_connection)
            .filter(|limit| *limit > 0),
    }
}

fn names(at: &At<'_>, options: Option<&core::UpstreamHttpProtocolOptions>) -> Option<Names> {
    let Some(options) = options else { return Some(Names::default()) };
    let (sni, san) = (options.auto_sni, options.auto_san_validation);
    at.field("auto_san_validation").expect(sni || !san, "is supported beside auto_sni only")?;
    let header = match options.override_auto_sni_header.as_str() {
        "" => None,
        name => Some(headers::name_of(&at.field("override_auto_sni_header"), name)?),
    };
    Some(Names { sni, san, header })
}

fn protocol(at: &At<'_>, typed: &options::HttpProtocolOptions) -> Option<(Protocol, Http2Options)> {
    use options::http_protocol_options::UpstreamProtocolOptions as Spec;
    use options::http_protocol_options::explicit_http_config::ProtocolConfig;
    Some(match &typed.upstream_protocol_options {
        Some(Spec::ExplicitHttpConfig(explicit)) => {
            let at = at.field("explicit_http_config");
            match &explicit.protocol_config {
                None => (Protocol::Http1, Http2Options::default()),
                Some(ProtocolConfig::HttpProtocolOptions(options)) => {
                    let at = at.field("http_protocol_options");
                    let at = at.field("header_key_format");
                    let case = "is not supported towards endpoints: names keep the client's case";
                    at.field("proper_case_words").expect(!title_case(options), case)?;
                    (Protocol::Http1, Http2Options::default())
                }
                Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
                    let at = at.field("http2_protocol_options");
                    (Protocol::Http2, http2(&at, Some(options)))
                }
                Some(_) => return at.refuse("HTTP/3 is not supported"),
            }
        }
        Some(Spec::UseDownstreamProtocolConfig(config)) => {
            let at = at.field("use_downstream_protocol_config");
            let at = at.field("http2_protocol_options");
            (Protocol::Downstream, http2(&at, config.http2_protocol_options.as_ref()))
        }
        Some(Spec::AutoConfig(config)) => {
            let at = at.field("auto_config");
            let at = at.field("http2_protocol_options");
            (Protocol::Auto, http2(&at, config.http2_protocol_options.as_ref()))
        }
        None => {
            return at.refuse(
                "expected explicit_http_config, auto_config or use_downstream_protocol_config",
            );
        }
    })
}

fn frames(options: &core::Http2ProtocolOptions) -> FrameLimits {
    let defaults = FrameLimits::default();
    FrameLimits {
        empty: options.max_consecutive_inbound_frames_with_empty_payload.unwrap_or(defaults.empty),
        priority_per_stream: options
            .max_inbound_priority_frames_per_stream
            .unwrap_or(defaults.priority_per_stream),
        window_updates_per_data: options
            .max_inbound_window_update_frames_per_data_frame_sent
            .unwrap_or(defaults.window_updates_per_data),
    }
}

/// `header_key_format`: names in `Proper-Case`.
pub(super) fn title_case(options: &core::Http1ProtocolOptions) -> bool {
    use core::http1_protocol_options::header_key_format::HeaderFormat;
    let format =
        options.header_key_format.as_ref().and_then(|format| format.header_format.as_ref());
    matches!(format, Some(HeaderFormat::ProperCaseWords(_)))
}

/// `Http2ProtocolOptions`, for either side.
pub(super) fn http2(at: &At<'_>, options: Option<&core::Http2ProtocolOptions>) -> Http2Options {
    let Some(options) = options else { return Http2Options::default() };
    let keepalive_at = at.field("connection_keepalive");
    let keepalive = options.connection_keepalive.as_ref();
    let interval = keepalive.and_then(|keepalive| keepalive.interval);
    let timeout = keepalive.and_then(|keepalive| keepalive.timeout);
    Http2Options {
        max_concurrent_streams: options.max_concurrent_streams,
        initial_stream_window: options.initial_stream_window_size,
        initial_connection_window: options.initial_connection_window_size,
        keepalive_interval: keepalive_at.field("interval").limit(interval, None),
        keepalive_timeout: keepalive_at.field("timeout").duration(timeout),
        allow_connect: options.allow_connect,
        frames: frames(options),
    }
}
