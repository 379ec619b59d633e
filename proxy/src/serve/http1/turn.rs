//! One request and its answer, as far as the connection cares.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::head::Next;
use super::incoming::Incoming;
use super::shared::{Arriving, Shared};
use crate::http::guard::{Follows, Rules};
use crate::http::h1::Framing;
use crate::http::h1::body::Decoder;
use crate::http::upgraded::{self, Granting};
use crate::serve::exchange::Arrived;

/// Bytes beside the data of a chunked body are limited like a head, but by this at most.
const MOST_BESIDE: usize = 64 << 10;

/// What the answer to a request depends on.
#[derive(Debug)]
pub(super) struct Turn {
    /// None: the request was refused, and nothing more is read.
    follows: Option<Follows>,
    /// HEAD: the answer is a head only.
    pub(super) head: bool,
    pub(super) connect: bool,
    /// Grants the upgrade that is asked for.
    pub(super) granting: Option<Granting>,
}

impl Turn {
    /// The request, ready to be served.
    pub(super) fn begin<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        shared: &Arc<Shared<T>>,
        next: Next,
        rules: &Rules,
    ) -> (Request<Arrived>, Self) {
        let (mut parts, follows) = match next {
            Next::Request(parts, follows) => (parts, follows),
            Next::Refused(verdict) => {
                let turn = Self { follows: None, head: false, connect: false, granting: None };
                return (Request::new(Arrived::Refused(verdict)), turn);
            }
        };
        if follows.two_lengths {
            parts.headers.remove(CONTENT_LENGTH);
        }
        let mut turn = Self {
            head: parts.method == Method::HEAD,
            connect: parts.method == Method::CONNECT,
            follows: Some(follows),
            granting: None,
        };
        if follows.through {
            let (granting, on) = upgraded::pending();
            parts.extensions.insert(on);
            turn.granting = Some(granting);
        }
        let body = if follows.body == Framing::None {
            Arrived::Nothing
        } else {
            let decoder = Decoder::new(follows.body, rules.max_head.min(MOST_BESIDE));
            let body = Arriving::new(decoder, rules.max_lines, follows.expects);
            shared.lock().body = Some(body);
            Arrived::Http1(Box::pin(Incoming::new(Arc::clone(shared))))
        };
        (Request::from_parts(parts, body), turn)
    }

    pub(super) fn is_refused(&self) -> bool {
        self.follows.is_none()
    }

    pub(super) fn http_10(&self) -> bool {
        self.follows.is_some_and(|follows| follows.http_10)
    }

    /// Another request may follow, as far as this one goes. After an upgrade that did not happen
    /// nobody can be sure that what follows is HTTP.
    pub(super) fn may_go_on(&self) -> bool {
        self.follows.is_some_and(|follows| follows.keep_alive && !follows.through)
    }

    /// The client reads trailers.
    pub(super) fn reads_trailers(&self) -> bool {
        self.follows.is_some_and(|follows| follows.trailers)
    }
}
