//! Access logs (`envoy.config.accesslog.v3`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::Name;
use super::collector::{Collector, Detector};
use super::format::Template;
use super::matcher::HeaderMatcher;

/// One log: which requests, where to, how they look.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Which requests are written. None: all.
    pub filter: Option<LogFilter>,
    /// Where to, and what it looks like.
    pub output: LogOutput,
}

impl AccessLog {
    /// Whether it tells dynamic metadata of this namespace.
    pub fn reads(&self, namespace: &str) -> bool {
        let of_json = |format: &JsonFormat| format.reads(namespace);
        match &self.output {
            LogOutput::Lines(_, LogFormat::Text(template)) => template.reads(namespace),
            LogOutput::Lines(_, LogFormat::Json(format)) => of_json(format),
            LogOutput::Service(service) => match &service.entries {
                LogEntries::OpenTelemetry { body, attributes, .. } => {
                    body.as_ref().is_some_and(of_json)
                        || attributes.iter().any(|(_, format)| of_json(format))
                }
                LogEntries::Http { .. } | LogEntries::Tcp => false,
            },
        }
    }
}

impl JsonFormat {
    fn reads(&self, namespace: &str) -> bool {
        match self {
            Self::Object(fields) => fields.iter().any(|(_, format)| format.reads(namespace)),
            Self::Array(items) => items.iter().any(|format| format.reads(namespace)),
            Self::Text(template) => template.reads(namespace),
            _ => false,
        }
    }
}

/// Where to, and what it looks like.
#[derive(Clone, Debug, PartialEq)]
pub enum LogOutput {
    /// Lines of a file or a stream.
    Lines(LogSink, LogFormat),
    /// Batches of entries for a service.
    Service(Arc<LogService>),
}

/// A service that takes entries in batches.
#[derive(Clone, Debug, PartialEq)]
pub struct LogService {
    /// Where it is.
    pub collector: Collector,
    /// Name of the log, as the service sees it.
    pub name: Name,
    /// A batch is sent when it is this old. Default 1 s.
    pub flush_interval: Duration,
    /// A batch is sent when it has so many bytes. Default 16 KiB.
    pub buffer_bytes: usize,
    /// What an entry is.
    pub entries: LogEntries,
    /// Tags of each entry: name and value.
    pub tags: Vec<(Name, Template)>,
}

/// What a service is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum LogEntries {
    /// `envoy.data.accesslog.v3.HTTPAccessLogEntry` with these headers and trailers.
    Http {
        /// Of the request.
        request_headers: Vec<HeaderName>,
        /// Of the response.
        response_headers: Vec<HeaderName>,
        /// Of the response.
        response_trailers: Vec<HeaderName>,
    },
    /// `envoy.data.accesslog.v3.TCPAccessLogEntry`
    Tcp,
    /// OTLP log records.
    OpenTelemetry {
        /// Body; None: none.
        body: Option<JsonFormat>,
        /// Attributes.
        attributes: Vec<(String, JsonFormat)>,
        /// Attributes of the resource.
        resource: Vec<Detector>,
    },
}

/// When requests and connections are written besides at their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogMoments {
    /// As long as they last, after each of these intervals.
    pub interval: Option<Duration>,
    /// When they begin: a request when it has its route, a connection when an endpoint took it.
    pub start: bool,
    /// When an upgrade or a CONNECT has been answered well.
    pub tunnel: bool,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogSink {
    /// Appended to a file; reopened on SIGUSR1 and `/reopen_logs`.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a line looks like.
#[derive(Clone, Debug, PartialEq)]
pub enum LogFormat {
    /// Text, as written (a newline is not added).
    Text(Template),
    /// One JSON object a line.
    Json(JsonFormat),
}

/// A JSON tree with templates as leaves.
#[derive(Clone, Debug, PartialEq)]
pub enum JsonFormat {
    /// Object, in order of configuration.
    Object(Vec<(String, Self)>),
    /// Array.
    Array(Vec<Self>),
    /// Text; a template that is one operator keeps the operator's type (number, bool, null).
    Text(Template),
    /// A number as configured.
    Number(f64),
    /// A whole number as configured (not in JSON formats).
    Integer(i64),
    /// A bool as configured.
    Bool(bool),
    /// Null.
    Null,
}

/// `AccessLogFilter`
#[derive(Clone, Debug, PartialEq)]
pub enum LogFilter {
    /// Status compared with a number.
    Status(Compare, u32),
    /// Duration in milliseconds compared with a number.
    Duration(Compare, u64),
    /// Not a health check.
    NotHealthCheck,
    /// Only traced requests.
    Traceable,
    /// One of these moments, or none of them.
    Kind {
        /// As Envoy names them.
        kinds: Vec<Name>,
        /// Turn round.
        exclude: bool,
    },
    /// A share, out of a million (runtime filter with its default).
    Fraction(u32),
    /// All of these.
    And(Vec<Self>),
    /// One of these.
    Or(Vec<Self>),
    /// A request header.
    Header(HeaderMatcher),
    /// Any of these response flags; empty: any flag at all.
    ResponseFlags(Vec<Name>),
    /// One of these gRPC codes, or none of them.
    GrpcStatus {
        /// Codes.
        codes: Vec<u32>,
        /// Turn round.
        exclude: bool,
    },
}

/// `ComparisonFilter.Op`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// EQ
    Equal,
    /// GE
    AtLeast,
    /// LE
    AtMost,
    /// NE
    NotEqual,
}

impl Compare {
    /// Whether `found` stands so to `want`.
    pub fn holds<T: PartialOrd>(self, found: &T, want: &T) -> bool {
        match self {
            Self::Equal => found == want,
            Self::AtLeast => found >= want,
            Self::AtMost => found <= want,
            Self::NotEqual => found != want,
        }
    }
}
