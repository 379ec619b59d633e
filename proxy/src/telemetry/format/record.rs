//! What is known about an exchange or a TCP connection when something is written about it.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::model::dynamic::Dynamic;
use crate::model::metadata::Metadata;
use crate::telemetry::trace::Span;

/// What is known. What is not known is written as `-`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Record<'a> {
    /// Why it is written now.
    pub kind: LogKind,
    /// When it began.
    pub start: Option<SystemTime>,
    /// From there until now.
    pub duration: Option<Duration>,
    /// To the last byte of the request. None: it has not ended.
    pub request_duration: Option<Duration>,
    /// To the first byte of the response.
    pub response_duration: Option<Duration>,
    /// The points in between.
    pub times: Times,
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
    /// `:status` of the answer that is being made, before it is the status of the exchange.
    pub response_status: Option<u16>,
    /// Text of an answer of our own, while its body is made.
    pub local_reply: Option<&'a str>,
    /// Response flags.
    pub flags: &'a [&'static str],
    /// Response code details.
    pub details: Option<&'a str>,
    /// Why the connection was ended by us.
    pub termination: Option<&'a str>,
    /// The request was gRPC.
    pub grpc: bool,
    /// It is a health check that was answered here.
    pub health_check: bool,
    /// Bytes of the request's body.
    pub bytes_received: u64,
    /// Bytes of the response's body.
    pub bytes_sent: u64,
    /// Bytes on the wire between the client and us. None: not known of one stream of several.
    pub wire: Option<WireBytes>,
    /// What the configuration says of the endpoint.
    pub upstream_metadata: Option<&'a Metadata>,
    /// Address of the endpoint.
    pub upstream_host: Option<&'a str>,
    /// Host name of the endpoint, if it has one.
    pub upstream_hostname: Option<&'a str>,
    /// Our end of the connection to it.
    pub upstream_local: Option<&'a str>,
    /// Name of the cluster.
    pub upstream_cluster: Option<&'a str>,
    /// Tries.
    pub upstream_attempts: u32,
    /// What failed towards the endpoint.
    pub upstream_transport_failure: Option<&'a str>,
    /// The connection to the endpoint. None: there was none.
    pub upstream: Option<Upstream<'a>>,
    /// Address of the client, as far as it can be trusted.
    pub downstream_remote: Option<SocketAddr>,
    /// Address of the peer of the connection.
    pub downstream_direct_remote: Option<SocketAddr>,
    /// Address that it wanted to connect to.
    pub downstream_local: Option<SocketAddr>,
    /// Address where its connection came in. None: the same.
    pub downstream_direct_local: Option<SocketAddr>,
    /// What failed in the handshake with the client.
    pub downstream_transport_failure: Option<&'a str>,
    /// The peer's certificate.
    pub peer: Option<&'a dyn Certificate>,
    /// Our own certificate.
    pub local: Option<&'a dyn Certificate>,
    /// Server name that the client asked for.
    pub sni: Option<&'a str>,
    /// What is agreed on with the client. None: plain text.
    pub tls: Option<Session>,
    /// Name of the route.
    pub route: Option<&'a str>,
    /// Name of the virtual host.
    pub virtual_host: Option<&'a str>,
    /// Name of the virtual cluster.
    pub virtual_cluster: Option<&'a str>,
    /// Name of the filter chain.
    pub filter_chain: Option<&'a str>,
    /// Name of the listener.
    pub listener: Option<&'a str>,
    /// Of the downstream connection.
    pub connection_id: u64,
    /// Random, the same for all that is written about it.
    pub unique: u128,
    /// What filters noted. None: nothing.
    pub dynamic: Option<&'a Dynamic>,
    /// The span.
    pub span: Option<&'a Span>,
}

/// Why a line is written (Envoy: `AccessLogType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogKind {
    /// A request has ended.
    #[default]
    DownstreamEnd,
    /// A request has begun.
    DownstreamStart,
    /// A request is under way.
    DownstreamPeriodic,
    /// An upgrade or a CONNECT has been answered well.
    TunnelEstablished,
    /// An endpoint took a connection of a TCP proxy.
    TcpConnected,
    /// A connection of a TCP proxy is open.
    TcpPeriodic,
    /// A connection has ended.
    TcpEnd,
}

impl LogKind {
    /// Envoy's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DownstreamEnd => "DownstreamEnd",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::TunnelEstablished => "DownstreamTunnelSuccessfullyEstablished",
            Self::TcpConnected => "TcpUpstreamConnected",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpEnd => "TcpConnectionEnd",
        }
    }

    /// Whether it is about a connection, and not about a request.
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::TcpConnected | Self::TcpPeriodic | Self::TcpEnd)
    }
}

/// Points of an exchange, from its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// First byte to the endpoint.
    pub send_start: Option<Duration>,
    /// Last byte to the endpoint.
    pub send_end: Option<Duration>,
    /// Last byte of the endpoint's answer.
    pub response_end: Option<Duration>,
    /// First byte to the client.
    pub reply_start: Option<Duration>,
}

/// Bytes on the wire, TLS taken off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireBytes {
    /// From the other side.
    pub received: u64,
    /// To the other side.
    pub sent: u64,
}

/// The connection to an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Upstream<'a> {
    /// Unique in this process.
    pub connection_id: u64,
    /// `HTTP/1.1`, `HTTP/2`. None: bytes.
    pub protocol: Option<&'static str>,
    /// What is agreed on. None: plain text.
    pub tls: Option<Session>,
    /// Server name that was asked for.
    pub sni: Option<&'a str>,
    /// Certificate of the endpoint.
    pub peer: Option<&'a dyn Certificate>,
    /// Our own certificate.
    pub local: Option<&'a dyn Certificate>,
    /// Bytes on the wire for this request. None: not known of one stream of several.
    pub wire: Option<WireBytes>,
}

/// What is agreed on for a TLS session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// `TLSv1.3`
    pub version: &'static str,
    /// As OpenSSL names it: `TLS_AES_128_GCM_SHA256`, `ECDHE-RSA-AES128-GCM-SHA256`.
    pub cipher: &'static str,
    /// Number of the cipher suite (IANA).
    pub cipher_number: u16,
    /// Group of the key exchange: `X25519`.
    pub group: &'static str,
}

/// What a certificate says.
pub trait Certificate: Debug {
    /// URI names.
    fn uris(&self) -> &[String];
    /// DNS names.
    fn dns(&self) -> &[String];
    /// E-mail names.
    fn emails(&self) -> &[String];
    /// IP names.
    fn ips(&self) -> &[IpAddr];
    /// Subject (RFC 2253).
    fn subject(&self) -> &str;
    /// Issuer (RFC 2253).
    fn issuer(&self) -> &str;
    /// From when, until when.
    fn validity(&self) -> (Option<SystemTime>, Option<SystemTime>);
    /// URL-encoded PEM of the first certificate.
    fn pem(&self) -> &str;
    /// Serial numbers of the chain, leaf first, in hexadecimal.
    fn serials(&self) -> Vec<String>;
    /// SHA-256 of the chain, leaf first, in hexadecimal.
    fn sha256(&self) -> Vec<String>;
    /// The same with SHA-1.
    fn sha1(&self) -> Vec<String>;
}
