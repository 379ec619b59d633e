//! One request and its answer, as far as the connection cares.

use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::head::Next;
use super::incoming::Incoming;
use super::shared::{Arriving, Shared};
use crate::http::guard::Follows;
use crate::http::h1::Framing;
use crate::http::h1::body::Decoder;
use crate::http::upgraded::{self, Granting};
use crate::serve::exchange::Arrived;

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
    /// The request, ready to be served. `most`: bytes beside the data of its body.
    pub(super) fn begin<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        shared: &Arc<Shared<T>>,
        next: Next,
        most: usize,
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
            let decoder = Decoder::new(follows.body, most);
            shared.lock().body = Some(Arriving::new(decoder, follows.expects));
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
