//! Answers of filters that say no in words of their own.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::super::exchange::Exchange;
use super::super::reply::Answer;
use crate::telemetry::reason::Reason;

/// A refusal whose text and headers are the client's to read.
#[derive(Debug)]
pub(super) struct Denial {
    pub(super) reason: Reason,
    pub(super) status: StatusCode,
    pub(super) text: Bytes,
    /// Put over those that go with the text.
    pub(super) headers: HeaderMap,
}

impl Denial {
    pub(super) fn new(reason: Reason, status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self { reason, status, text: text.into(), headers: HeaderMap::new() }
    }

    /// The answer; `why` is what the access log tells.
    pub(super) fn answer(self, exchange: &mut Exchange, why: String) -> Answer {
        exchange.facts.why = Some(why);
        let mut response = Response::new(self.text);
        *response.status_mut() = self.status;
        // `extend` puts the first value of each name over what is there, and the others beside it.
        response.headers_mut().extend(self.headers);
        Answer::Local(self.reason, response)
    }
}
