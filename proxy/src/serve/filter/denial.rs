//! Answers of filters that say no in words of their own.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::super::exchange::Exchange;
use super::super::reply::Answer;
use crate::http::grpc;
use crate::telemetry::reason::Reason;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

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

    /// The answer, in the protocol that the client speaks; `why` is what the access log tells.
    pub(super) fn answer(self, exchange: &mut Exchange, why: String) -> Answer {
        exchange.facts.why = Some(why);
        let mut response = Response::new(Bytes::new());
        if exchange.grpc {
            let map = response.headers_mut();
            map.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            let status = u16::from(grpc::status_of(self.status));
            map.insert(GRPC_STATUS, HeaderValue::from(status));
            if !self.text.is_empty() {
                map.insert(GRPC_MESSAGE, grpc::message(&String::from_utf8_lossy(&self.text)));
            }
        } else {
            *response.status_mut() = self.status;
            if !self.text.is_empty() {
                let plain = HeaderValue::from_static("text/plain");
                response.headers_mut().insert(CONTENT_TYPE, plain);
            }
            *response.body_mut() = self.text;
        }
        // `extend` puts the first value of each name over what is there, and the others beside it.
        response.headers_mut().extend(self.headers);
        Answer::Local(self.reason, response)
    }
}
