//! Answers that the proxy makes itself (`LocalReplyConfig`).

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::access_log::{LogFilter, LogFormat};
use super::headers::HeaderOps;

/// What becomes of answers that the proxy makes itself.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalReplies {
    /// The first whose filter lets an answer through changes it.
    pub mappers: Vec<Mapper>,
    /// What bodies look like. None: as they are.
    pub format: Option<BodyFormat>,
}

/// `ResponseMapper`
#[derive(Clone, Debug, PartialEq)]
pub struct Mapper {
    /// Which answers.
    pub filter: LogFilter,
    /// Their status.
    pub status: Option<StatusCode>,
    /// Their text; `%LOCAL_REPLY_BODY%` in a format.
    pub body: Option<Bytes>,
    /// What their body looks like. None: what all look like.
    pub format: Option<BodyFormat>,
    /// Headers.
    pub headers: HeaderOps,
}

/// `SubstitutionFormatString` of a body.
#[derive(Clone, Debug, PartialEq)]
pub struct BodyFormat {
    /// Text or JSON, with command operators.
    pub format: LogFormat,
    /// Its type. Default `text/plain`, of JSON `application/json`.
    pub content_type: HeaderValue,
}
