//! HTTP/1.1 connections: one request at a time. Whoever has the connection reads and writes it; there
//! is no task behind it, but for the rare answer that begins before its request has been sent.

mod body;
mod carry;
mod send;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use bytes::BytesMut;
use http::HeaderName;
use tokio::io::{AsyncRead, ReadBuf};

use super::connection::{Connection, Counted};
use crate::http::body::BodyError;
use crate::http::h1::body::{Decoded, Decoder, Encoder};
use crate::http::h1::wire::Wire;
use crate::http::h1::{Framing, Malformed};
use crate::http::upgraded::Granting;

pub(crate) use carry::Carried;
pub(super) use carry::carry;

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct Http1 {
    wire: Wire<Counted>,
    /// What is left of the request. None: all of it is in the wire's output.
    sending: Option<Encoder>,
    /// Trailers that the request's head has announced: no others are sent.
    announced: Vec<HeaderName>,
    /// No request was sent on it yet.
    fresh: bool,
    /// A piece of the request's body was taken.
    pub(super) touched: bool,
    /// What is left of the answer.
    decoder: Decoder,
    /// Decoded already.
    ahead: Option<Result<Decoded, Malformed>>,
    /// Another request may follow this one.
    keep: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Closed, or not silent, before the request.
    #[error("the connection was closed before the request")]
    Closed,
    /// Closed before the answer's head was whole.
    #[error("the connection was closed before the answer")]
    Ended,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    /// The answer is no HTTP/1.
    #[error("the answer is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// Nobody can be sure where the answer ends.
    #[error("the answer has no certain length")]
    Ambiguous,
    /// The request's own body broke off, or is not what its head promises.
    #[error("the request's body broke off: {0}")]
    Request(BodyError),
}

impl Http1 {
    pub(super) fn new(io: Counted) -> Self {
        Self {
            wire: Wire::new(io, BytesMut::new()),
            sending: None,
            announced: Vec::new(),
            fresh: true,
            touched: false,
            decoder: Decoder::new(Framing::None, 0),
            ahead: None,
            keep: true,
        }
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        self.wire.io.connection()
    }

    /// A part of the request is still to be sent.
    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some() || !self.wire.output.is_empty()
    }

    /// Whether it may serve another request.
    pub(super) fn is_reusable(&self) -> bool {
        self.keep && self.is_over() && !self.is_sending() && self.wire.input.is_empty()
    }

    /// It serves no other request.
    fn give_up(&mut self) {
        self.keep = false;
    }

    /// The endpoint agreed to go on in another protocol.
    pub(super) fn switch(self, granting: Granting) {
        drop(self.connection().take_socket());
        let Wire { io, input, .. } = self.wire;
        granting.grant(io, input.freeze());
    }
}

/// A connection between two requests.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) http1: Box<Http1>,
    pub(super) since: Instant,
}

impl Idle {
    pub(super) fn new(mut http1: Box<Http1>) -> Self {
        http1.wire.rest();
        Self { http1, since: Instant::now() }
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        self.http1.connection()
    }

    /// When it must not be used any more. None: never.
    pub(super) fn expires(&self) -> Option<Instant> {
        self.connection().expires(self.since)
    }

    /// Whether a request may go onto it, as far as time goes.
    pub(super) fn is_usable(&self) -> bool {
        self.expires().is_none_or(|end| Instant::now() < end)
    }

    /// Whether the endpoint has closed it, or says what nobody asked for. If not, `cx` is woken
    /// when it does.
    pub(super) fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        let mut room = [0; 1];
        let mut read = ReadBuf::new(&mut room);
        Pin::new(&mut self.http1.wire.io).poll_read(cx, &mut read).is_ready()
    }
}
