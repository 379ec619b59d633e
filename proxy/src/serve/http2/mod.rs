//! The server's end of HTTP/2 (RFC 9113): one task reads and writes the connection, and each request has one of its own
//! ([`stream`]), which ends it together with its stream.

mod framed;
mod stream;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection, Handshake};
use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use self::framed::{Framed, Seen};
use super::exchange::Arrived;
use super::lifetime::Graceful;
use crate::http::body::BodyError;
use crate::http::frames::Flood;
use crate::http::gather::{Gather, Gathered};
use crate::http::h2::{CONNECTION_WINDOW, KeepAlive, STREAM_WINDOW};
use crate::model::cluster::Http2Options;
use crate::model::http::HttpManager;

/// Streams at a time, where the configuration says nothing.
const MAX_STREAMS: u32 = 1024;
/// Streams that were reset before anybody looked at them; more are an attack (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 64;
/// Bytes of a stream's answer that wait for the connection to take them.
const SEND_BUFFER: usize = 400 << 10;

/// Why a connection ended before it was closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Too many streams were reset before anybody could look at them, or for breaking the protocol.
    #[error("the client resets too many streams: {0}")]
    Abused(h2::Error),
    /// The client broke the protocol.
    #[error("the client breaks the protocol: {0}")]
    Malformed(h2::Error),
    /// The client sent too many frames that do nothing.
    #[error("the client sends too many frames that do nothing")]
    Flooded(Flood),
    /// A PING was not answered: the network is gone.
    #[error("a PING was not answered in time")]
    TimedOut,
    /// It broke, or the client ended it.
    #[error(transparent)]
    Ended(h2::Error),
}

/// How connections are served.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    builder: Builder,
    options: Http2Options,
}

impl Settings {
    /// Those of a connection manager.
    pub(super) fn new(manager: &HttpManager) -> Self {
        let options = manager.http2.clone();
        let max_header_list = manager.limits.max_request_headers_kb.saturating_mul(1024);
        let mut builder = Builder::new();
        builder
            .max_concurrent_streams(options.max_concurrent_streams.unwrap_or(MAX_STREAMS))
            .initial_window_size(options.initial_stream_window.unwrap_or(STREAM_WINDOW))
            .initial_connection_window_size(
                options.initial_connection_window.unwrap_or(CONNECTION_WINDOW),
            )
            .max_header_list_size(max_header_list)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_send_buffer_size(SEND_BUFFER);
        if options.allow_connect {
            builder.enable_connect_protocol();
        }
        Self { builder, options }
    }
}

/// A connection that is being served.
pub(super) struct Serving<T, A> {
    state: State<T>,
    seen: Arc<Seen>,
    options: Http2Options,
    answer: A,
    /// It ends after what is under way.
    finishing: bool,
}

enum State<T> {
    /// Until the client's preface is here.
    Greeting(Handshake<Framed<T>, Bytes>),
    Open(Connection<Framed<T>, Bytes>, Option<KeepAlive>),
}

/// Serve the requests of a connection, as many at a time as the settings allow.
pub(super) fn serve<T, A, W, B>(io: T, settings: Settings, answer: A) -> Gathered<T, Serving<T, A>>
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Arrived>) -> W,
    W: Future<Output = Response<B>> + Send + Unpin + 'static,
    B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    let Settings { builder, options } = settings;
    let io = Gather::new(io);
    let sender = io.sender();
    let seen = Arc::new(Seen::default());
    let io = Framed::new(io, options.frames, Arc::clone(&seen));
    let state = State::Greeting(builder.handshake(io));
    sender.by(Serving { state, seen, options, answer, finishing: false })
}

impl<T: AsyncRead + AsyncWrite + Unpin, A> Serving<T, A> {
    /// Reads and writes the connection; each request that comes begins. Ready: it is closed.
    fn poll_open<W, B>(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>
    where
        A: Fn(Request<Arrived>) -> W,
        W: Future<Output = Response<B>> + Send + Unpin + 'static,
        B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
    {
        if let State::Greeting(handshake) = &mut self.state {
            let opened = ready!(Pin::new(handshake).poll(cx));
            let mut connection = opened.map_err(|error| self.because(error))?;
            if self.finishing {
                connection.graceful_shutdown();
            }
            let alive = KeepAlive::new(&self.options, || connection.ping_pong());
            self.state = State::Open(connection, alive);
        }
        let State::Open(connection, alive) = &mut self.state else { return Poll::Pending };
        while let Poll::Ready(accepted) = connection.poll_accept(cx) {
            match accepted {
                Some(Ok((request, respond))) => stream::begin(request, respond, &self.answer),
                Some(Err(error)) => return Poll::Ready(Err(self.because(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        if let Some(alive) = alive
            && alive.poll(cx, self.seen.received()).is_ready()
        {
            return Poll::Ready(Err(Error::TimedOut));
        }
        Poll::Pending
    }

    fn because(&self, error: h2::Error) -> Error {
        if let Some(flood) = self.seen.flood() {
            return Error::Flooded(flood);
        }
        match error.reason() {
            Some(Reason::ENHANCE_YOUR_CALM) if error.is_library() => Error::Abused(error),
            Some(_) if error.is_library() => Error::Malformed(error),
            _ => Error::Ended(error),
        }
    }
}

impl<T, A, W, B> Future for Serving<T, A>
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Arrived>) -> W + Unpin,
    W: Future<Output = Response<B>> + Send + Unpin + 'static,
    B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().poll_open(cx)
    }
}

impl<T, A, W, B> Graceful for Gathered<T, Serving<T, A>>
where
    T: AsyncRead + AsyncWrite + Unpin,
    A: Fn(Request<Arrived>) -> W + Unpin,
    W: Future<Output = Response<B>> + Send + Unpin + 'static,
    B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        let serving = self.work().get_mut();
        serving.finishing = true;
        if let State::Open(connection, _) = &mut serving.state {
            connection.graceful_shutdown();
        }
    }
}

#[cfg(test)]
mod tests;
