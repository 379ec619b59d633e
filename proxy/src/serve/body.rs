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
use super::record;
use crate::cluster::{RequestPermit, ResponseBody};
use crate::http::body::{BodyError, BoxBody};
use crate::http::straight::Straight;
use crate::net::splice::Pipe;
use crate::telemetry::reason::Reason;

/// Where the bytes of an answer come from. The common cases need no allocation.
pub(super) enum AnswerBody {
    /// Nothing.
    Empty,
    /// All of it, known in advance.
    Full(Bytes),
    /// As an endpoint sends it.
    Upstream(ResponseBody),
    /// Through filters that change it.
    Boxed(BoxBody),
}

/// What the downstream reads. When it has ended, or is dropped, the exchange is over.
#[derive(Debug)]
pub(crate) struct ReplyBody {
    content: Outgoing,
    exchange: Option<Box<Exchange>>,
}

/// A body that no filter changes any more.
#[derive(Debug)]
pub(super) enum Outgoing {
    Empty,
    Full(Bytes),
    Streamed(Box<Streamed>),
}

/// A body that arrives piece by piece.
#[derive(Debug)]
pub(super) struct Streamed {
    body: AnswerBody,
    /// None: it is this proxy's own, and in no danger of standing still.
    clock: Option<Clock>,
    /// Made when the body first has to be waited for: most never have to.
    timer: Option<Pin<Box<Sleep>>>,
    /// When something came last. Of its beginning [`ReplyBody::new`] knows.
    active: Instant,
    _permit: Option<RequestPermit>,
}

impl Outgoing {
    /// Of this exchange. `limits`: of a body that arrives; None: this proxy says it itself.
    pub(super) fn new(
        exchange: &Exchange,
        body: AnswerBody,
        limits: Option<(Clock, Option<RequestPermit>)>,
    ) -> Self {
        match body {
            AnswerBody::Full(bytes) => Self::Full(bytes),
            body if body.is_end_stream() => Self::Empty,
            body => {
                let (clock, permit) = limits.unzip();
                let active = exchange.started;
                let permit = permit.flatten();
                let streamed = Streamed { body, clock, timer: None, active, _permit: permit };
                Self::Streamed(Box::new(streamed))
            }
        }
    }
}

impl From<Bytes> for AnswerBody {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl AnswerBody {
    /// The same, for a filter to wrap.
    pub(super) fn boxed(self) -> BoxBody {
        match self {
            Self::Boxed(body) => body,
            other => Box::pin(other),
        }
    }
}

impl std::fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Upstream(_) => "Upstream",
            Self::Boxed(_) => "Boxed",
        })
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
            Self::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
        }
    }
}

impl ReplyBody {
    /// Nothing, while the exchange goes on elsewhere.
    pub(super) fn nothing() -> Self {
        Self { content: Outgoing::Empty, exchange: None }
    }

    /// Of an answer whose head is finished. One to HEAD has no content, whatever the head says (RFC 9110 section 9.3.2).
    pub(super) fn new(exchange: Box<Exchange>, content: Outgoing) -> Self {
        let mut content = if exchange.head_only { Outgoing::Empty } else { content };
        if let Outgoing::Streamed(streamed) = &mut content {
            streamed.active = exchange.started + exchange.facts.reply_after.unwrap_or_default();
        }
        Self { content, exchange: Some(exchange) }
    }

    fn count(&mut self, bytes: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.facts.bytes_sent += bytes as u64;
        }
    }

    fn fail(&mut self, reason: Reason) {
        if let Some(exchange) = &mut self.exchange {
            exchange.flag(reason);
            if let Some(cluster) = &exchange.facts.cluster {
                cluster.stats.out_of_time(reason);
            }
            exchange.connection.http.stats.downstream_rq_tx_reset.inc();
        }
        self.end();
    }

    /// Nothing has come.
    fn wait(&mut self, cx: &mut Context<'_>) {
        if let Some(exchange) = &mut self.exchange {
            record::poll_periodic(exchange, cx);
        }
    }

    fn end(&mut self) {
        if let Some(exchange) = &mut self.exchange {
            let took = exchange.started.elapsed();
            exchange.took = Some(took);
            if exchange.facts.response_after.is_some() {
                exchange.facts.response_end = Some(took);
            }
        }
        self.content = Outgoing::Empty;
        self.exchange = None;
    }
}

impl Straight for ReplyBody {
    fn straight(&self) -> u64 {
        match &self.content {
            Outgoing::Streamed(streamed) => streamed.straight(),
            Outgoing::Empty | Outgoing::Full(_) => 0,
        }
    }

    fn poll_straight(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Result<usize, BodyError>> {
        let Outgoing::Streamed(streamed) = &mut self.content else { return Poll::Ready(Ok(0)) };
        let Poll::Ready(passed) = streamed.poll_straight(cx, pipe) else {
            self.wait(cx);
            return Poll::Pending;
        };
        Poll::Ready(match passed {
            Ok(bytes) => {
                self.count(bytes);
                if self.is_end_stream() {
                    self.end();
                }
                Ok(bytes)
            }
            Err(failure) => {
                self.fail(failure.reason);
                Err(failure.error)
            }
        })
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
            Outgoing::Empty => {
                this.end();
                return Poll::Ready(None);
            }
            Outgoing::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.count(bytes.len());
                this.end();
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Outgoing::Streamed(streamed) => match streamed.poll(cx) {
                Poll::Ready(polled) => polled,
                Poll::Pending => {
                    this.wait(cx);
                    return Poll::Pending;
                }
            },
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
            Outgoing::Empty => true,
            Outgoing::Full(bytes) => bytes.is_empty(),
            Outgoing::Streamed(streamed) => streamed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Outgoing::Empty => SizeHint::with_exact(0),
            Outgoing::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Outgoing::Streamed(streamed) => streamed.body.size_hint(),
        }
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if let (Some(exchange), Outgoing::Streamed(streamed)) = (&mut self.exchange, &self.content)
            && !streamed.body.is_end_stream()
            && let Some(departure) = exchange.connection.lifetime.departure()
        {
            exchange.flag(departure);
        }
    }
}

/// Why an answer broke off.
struct Failure {
    reason: Reason,
    error: BodyError,
}

impl Streamed {
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
            Poll::Pending => self.poll_deadline(cx).map(Err),
        }
    }

    fn straight(&self) -> u64 {
        match &self.body {
            AnswerBody::Upstream(body) => body.straight(),
            AnswerBody::Empty | AnswerBody::Full(_) | AnswerBody::Boxed(_) => 0,
        }
    }

    fn poll_straight(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Result<usize, Failure>> {
        let AnswerBody::Upstream(body) = &mut self.body else { return Poll::Ready(Ok(0)) };
        match body.poll_straight(cx, pipe) {
            Poll::Ready(Ok(bytes)) => {
                if self.timer.is_some() {
                    self.active = Instant::now();
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(Failure { reason: broken(&*error), error })),
            Poll::Pending => self.poll_deadline(cx).map(Err),
        }
    }

    /// Nothing to read: has it been too long?
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            let next =
                self.clock.as_ref().and_then(|clock| clock.next(self.active, Some(self.active)));
            let Some((at, reason)) = next else { return Poll::Pending };
            if at <= Instant::now() {
                let error = format!("{} after the answer had begun", reason.details()).into();
                return Poll::Ready(Failure { reason, error });
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
        if error.downcast_ref().is_some_and(short) {
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
