//! Access logs (`envoy.config.accesslog.v3`).

use std::path::PathBuf;

use super::Name;
use super::format::Template;
use super::matcher::HeaderMatcher;

/// One log: which lines, where to, how they look.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLog {
    /// Which requests are written. None: all.
    pub filter: Option<LogFilter>,
    /// Where to.
    pub sink: LogSink,
    /// What a line looks like.
    pub format: LogFormat,
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
