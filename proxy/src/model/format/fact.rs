//! Command operators without an argument.

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Operators without an argument; the name in the format string is given with each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fact {
            $($(#[$doc])* $name,)*
        }

        impl Fact {
            /// The operator of this name.
            pub(super) fn of(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

facts! {
    /// `PROTOCOL`
    Protocol = "PROTOCOL",
    /// `RESPONSE_CODE`
    ResponseCode = "RESPONSE_CODE",
    /// `RESPONSE_CODE_DETAILS`
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    /// `CONNECTION_TERMINATION_DETAILS`
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
    /// `RESPONSE_FLAGS`
    ResponseFlags = "RESPONSE_FLAGS",
    /// `RESPONSE_FLAGS_LONG`
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    /// `ACCESS_LOG_TYPE`
    AccessLogType = "ACCESS_LOG_TYPE",
    /// `BYTES_RECEIVED`
    BytesReceived = "BYTES_RECEIVED",
    /// `BYTES_SENT`
    BytesSent = "BYTES_SENT",
    /// `REQUEST_HEADERS_BYTES`
    RequestHeadersBytes = "REQUEST_HEADERS_BYTES",
    /// `RESPONSE_HEADERS_BYTES`
    ResponseHeadersBytes = "RESPONSE_HEADERS_BYTES",
    /// `RESPONSE_TRAILERS_BYTES`
    ResponseTrailersBytes = "RESPONSE_TRAILERS_BYTES",
    /// `DOWNSTREAM_WIRE_BYTES_RECEIVED`: HTTP/2: those of the whole connection are not told apart, so nothing.
    DownstreamWireBytesReceived = "DOWNSTREAM_WIRE_BYTES_RECEIVED",
    /// `DOWNSTREAM_WIRE_BYTES_SENT`: The same.
    DownstreamWireBytesSent = "DOWNSTREAM_WIRE_BYTES_SENT",
    /// `UPSTREAM_WIRE_BYTES_RECEIVED`: The same.
    UpstreamWireBytesReceived = "UPSTREAM_WIRE_BYTES_RECEIVED",
    /// `UPSTREAM_WIRE_BYTES_SENT`: The same.
    UpstreamWireBytesSent = "UPSTREAM_WIRE_BYTES_SENT",
    /// `DURATION`: whole milliseconds from the start to the last byte.
    Duration = "DURATION",
    /// `REQUEST_DURATION`: to the last byte of the request.
    RequestDuration = "REQUEST_DURATION",
    /// `REQUEST_TX_DURATION`: to the last byte of the request sent to the endpoint.
    RequestTxDuration = "REQUEST_TX_DURATION",
    /// `RESPONSE_DURATION`: to the first byte of the response.
    ResponseDuration = "RESPONSE_DURATION",
    /// `RESPONSE_TX_DURATION`: from there to the last byte.
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    /// `ROUTE_NAME`
    RouteName = "ROUTE_NAME",
    /// `VIRTUAL_HOST_NAME`: Ours; Envoy has none.
    VirtualHostName = "VIRTUAL_HOST_NAME",
    /// `VIRTUAL_CLUSTER_NAME`
    VirtualClusterName = "VIRTUAL_CLUSTER_NAME",
    /// `UPSTREAM_HOST`
    UpstreamHost = "UPSTREAM_HOST",
    /// `UPSTREAM_HOST_NAME`: its `hostname`, else its address.
    UpstreamHostName = "UPSTREAM_HOST_NAME",
    /// `UPSTREAM_HOST_NAME_WITHOUT_PORT`
    UpstreamHostNameBare = "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    /// `UPSTREAM_REMOTE_ADDRESS`
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    /// `UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT`
    UpstreamRemoteIp = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// `UPSTREAM_REMOTE_PORT`
    UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
    /// `UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT`
    UpstreamLocalIp = "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// `UPSTREAM_LOCAL_PORT`
    UpstreamLocalPort = "UPSTREAM_LOCAL_PORT",
    /// `UPSTREAM_LOCAL_ADDRESS`
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    /// `UPSTREAM_CLUSTER`
    UpstreamCluster = "UPSTREAM_CLUSTER",
    /// `UPSTREAM_CLUSTER_RAW`
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    /// `UPSTREAM_REQUEST_ATTEMPT_COUNT`
    UpstreamAttempts = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    /// `UPSTREAM_CONNECTION_ID`
    UpstreamConnectionId = "UPSTREAM_CONNECTION_ID",
    /// `UPSTREAM_PROTOCOL`
    UpstreamProtocol = "UPSTREAM_PROTOCOL",
    /// `UPSTREAM_TRANSPORT_FAILURE_REASON`
    UpstreamFailure = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    /// `UPSTREAM_SERVER_NAME`
    UpstreamServerName = "UPSTREAM_SERVER_NAME",
    /// `UPSTREAM_TLS_VERSION`
    UpstreamTlsVersion = "UPSTREAM_TLS_VERSION",
    /// `UPSTREAM_TLS_CIPHER`
    UpstreamTlsCipher = "UPSTREAM_TLS_CIPHER",
    /// `UPSTREAM_TLS_GROUP`
    UpstreamTlsGroup = "UPSTREAM_TLS_GROUP",
    /// `UPSTREAM_TLS_SESSION_ID`
    UpstreamTlsSession = "UPSTREAM_TLS_SESSION_ID",
    /// `UPSTREAM_PEER_SUBJECT`
    UpstreamPeerSubject = "UPSTREAM_PEER_SUBJECT",
    /// `UPSTREAM_PEER_ISSUER`
    UpstreamPeerIssuer = "UPSTREAM_PEER_ISSUER",
    /// `UPSTREAM_PEER_CERT`
    UpstreamPeerCert = "UPSTREAM_PEER_CERT",
    /// `UPSTREAM_PEER_URI_SAN`
    UpstreamPeerUriSan = "UPSTREAM_PEER_URI_SAN",
    /// `UPSTREAM_PEER_DNS_SAN`
    UpstreamPeerDnsSan = "UPSTREAM_PEER_DNS_SAN",
    /// `UPSTREAM_PEER_IP_SAN`
    UpstreamPeerIpSan = "UPSTREAM_PEER_IP_SAN",
    /// `UPSTREAM_LOCAL_URI_SAN`
    UpstreamLocalUriSan = "UPSTREAM_LOCAL_URI_SAN",
    /// `UPSTREAM_LOCAL_DNS_SAN`
    UpstreamLocalDnsSan = "UPSTREAM_LOCAL_DNS_SAN",
    /// `UPSTREAM_LOCAL_IP_SAN`
    UpstreamLocalIpSan = "UPSTREAM_LOCAL_IP_SAN",
    /// `DOWNSTREAM_REMOTE_ADDRESS`
    RemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    /// `DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT`
    RemoteIp = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// `DOWNSTREAM_REMOTE_PORT`
    RemotePort = "DOWNSTREAM_REMOTE_PORT",
    /// `DOWNSTREAM_DIRECT_REMOTE_ADDRESS`
    DirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    /// `DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT`
    DirectRemoteIp = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    /// `DOWNSTREAM_DIRECT_REMOTE_PORT`
    DirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    /// `DOWNSTREAM_LOCAL_ADDRESS`: where the client wanted to go.
    LocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    /// `DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT`
    LocalIp = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// `DOWNSTREAM_LOCAL_PORT`
    LocalPort = "DOWNSTREAM_LOCAL_PORT",
    /// `DOWNSTREAM_DIRECT_LOCAL_ADDRESS`: where its connection came in.
    DirectLocalAddress = "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    /// `DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT`
    DirectLocalIp = "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    /// `DOWNSTREAM_DIRECT_LOCAL_PORT`
    DirectLocalPort = "DOWNSTREAM_DIRECT_LOCAL_PORT",
    /// `DOWNSTREAM_PEER_URI_SAN`
    PeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
    /// `DOWNSTREAM_PEER_DNS_SAN`
    PeerDnsSan = "DOWNSTREAM_PEER_DNS_SAN",
    /// `DOWNSTREAM_PEER_IP_SAN`
    PeerIpSan = "DOWNSTREAM_PEER_IP_SAN",
    /// `DOWNSTREAM_PEER_EMAIL_SAN`
    PeerEmailSan = "DOWNSTREAM_PEER_EMAIL_SAN",
    /// `DOWNSTREAM_PEER_SUBJECT`
    PeerSubject = "DOWNSTREAM_PEER_SUBJECT",
    /// `DOWNSTREAM_PEER_ISSUER`
    PeerIssuer = "DOWNSTREAM_PEER_ISSUER",
    /// `DOWNSTREAM_PEER_SERIAL`
    PeerSerial = "DOWNSTREAM_PEER_SERIAL",
    /// `DOWNSTREAM_PEER_FINGERPRINT_256`
    PeerFingerprint = "DOWNSTREAM_PEER_FINGERPRINT_256",
    /// `DOWNSTREAM_PEER_FINGERPRINT_1`
    PeerFingerprintSha1 = "DOWNSTREAM_PEER_FINGERPRINT_1",
    /// `DOWNSTREAM_PEER_CERT`: URL-encoded PEM.
    PeerCert = "DOWNSTREAM_PEER_CERT",
    /// `DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256`
    PeerChainFingerprints = "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256",
    /// `DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1`
    PeerChainFingerprintsSha1 = "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1",
    /// `DOWNSTREAM_PEER_CHAIN_SERIALS`
    PeerChainSerials = "DOWNSTREAM_PEER_CHAIN_SERIALS",
    /// `DOWNSTREAM_LOCAL_URI_SAN`
    LocalUriSan = "DOWNSTREAM_LOCAL_URI_SAN",
    /// `DOWNSTREAM_LOCAL_DNS_SAN`
    LocalDnsSan = "DOWNSTREAM_LOCAL_DNS_SAN",
    /// `DOWNSTREAM_LOCAL_IP_SAN`
    LocalIpSan = "DOWNSTREAM_LOCAL_IP_SAN",
    /// `DOWNSTREAM_LOCAL_EMAIL_SAN`
    LocalEmailSan = "DOWNSTREAM_LOCAL_EMAIL_SAN",
    /// `DOWNSTREAM_LOCAL_SUBJECT`
    LocalSubject = "DOWNSTREAM_LOCAL_SUBJECT",
    /// `DOWNSTREAM_TLS_VERSION`
    TlsVersion = "DOWNSTREAM_TLS_VERSION",
    /// `DOWNSTREAM_TLS_CIPHER`
    TlsCipher = "DOWNSTREAM_TLS_CIPHER",
    /// `DOWNSTREAM_TLS_GROUP`
    TlsGroup = "DOWNSTREAM_TLS_GROUP",
    /// `DOWNSTREAM_TLS_SESSION_ID`: Nothing: sessions are never resumed here.
    TlsSession = "DOWNSTREAM_TLS_SESSION_ID",
    /// `DOWNSTREAM_TRANSPORT_FAILURE_REASON`
    DownstreamFailure = "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
    /// `REQUESTED_SERVER_NAME`
    ServerName = "REQUESTED_SERVER_NAME",
    /// `CONNECTION_ID`
    ConnectionId = "CONNECTION_ID",
    /// `STREAM_ID`: the `x-request-id`.
    StreamId = "STREAM_ID",
    /// `UNIQUE_ID`: a UUID of its own for each request.
    UniqueId = "UNIQUE_ID",
    /// `FILTER_CHAIN_NAME`
    FilterChainName = "FILTER_CHAIN_NAME",
    /// `LISTENER_NAME`
    ListenerName = "LISTENER_NAME",
    /// `HOSTNAME`
    Hostname = "HOSTNAME",
    /// `TRACE_ID`
    TraceId = "TRACE_ID",
    /// `SPAN_ID`
    SpanId = "SPAN_ID",
    /// `LOCAL_REPLY_BODY`: the text of an answer of our own, while its body is made.
    LocalReplyBody = "LOCAL_REPLY_BODY",
    /// `GRPC_STATUS_NUMBER`
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
}

impl Fact {
    /// Whether its value is a number in typed JSON.
    pub fn is_number(self) -> bool {
        matches!(
            self,
            Self::ResponseCode
                | Self::BytesReceived
                | Self::BytesSent
                | Self::RequestHeadersBytes
                | Self::ResponseHeadersBytes
                | Self::ResponseTrailersBytes
                | Self::DownstreamWireBytesReceived
                | Self::DownstreamWireBytesSent
                | Self::UpstreamWireBytesReceived
                | Self::UpstreamWireBytesSent
                | Self::Duration
                | Self::RequestDuration
                | Self::RequestTxDuration
                | Self::ResponseDuration
                | Self::ResponseTxDuration
                | Self::UpstreamAttempts
                | Self::UpstreamConnectionId
                | Self::RemotePort
                | Self::LocalPort
                | Self::DirectLocalPort
                | Self::DirectRemotePort
                | Self::UpstreamRemotePort
                | Self::UpstreamLocalPort
                | Self::ConnectionId
                | Self::GrpcStatusNumber
        )
    }
}
