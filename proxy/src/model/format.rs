//! Format strings with command operators, as in Envoy's access logs and header values
//! (`%REQ(:METHOD)%`). Parsed here; `telemetry::format` fills them in.

use std::fmt;

use http::HeaderName;

/// Envoy's access log format where none is configured.
pub const DEFAULT_ACCESS_LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% \
%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% \
%BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
\"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A parsed format string.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// In order.
    pub pieces: Vec<Piece>,
}

/// A part of a format string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands (`%%` is a percent sign).
    Literal(String),
    /// `%NAME(argument):length%`, cut to `length` characters.
    Operator(Operator, Option<usize>),
}

/// A command operator (Envoy: "Access log format strings").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `REQ`: a request header, else the alternative one.
    Request(Header, Option<Header>),
    /// `RESP`
    Response(Header, Option<Header>),
    /// `TRAILER`
    Trailer(Header, Option<Header>),
    /// `REQ_WITHOUT_QUERY`
    RequestWithoutQuery(Header, Option<Header>),
    /// `START_TIME`: strftime with Envoy's `%3f`; None: ISO 8601 in milliseconds.
    StartTime(Option<String>),
    /// `QUERY_PARAM`
    QueryParameter(String),
    /// `GRPC_STATUS`: as a name (true) or a number.
    GrpcStatus(bool),
    /// Everything without an argument.
    Fact(Fact),
}

/// A header that an operator names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Header {
    /// `:METHOD`
    Method,
    /// `:PATH`
    Path,
    /// `:AUTHORITY`
    Authority,
    /// `:SCHEME`
    Scheme,
    /// `:STATUS`
    Status,
    /// An ordinary one.
    Name(HeaderName),
}

macro_rules! facts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Operators without an argument; the name in the format string is given with each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fact {
            $($(#[$doc])* $name,)*
        }

        impl Fact {
            fn of(name: &str) -> Option<Self> {
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
    /// `DURATION`: whole milliseconds from the start to the last byte.
    Duration = "DURATION",
    /// `REQUEST_DURATION`: to the last byte of the request.
    RequestDuration = "REQUEST_DURATION",
    /// `RESPONSE_DURATION`: to the first byte of the response.
    ResponseDuration = "RESPONSE_DURATION",
    /// `RESPONSE_TX_DURATION`: from there to the last byte.
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    /// `ROUTE_NAME`
    RouteName = "ROUTE_NAME",
    /// `VIRTUAL_HOST_NAME`
    VirtualHostName = "VIRTUAL_HOST_NAME",
    /// `UPSTREAM_HOST`
    UpstreamHost = "UPSTREAM_HOST",
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
    /// `UPSTREAM_TRANSPORT_FAILURE_REASON`
    UpstreamFailure = "UPSTREAM_TRANSPORT_FAILURE_REASON",
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
    /// `DOWNSTREAM_LOCAL_ADDRESS`
    LocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    /// `DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT`
    LocalIp = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// `DOWNSTREAM_LOCAL_PORT`
    LocalPort = "DOWNSTREAM_LOCAL_PORT",
    /// `DOWNSTREAM_PEER_URI_SAN`
    PeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
    /// `DOWNSTREAM_PEER_DNS_SAN`
    PeerDnsSan = "DOWNSTREAM_PEER_DNS_SAN",
    /// `DOWNSTREAM_PEER_SUBJECT`
    PeerSubject = "DOWNSTREAM_PEER_SUBJECT",
    /// `DOWNSTREAM_PEER_ISSUER`
    PeerIssuer = "DOWNSTREAM_PEER_ISSUER",
    /// `DOWNSTREAM_PEER_SERIAL`
    PeerSerial = "DOWNSTREAM_PEER_SERIAL",
    /// `DOWNSTREAM_PEER_FINGERPRINT_256`
    PeerFingerprint = "DOWNSTREAM_PEER_FINGERPRINT_256",
    /// `DOWNSTREAM_LOCAL_URI_SAN`
    LocalUriSan = "DOWNSTREAM_LOCAL_URI_SAN",
    /// `DOWNSTREAM_TLS_VERSION`
    TlsVersion = "DOWNSTREAM_TLS_VERSION",
    /// `REQUESTED_SERVER_NAME`
    ServerName = "REQUESTED_SERVER_NAME",
    /// `CONNECTION_ID`
    ConnectionId = "CONNECTION_ID",
    /// `FILTER_CHAIN_NAME`
    FilterChainName = "FILTER_CHAIN_NAME",
    /// `HOSTNAME`
    Hostname = "HOSTNAME",
    /// `TRACE_ID`
    TraceId = "TRACE_ID",
    /// `SPAN_ID`
    SpanId = "SPAN_ID",
    /// `GRPC_STATUS_NUMBER`
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
}

/// A format string that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// Byte offset of the operator.
    pub at: usize,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "format string, at byte {}: {}", self.at, self.what)
    }
}

impl std::error::Error for FormatError {}

impl Template {
    /// Text without operators.
    pub fn literal(text: impl Into<String>) -> Self {
        Self { pieces: vec![Piece::Literal(text.into())] }
    }

    /// The text, if there is no operator in it: then nothing need be computed per request.
    pub fn as_literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Parse a format string.
    ///
    /// # Errors
    /// An operator without an end, of an unknown name, or with an argument that it cannot take.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(percent) = rest.find('%') else {
                literal.push_str(rest);
                break;
            };
            literal.push_str(&rest[..percent]);
            at += percent;
            let rest = &rest[percent + 1..];
            if rest.starts_with('%') {
                literal.push('%');
                at += 2;
                continue;
            }
            let error = |what: String| FormatError { at, what };
            let (piece, length) = operator(rest).map_err(error)?;
            if !literal.is_empty() {
                pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            pieces.push(piece);
            at += 1 + length;
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        Ok(Self { pieces })
    }
}

/// The operator that `text` begins with (after its `%`), and its length with the closing `%`.
fn operator(text: &str) -> Result<(Piece, usize), String> {
    let name_end = text
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .ok_or_else(|| "the operator has no closing `%`".to_owned())?;
    let (name, mut rest) = text.split_at(name_end);
    let mut argument = None;
    if let Some(inner) = rest.strip_prefix('(') {
        let end = inner.find(')').ok_or_else(|| format!("`{name}(` has no closing `)`"))?;
        argument = Some(&inner[..end]);
        rest = &inner[end + 1..];
    }
    let mut limit = None;
    if let Some(inner) = rest.strip_prefix(':') {
        let end = inner.find('%').unwrap_or(inner.len());
        let digits = &inner[..end];
        let parsed = digits.parse().map_err(|_| format!("`{digits}` is no length"))?;
        limit = Some(parsed);
        rest = &inner[end..];
    }
    if !rest.starts_with('%') {
        return Err(format!("`{name}` has no closing `%`"));
    }
    let length = text.len() - rest.len() + 1;
    Ok((Piece::Operator(named(name, argument)?, limit), length))
}

fn named(name: &str, argument: Option<&str>) -> Result<Operator, String> {
    let headers = || {
        let argument = argument.ok_or_else(|| format!("`{name}` wants a header in brackets"))?;
        let (first, other) = match argument.split_once('?') {
            Some((first, other)) => (first, Some(other)),
            None => (argument, None),
        };
        Ok::<_, String>((header(first)?, other.map(header).transpose()?))
    };
    Ok(match name {
        "REQ" => headers().map(|(a, b)| Operator::Request(a, b))?,
        "RESP" => headers().map(|(a, b)| Operator::Response(a, b))?,
        "TRAILER" => headers().map(|(a, b)| Operator::Trailer(a, b))?,
        "REQ_WITHOUT_QUERY" => headers().map(|(a, b)| Operator::RequestWithoutQuery(a, b))?,
        "START_TIME" => {
            Operator::StartTime(argument.filter(|format| !format.is_empty()).map(str::to_owned))
        }
        "QUERY_PARAM" => {
            let wanted = argument.ok_or("`QUERY_PARAM` wants a name in brackets")?;
            Operator::QueryParameter(wanted.to_owned())
        }
        "GRPC_STATUS" => match argument {
            None | Some("CAMEL_STRING") => Operator::GrpcStatus(true),
            Some("NUMBER") => Operator::GrpcStatus(false),
            Some(other) => return Err(format!("`{other}` is no form of GRPC_STATUS")),
        },
        "PATH" => match argument.unwrap_or("WQ") {
            "NQ" => Operator::RequestWithoutQuery(Header::Path, None),
            "WQ" => Operator::Request(Header::Path, None),
            other => return Err(format!("`{other}` is no supported form of PATH")),
        },
        _ => match Fact::of(name) {
            Some(fact) if argument.is_none() => Operator::Fact(fact),
            Some(_) => return Err(format!("`{name}` takes no argument")),
            None => return Err(format!("operator `{name}` is not supported")),
        },
    })
}

fn header(name: &str) -> Result<Header, String> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":method" => Header::Method,
        ":path" => Header::Path,
        ":authority" | "host" => Header::Authority,
        ":scheme" => Header::Scheme,
        ":status" => Header::Status,
        other => Header::Name(other.parse().map_err(|_| format!("`{name}` is no header name"))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_parsed_with_their_arguments() {
        let parsed = Template::parse("a%%b %REQ(X-A?:PATH):5%%PROTOCOL%").unwrap();
        let x_a = Header::Name("x-a".parse().unwrap());
        let want = vec![
            Piece::Literal("a%b ".into()),
            Piece::Operator(Operator::Request(x_a, Some(Header::Path)), Some(5)),
            Piece::Operator(Operator::Fact(Fact::Protocol), None),
        ];
        assert_eq!(parsed.pieces, want);
        assert!(Template::parse(DEFAULT_ACCESS_LOG).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, what) in [
            ("x %NO_SUCH%", "at byte 2: operator `NO_SUCH` is not supported"),
            ("%REQ%", "wants a header"),
            ("%PROTOCOL", "no closing `%`"),
            ("%REQ(a", "no closing `)`"),
            ("%REQ(b ad)%", "is no header name"),
            ("%PROTOCOL:x%", "`x` is no length"),
        ] {
            let error = Template::parse(text).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
