//! The HTTP connection manager (`envoy.extensions.filters.network.http_connection_manager.v3`).

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use ipnet::IpNet;

use super::Name;
use super::access_log::{AccessLog, LogMoments};
use super::cluster::Http2Options;
use super::filter::HttpFilter;
use super::local_reply::LocalReplies;
use super::route::RouteTable;
use super::source::Reference;
use super::tracing::Tracing;

/// How HTTP connections of a filter chain are served.
#[derive(Clone, Debug)]
pub struct HttpManager {
    /// `http.<stat_prefix>.`
    pub stat_prefix: Name,
    /// Which HTTP is accepted.
    pub codec: Codec,
    /// Where requests go.
    pub routes: RouteSource,
    /// In order; the router is implied as the last.
    pub filters: Vec<HttpFilter>,
    /// Written when a request ends.
    pub access_log: Vec<AccessLog>,
    /// When else.
    pub log_moments: LogMoments,
    /// What becomes of answers of our own. None: nothing.
    pub local_replies: Option<Arc<LocalReplies>>,
    /// None: no spans.
    pub tracing: Option<Arc<Tracing>>,
    /// Limits of time.
    pub timeouts: HttpTimeouts,
    /// Limits of size.
    pub limits: HttpLimits,
    /// HTTP/2 towards the downstream.
    pub http2: Http2Options,
    /// Accept HTTP/1.0.
    pub accept_http_10: bool,
    /// Host of HTTP/1.0 requests that name none.
    pub default_host_for_http_10: Option<HeaderValue>,
    /// Take HTTP/1 requests with two lengths; the chunks count. Default: they are refused.
    pub allow_chunked_length: bool,
    /// HTTP/1 header names that the upstream did not spell get `Proper-Case`.
    pub title_case_headers: bool,
    /// `server` header. Default `envoy` in Envoy, `pillion` here where nothing is configured.
    pub server_name: HeaderValue,
    /// What is done with the upstream's `server` header.
    pub server_header: ServerHeader,
    /// The peer's address is the client's: `x-forwarded-for` is extended, external requests lose
    /// their `x-envoy-*` headers.
    pub use_remote_address: bool,
    /// Clients at these addresses may set headers that others may not. None: nobody.
    pub inside: Option<Arc<Inside>>,
    /// Tell the upstream which port the client connected to (`x-forwarded-port`).
    pub append_x_forwarded_port: bool,
    /// Proxies in front of us that are trusted.
    pub xff_num_trusted_hops: u32,
    /// Do not extend `x-forwarded-for`.
    pub skip_xff_append: bool,
    /// Make an `x-request-id` where there is none. Default true.
    pub generate_request_id: bool,
    /// Keep the id of external requests.
    pub preserve_external_request_id: bool,
    /// Answer with it.
    pub always_set_request_id_in_response: bool,
    /// `x-envoy-local-overloaded` in what the overload manager answers.
    pub append_local_overload: bool,
    /// `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// Entries of a set or appended XFCC element.
    pub client_cert_details: ClientCertDetails,
    /// Remove `.` and `..` and doubled slashes.
    pub path: PathOptions,
    /// Upgrades taken (`connect`), lower case.
    pub upgrades: Vec<Name>,
    /// Appended to `via`. Empty: nothing.
    pub via: Option<HeaderValue>,
    /// `shop.example.` is `shop.example`.
    pub strip_trailing_host_dot: bool,
    /// Drop the port of `:authority` before routing.
    pub strip_port: StripPort,
    /// Set `user-agent`, `x-envoy-downstream-service-cluster`.
    pub add_user_agent: bool,
}

impl Default for HttpManager {
    /// What Envoy does where a connection manager says nothing.
    fn default() -> Self {
        Self {
            stat_prefix: Name::from(""),
            codec: Codec::Auto,
            routes: RouteSource::Inline(Arc::default()),
            filters: Vec::new(),
            access_log: Vec::new(),
            log_moments: LogMoments::default(),
            local_replies: None,
            tracing: None,
            timeouts: HttpTimeouts::default(),
            limits: HttpLimits::default(),
            http2: Http2Options::default(),
            accept_http_10: false,
            default_host_for_http_10: None,
            allow_chunked_length: false,
            title_case_headers: false,
            server_name: HeaderValue::from_static("pillion"),
            server_header: ServerHeader::Overwrite,
            use_remote_address: false,
            inside: None,
            append_x_forwarded_port: false,
            xff_num_trusted_hops: 0,
            skip_xff_append: false,
            generate_request_id: true,
            preserve_external_request_id: false,
            always_set_request_id_in_response: false,
            append_local_overload: false,
            forward_client_cert: ForwardClientCert::Sanitize,
            client_cert_details: ClientCertDetails::default(),
            path: PathOptions::default(),
            upgrades: Vec::new(),
            via: None,
            strip_trailing_host_dot: false,
            strip_port: StripPort::None,
            add_user_agent: false,
        }
    }
}

/// `InternalAddressConfig`: clients that are not strangers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Whoever connects by a Unix socket.
    pub unix_sockets: bool,
    /// These networks.
    pub networks: Vec<IpNet>,
}

/// Compared as configuration: two managers that were made of the same resource are equal.
impl PartialEq for HttpManager {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

/// `codec_type`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codec {
    /// By ALPN, else by the first bytes.
    #[default]
    Auto,
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// `route_specifier`
#[derive(Clone, Debug)]
pub enum RouteSource {
    /// `route_config`
    Inline(Arc<RouteTable>),
    /// `rds`: this name in the snapshot.
    Rds(Reference),
}

/// Limits of time. None: no limit.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpTimeouts {
    /// Connection without a request. Default 1 h.
    pub idle: Option<Duration>,
    /// Age of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Life of a stream.
    pub max_stream_duration: Option<Duration>,
    /// Stream without a byte either way. Default 5 min.
    pub stream_idle: Option<Duration>,
    /// Whole request, its body included.
    pub request: Option<Duration>,
    /// Headers of a request.
    pub request_headers: Option<Duration>,
    /// From GOAWAY to the end of a connection that drains. Default 5 s.
    pub drain: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            idle: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_stream_duration: None,
            stream_idle: Some(Duration::from_secs(300)),
            request: None,
            request_headers: None,
            drain: Duration::from_secs(5),
        }
    }
}

/// Limits of size and number.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpLimits {
    /// KiB of all request headers. Default 60.
    pub max_request_headers_kb: u32,
    /// Lines. Default 100.
    pub max_headers_count: u32,
    /// Requests on a connection. None: no limit.
    pub max_requests_per_connection: Option<u32>,
    /// Header names with `_`.
    pub underscores: Underscores,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_request_headers_kb: 60,
            max_headers_count: 100,
            max_requests_per_connection: None,
            underscores: Underscores::Allow,
        }
    }
}

/// `headers_with_underscores_action`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underscores {
    /// ALLOW
    #[default]
    Allow,
    /// REJECT_REQUEST: 400.
    RejectRequest,
    /// DROP_HEADER
    DropHeader,
}

/// `server_header_transformation`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerHeader {
    /// OVERWRITE
    #[default]
    Overwrite,
    /// APPEND_IF_ABSENT
    AppendIfAbsent,
    /// PASS_THROUGH
    PassThrough,
}

/// `forward_client_cert_details`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardClientCert {
    /// SANITIZE: remove it.
    #[default]
    Sanitize,
    /// FORWARD_ONLY
    ForwardOnly,
    /// APPEND_FORWARD
    AppendForward,
    /// SANITIZE_SET
    SanitizeSet,
    /// ALWAYS_FORWARD_ONLY
    AlwaysForwardOnly,
}

/// `set_current_client_cert_details`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertDetails {
    /// `Subject=`
    pub subject: bool,
    /// `Cert=`
    pub cert: bool,
    /// `Chain=`
    pub chain: bool,
    /// `DNS=`
    pub dns: bool,
    /// `URI=`
    pub uri: bool,
}

/// Path normalisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathOptions {
    /// RFC 3986 dot segments, and `\` as `/`.
    pub normalize: bool,
    /// `//` as `/`.
    pub merge_slashes: bool,
    /// What is done with `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
}

/// `path_with_escaped_slashes_action`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// KEEP_UNCHANGED
    #[default]
    Keep,
    /// REJECT_REQUEST: 400.
    Reject,
    /// UNESCAPE_AND_REDIRECT: 307.
    UnescapeAndRedirect,
    /// UNESCAPE_AND_FORWARD
    UnescapeAndForward,
}

/// `strip_matching_host_port`, `strip_any_host_port`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StripPort {
    /// Keep it.
    #[default]
    None,
    /// If it is the listener's.
    Matching,
    /// Always.
    Any,
}
