//! Format strings with command operators, as in Envoy's access logs and header values
//! (`%REQ(:METHOD)%`). Parsed here; `telemetry::format` fills them in.

mod fact;

use std::fmt;

use http::HeaderName;

pub use fact::Fact;

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
    /// What has no value is left out instead of being written as `-` (Envoy:
    /// `omit_empty_values`).
    pub omit_empty: bool,
    /// Written where the whole has no value.
    pub otherwise: Option<String>,
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
    /// `PATH`: with its query (true) or without.
    Path(bool, PathSource),
    /// `START_TIME` and its like: strftime with Envoy's `%3f`; None: ISO 8601 in milliseconds.
    Time(Moment, Option<String>),
    /// `COMMON_DURATION`: between two points of an exchange.
    Between(Point, Point, Unit),
    /// `QUERY_PARAM`
    QueryParameter(String),
    /// `QUERY_PARAMS`: the whole query as it came.
    Query,
    /// `REQUESTED_SERVER_NAME` with a host in place of what TLS asked for: where there is none (false), or first (true).
    ServerNameOrHost(bool),
    /// `GRPC_STATUS`
    GrpcStatus(GrpcForm),
    /// `ENVIRONMENT`
    Environment(String),
    /// `DYNAMIC_METADATA`: a namespace, and the way to a value in it; without one, all of it.
    DynamicMetadata(String, Vec<String>),
    /// `UPSTREAM_METADATA`, `METADATA(UPSTREAM_HOST:…)`: the same of the endpoint's metadata.
    UpstreamMetadata(String, Vec<String>),
    /// `FILTER_STATE`: an object, as text (true) or as JSON.
    FilterState(String, bool),
    /// Everything without an argument.
    Fact(Fact),
}

/// Which path `PATH` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathSource {
    /// `PATH`: as it goes to the endpoint.
    Current,
    /// `ORIG`: `x-envoy-original-path`, which a rewrite leaves behind.
    Original,
    /// `ORIG_OR_PATH`: that, else the current one.
    OriginalOrCurrent,
}

/// A point in time that is written by a time format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// `START_TIME`
    Start,
    /// `EMIT_TIME`: when the line is written.
    Emit,
    /// `DOWNSTREAM_PEER_CERT_V_START`
    PeerCertStart,
    /// `DOWNSTREAM_PEER_CERT_V_END`
    PeerCertEnd,
    /// `UPSTREAM_PEER_CERT_V_START`
    UpstreamCertStart,
    /// `UPSTREAM_PEER_CERT_V_END`
    UpstreamCertEnd,
}

/// A point of an exchange (Envoy: `COMMON_DURATION`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// `DS_RX_BEG`: the request begins.
    RequestStart,
    /// `DS_RX_END`: its last byte.
    RequestEnd,
    /// `US_TX_BEG`: its first byte to the endpoint.
    SendStart,
    /// `US_TX_END`: its last byte to the endpoint.
    SendEnd,
    /// `US_RX_BEG`: the first byte of the answer.
    ResponseStart,
    /// `US_RX_END`: its last byte.
    ResponseEnd,
    /// `DS_TX_BEG`: its first byte to the client.
    ReplyStart,
    /// `DS_TX_END`: its last byte to the client.
    ReplyEnd,
}

/// What a duration is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `ms`
    Millis,
    /// `us`
    Micros,
    /// `ns`
    Nanos,
}

/// How a gRPC status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcForm {
    /// `CAMEL_STRING`: `NotFound`
    Camel,
    /// `SNAKE_STRING`: `NOT_FOUND`
    Snake,
    /// `NUMBER`
    Number,
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
        Self { pieces: vec![Piece::Literal(text.into())], ..Self::default() }
    }

    /// The text, if there is no operator in it: then nothing need be computed per request.
    pub fn as_literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether it tells something that is only kept where somebody will want to read about it: of
    /// the request's head, of the connection to the endpoint.
    pub fn tells_request(&self) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Literal(_) => false,
            Piece::Operator(operator, _) => !matches!(
                operator,
                Operator::Response(..) | Operator::Environment(_) | Operator::Time(..)
            ),
        })
    }

    /// Names of the request's headers that it writes, if it writes nothing else of the request or what came of it.
    pub fn only_request_headers(&self) -> Option<Vec<HeaderName>> {
        let mut names = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(_) | Piece::Operator(Operator::Environment(_), _) => {}
                Piece::Operator(Operator::Request(Header::Name(name), None), _) => {
                    names.push(name.clone());
                }
                Piece::Operator(..) => return None,
            }
        }
        Some(names)
    }

    /// Whether it writes dynamic metadata of this namespace.
    pub fn reads(&self, namespace: &str) -> bool {
        self.pieces.iter().any(|piece| {
            matches!(piece, Piece::Operator(Operator::DynamicMetadata(of, _), _) if of == namespace)
        })
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
        Ok(Self { pieces, ..Self::default() })
    }

    /// The same, with a text for where it has no value. Empty: none.
    #[must_use]
    pub fn or_literal(self, text: &str) -> Self {
        Self { otherwise: (!text.is_empty()).then(|| text.to_owned()), ..self }
    }

    /// The same, with nothing instead of `-` for what has no value.
    #[must_use]
    pub fn omitting(self) -> Self {
        Self { omit_empty: true, ..self }
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
        "COMMON_DURATION" => between(argument.unwrap_or_default())?,
        "QUERY_PARAM" => {
            let wanted = argument.ok_or("`QUERY_PARAM` wants a name in brackets")?;
            Operator::QueryParameter(wanted.to_owned())
        }
        "QUERY_PARAMS" => match argument {
            None | Some("" | "ORIG") => Operator::Query,
            Some(other) => return Err(format!("`{other}` is no supported form of QUERY_PARAMS")),
        },
        "ENVIRONMENT" => {
            let wanted = argument.ok_or("`ENVIRONMENT` wants a name in brackets")?;
            Operator::Environment(wanted.to_owned())
        }
        "DYNAMIC_METADATA" => metadata(name, "DYNAMIC", argument.unwrap_or_default())?,
        "UPSTREAM_METADATA" => metadata(name, "UPSTREAM_HOST", argument.unwrap_or_default())?,
        "METADATA" => {
            let argument = argument.unwrap_or_default();
            let (whose, rest) = argument.split_once(':').unwrap_or((argument, ""));
            metadata(name, whose, rest)?
        }
        "FILTER_STATE" => filter_state(argument.unwrap_or_default())?,
        "REQUESTED_SERVER_NAME" => match argument {
            None | Some("" | "SNI_ONLY") => Operator::Fact(Fact::ServerName),
            Some("SNI_FIRST") => Operator::ServerNameOrHost(false),
            Some("HOST_FIRST") => Operator::ServerNameOrHost(true),
            Some(other) => {
                return Err(format!("`{other}` is no supported form of REQUESTED_SERVER_NAME"));
            }
        },
        "GRPC_STATUS" => match argument {
            None | Some("" | "CAMEL_STRING") => Operator::GrpcStatus(GrpcForm::Camel),
            Some("SNAKE_STRING") => Operator::GrpcStatus(GrpcForm::Snake),
            Some("NUMBER") => Operator::GrpcStatus(GrpcForm::Number),
            Some(other) => return Err(format!("`{other}` is no form of GRPC_STATUS")),
        },
        "PATH" => path(argument.unwrap_or_default())?,
        _ => match (moment(name), Fact::of(name)) {
            (Some(moment), _) => {
                let format = argument.filter(|format| !format.is_empty());
                Operator::Time(moment, format.map(str::to_owned))
            }
            (None, Some(fact)) if argument.is_none() => Operator::Fact(fact),
            (None, Some(_)) => return Err(format!("`{name}` takes no argument")),
            (None, None) => return Err(format!("operator `{name}` is not supported")),
        },
    })
}

fn moment(name: &str) -> Option<Moment> {
    Some(match name {
        "START_TIME" => Moment::Start,
        "EMIT_TIME" => Moment::Emit,
        "DOWNSTREAM_PEER_CERT_V_START" => Moment::PeerCertStart,
        "DOWNSTREAM_PEER_CERT_V_END" => Moment::PeerCertEnd,
        "UPSTREAM_PEER_CERT_V_START" => Moment::UpstreamCertStart,
        "UPSTREAM_PEER_CERT_V_END" => Moment::UpstreamCertEnd,
        _ => return None,
    })
}

/// A namespace, then the way to a value in it, all with colons between them.
fn metadata(name: &str, whose: &str, argument: &str) -> Result<Operator, String> {
    let mut parts = argument.split(':').map(str::to_owned);
    let namespace = parts.next().filter(|name| !name.is_empty());
    let namespace = namespace.ok_or_else(|| format!("`{name}` wants a namespace in brackets"))?;
    match whose {
        "DYNAMIC" => Ok(Operator::DynamicMetadata(namespace, parts.collect())),
        "UPSTREAM_HOST" => Ok(Operator::UpstreamMetadata(namespace, parts.collect())),
        other => Err(format!(
            "metadata of `{other}` are not supported: expected DYNAMIC or UPSTREAM_HOST"
        )),
    }
}

/// `key`, then, after a colon, in which form.
fn filter_state(argument: &str) -> Result<Operator, String> {
    let (key, form) = argument.split_once(':').unwrap_or((argument, ""));
    if key.is_empty() {
        return Err("`FILTER_STATE` wants a key in brackets".to_owned());
    }
    match form {
        "PLAIN" => Ok(Operator::FilterState(key.to_owned(), true)),
        "" | "TYPED" => Ok(Operator::FilterState(key.to_owned(), false)),
        other => Err(format!("`{other}` is no supported form of FILTER_STATE: PLAIN or TYPED")),
    }
}

/// `WQ` or `NQ`, then, after a colon, which path.
fn path(argument: &str) -> Result<Operator, String> {
    let (query, source) = argument.split_once(':').unwrap_or((argument, ""));
    let query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        other => return Err(format!("`{other}` is no form of PATH: expected WQ or NQ")),
    };
    let source = match source {
        "" | "ORIG_OR_PATH" => PathSource::OriginalOrCurrent,
        "ORIG" => PathSource::Original,
        "PATH" => PathSource::Current,
        other => {
            return Err(format!("`{other}` is no PATH: expected ORIG, PATH or ORIG_OR_PATH"));
        }
    };
    Ok(Operator::Path(query, source))
}

/// `from:to:unit`
fn between(argument: &str) -> Result<Operator, String> {
    let mut parts = argument.split(':');
    let (Some(from), Some(to), unit, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("`COMMON_DURATION` wants (START:END:PRECISION)".to_owned());
    };
    let unit = match unit.unwrap_or_default() {
        "" | "ms" => Unit::Millis,
        "us" => Unit::Micros,
        "ns" => Unit::Nanos,
        other => return Err(format!("`{other}` is no precision: expected ms, us or ns")),
    };
    Ok(Operator::Between(point(from)?, point(to)?, unit))
}

fn point(name: &str) -> Result<Point, String> {
    Ok(match name {
        "DS_RX_BEG" => Point::RequestStart,
        "DS_RX_END" => Point::RequestEnd,
        "US_TX_BEG" => Point::SendStart,
        "US_TX_END" => Point::SendEnd,
        "US_RX_BEG" => Point::ResponseStart,
        "US_RX_END" => Point::ResponseEnd,
        "DS_TX_BEG" => Point::ReplyStart,
        "DS_TX_END" => Point::ReplyEnd,
        other => return Err(format!("time point `{other}` is not supported")),
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
            ("%DYNAMIC_METADATA%", "wants a namespace"),
            ("%FILTER_STATE(a:FIELD:b)%", "`FIELD:b` is no supported form"),
            ("%CLUSTER_METADATA(a:b)%", "operator `CLUSTER_METADATA` is not supported"),
            ("%METADATA(ROUTE:a:b)%", "metadata of `ROUTE` are not supported"),
            ("%REQUESTED_SERVER_NAME(X)%", "`X` is no supported form"),
            ("%PATH(WQ:X)%", "`X` is no PATH"),
            ("%COMMON_DURATION(DS_RX_BEG:US_CX_BEG:ms)%", "`US_CX_BEG` is not supported"),
        ] {
            let error = Template::parse(text).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
