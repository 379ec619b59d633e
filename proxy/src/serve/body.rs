//! The body of an answer, on its way to the downstream.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::clock::Clock;
use super::exchange::Exchange;
use crate::cluster::{RequestPermit, ResponseBody};
use crate::http::body::BodyError;
use crate::telemetry::reason::Reason;

/// What the downstream reads. When it has ended, or is dropped, the exchange is over.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    content: Content,
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Full(Bytes),
    Upstream(Box<Upstream>),
}

/// A body that an endpoint is sending.
#[derive(Debug)]
struct Upstream {
    body: ResponseBody,
    clock: Clock,
    /// Made when the body first has to be waited for: most never have to.
    timer: Option<Pin<Box<Sleep>>>,
    active: Instant,
    _permit: RequestPermit,
}

impl ReplyBody {
    /// Nothing.
    pub(super) fn empty(exchange: Box<Exchange>) -> Self {
        Self { content: Content::Empty, exchange: Some(exchange) }
    }

    /// Nothing, while the exchange goes on elsewhere.
    pub(super) fn nothing() -> Self {
        Self { content: Content::Empty, exchange: None }
    }

    /// All of it.
    pub(super) fn full(exchange: Box<Exchange>, bytes: Bytes) -> Self {
        Self { content: Content::Full(bytes), exchange: Some(exchange) }
    }

    /// As it arrives.
    pub(super) fn upstream(
        exchange: Box<Exchange>,
        body: ResponseBody,
        clock: Clock,
        permit: RequestPermit,
    ) -> Self {
        if body.is_end_stream() {
            return Self::empty(exchange);
        }
        let active = Instant::now();
        let upstream = Upstream { body, clock, timer: None, active, _permit: permit };
        Self { content: Content::Upstream(Box::new(upstream)), exchange: Some(exchange) }
    }

    fn count(&mut self, bytes: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.facts.bytes_sent += bytes as u64;
        }
    }

    fn fail(&mut self, reason: Reason) {
        if let Some(exchange) = &mut self.exchange {
            exchange.flag(reason);
        }
        self.end();
    }

    fn end(&mut self) {
        self.content = Content::Empty;
        self.exchange = None;
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.content {
            Content::Empty => {
                this.end();
                return Poll::Ready(None);
            }
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.count(bytes.len());
                this.end();
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Content::Upstream(upstream) => ready!(upstream.poll(cx)),
        };
        Poll::Ready(match polled {
            Ok(Some(frame)) => {
                this.count(frame.data_ref().map_or(0, Bytes::len));
                if let Some(trailers) = frame.trailers_ref() {
                    keep_trailers(this.exchange.as_deref_mut(), trailers);
                }
                if frame.is_trailers() || this.is_end_stream() {
                    this.end();
                }
                Some(Ok(frame))
            }
            Ok(None) => {
                this.end();
                None
            }
            Err(failure) => {
                this.fail(failure.reason);
                Some(Err(failure.error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Full(bytes) => bytes.is_empty(),
            Content::Upstream(upstream) => upstream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Upstream(upstream) => upstream.body.size_hint(),
        }
    }
}

/// Why an answer broke off.
struct Failure {
    reason: Reason,
    error: BodyError,
}

impl Upstream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Failure>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if self.timer.is_some() {
                    self.active = Instant::now();
                }
                Poll::Ready(Ok(Some(frame)))
            }
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Ready(Some(Err(error))) => {
                Poll::Ready(Err(Failure { reason: broken(&*error), error }))
            }
            Poll::Pending => self.poll_deadline(cx),
        }
    }

    /// Nothing to read: has it been too long?
    fn poll_deadline(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, Failure>> {
        loop {
            let Some((at, reason)) = self.clock.next(self.active) else { return Poll::Pending };
            if at <= Instant::now() {
                let error = format!("{} after the answer had begun", reason.details()).into();
                return Poll::Ready(Err(Failure { reason, error }));
            }
            let timer =
                self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
            if timer.deadline() > at.into() {
                timer.as_mut().reset(at.into());
            }
            // A timer that fires early, because something moved since, is set again.
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(at.into());
        }
    }
}

/// What an answer that breaks off says about its endpoint.
fn broken(error: &(dyn Error + 'static)) -> Reason {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return if error.is_reset() {
                Reason::RemoteReset
            } else {
                Reason::ConnectionTermination
            };
        }
        // The end came before the length that was promised, or before the last chunk.
        let short = |error: &std::io::Error| error.kind() == std::io::ErrorKind::UnexpectedEof;
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
            || error.downcast_ref().is_some_and(short)
        {
            return Reason::UpstreamProtocolError;
        }
        next = error.source();
    }
    Reason::ConnectionTermination
}

fn keep_trailers(exchange: Option<&mut Exchange>, trailers: &HeaderMap) {
    if let Some(exchange) = exchange
        && (exchange.is_recorded() || exchange.grpc)
    {
        exchange.facts.trailers = Some(Box::new(trailers.clone()));
    }
}
