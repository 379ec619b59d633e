//! Answers on their way out: head and body in as few writes as there can be.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::shared::{Inner, Shared, gone};
use super::turn::Turn;
use crate::http::body::BodyError;
use crate::http::date;
use crate::http::h1::Framing;
use crate::http::h1::body::Encoder;
use crate::http::h1::encode::{self, Reply};
use crate::http::h1::trailers;
use crate::http::straight::Straight;
use crate::net::splice::{Drain, Pipe};

/// No more of an answer is fetched while so much of it waits to be written.
const ENOUGH: usize = 64 << 10;
/// So much of an answer goes past this program's memory, where it can; less is read and written sooner than a pipe is at hand.
const LARGE: u64 = 128 << 10;

/// What becomes of the connection.
pub(super) enum Then {
    /// Another request may come.
    Next,
    /// Nothing follows.
    Close {
        /// The client may still be sending.
        unread: bool,
    },
    /// It goes on in another protocol, elsewhere.
    Granted,
}

/// Write an answer, and see to what becomes of the connection after it.
///
/// # Errors
/// The client has left, or the answer broke off: then the connection is cut, for the client must not
/// take what it has for the whole.
pub(super) async fn write<T, B>(
    shared: &Shared<T>,
    answer: Response<B>,
    mut turn: Turn,
    title_case: bool,
) -> io::Result<Then>
where
    T: AsyncRead + AsyncWrite + Drain + Send + Unpin + 'static,
    B: Body<Data = Bytes, Error = BodyError> + Straight + Unpin,
{
    let (mut parts, body) = answer.into_parts();
    let plan = Plan { title_case, ..Plan::new(&mut parts, &body, &turn) };
    let goes_on =
        poll_fn(|cx| Poll::Ready(plan.begin(shared, &parts, &turn, cx))).await.ok_or_else(gone)?;
    let mut writing = Writing {
        trailers: plan.trailers(&parts.headers, &turn),
        encoder: Encoder::new(plan.framing),
        body: plan.has_body.then_some(body),
        passing: Passing::No,
        broken: None,
    };
    drop(parts);
    poll_fn(|cx| writing.poll(shared, cx)).await?;
    if plan.tunnel
        && let Some(granting) = turn.granting.take()
    {
        let wire = shared.lock().wire.take().ok_or_else(gone)?;
        granting.grant(wire.io, wire.input.freeze());
        return Ok(Then::Granted);
    }
    if goes_on && poll_fn(|cx| shared.poll_end_of_body(cx)).await && !shared.is_finishing() {
        return Ok(Then::Next);
    }
    let inner = shared.lock();
    let unread = inner.wire.as_ref().is_some_and(|wire| !wire.input.is_empty())
        || inner.body.as_ref().is_some_and(|body| !body.decoder.is_done());
    Ok(Then::Close { unread: unread || turn.is_refused() })
}

/// How an answer is written.
#[derive(Clone, Copy, Debug)]
struct Plan {
    framing: Framing,
    /// Some answers have none, whatever they say (RFC 9110 section 6.4.1).
    has_body: bool,
    /// What follows is not HTTP.
    tunnel: bool,
    /// The connection may go on, as far as the answer goes.
    goes_on: bool,
    /// Names begin with capitals, if nothing tells how they were spelled.
    title_case: bool,
}

impl Plan {
    fn new<B: Body>(parts: &mut Parts, body: &B, turn: &Turn) -> Self {
        let tunnel = parts.status == StatusCode::SWITCHING_PROTOCOLS
            || turn.connect && parts.status.is_success();
        let mut goes_on = turn.may_go_on() && !says_close(&parts.headers);
        if parts.status.is_informational() && !tunnel {
            // There is nothing that could follow it.
            parts.status = StatusCode::INTERNAL_SERVER_ERROR;
            let framing = Framing::Length(0);
            return Self { framing, has_body: false, tunnel, goes_on: false, title_case: false };
        }
        let bodiless =
            tunnel || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if tunnel || bodiless && !turn.head && body.is_end_stream() {
            // The length of one that is left out is told all the same, as in Envoy.
            parts.headers.remove(CONTENT_LENGTH);
        }
        if bodiless || turn.head {
            if !bodiless
                && !parts.headers.contains_key(CONTENT_LENGTH)
                && let Some(length @ 1..) = body.size_hint().exact()
            {
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
            let framing = Framing::None;
            return Self { framing, has_body: false, tunnel, goes_on, title_case: false };
        }
        let framing = framing(&parts.headers, body, turn);
        goes_on &= framing != Framing::UntilClose;
        let has_body = framing != Framing::Length(0);
        Self { framing, has_body, tunnel, goes_on, title_case: false }
    }

    /// Write the head. Whether the connection may go on, which it says too. None: it is gone.
    fn begin<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        shared: &Shared<T>,
        parts: &Parts,
        turn: &Turn,
        cx: &mut Context<'_>,
    ) -> Option<bool> {
        let mut inner = shared.lock();
        if let Some(body) = &mut inner.body {
            body.answering = true;
        }
        // A body that nobody reads, and that is not here yet, is not waited for.
        let read =
            inner.drain(cx) || inner.body.as_ref().is_some_and(|body| body.held && !body.broken);
        let goes_on = self.goes_on && read && !shared.is_finishing();
        let connection = match (goes_on, turn.http_10()) {
            (true, true) => Some("keep-alive"),
            (false, false) if !self.tunnel => Some("close"),
            _ => None,
        };
        let Inner { wire: Some(wire), .. } = &mut *inner else { return None };
        date::with(SystemTime::now(), |date| {
            let reply = Reply {
                framing: self.framing,
                http_10: turn.http_10(),
                connection,
                title_case: self.title_case,
                date: Some(date.as_bytes()),
            };
            encode::response(parts, reply, wire.output.flat());
        });
        Some(goes_on)
    }

    /// The trailers that may follow: those that the head names, for a client that reads some.
    fn trailers(&self, headers: &HeaderMap, turn: &Turn) -> Vec<HeaderName> {
        if self.framing != Framing::Chunked || !turn.reads_trailers() {
            return Vec::new();
        }
        trailers::announced(headers).collect()
    }
}

/// What ends the body of an answer that may have one.
fn framing<B: Body>(headers: &HeaderMap, body: &B, turn: &Turn) -> Framing {
    if body.is_end_stream() {
        return Framing::Length(0);
    }
    let told = || headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
    match body.size_hint().exact().or_else(told) {
        Some(length) => Framing::Length(length),
        None if turn.http_10() => Framing::UntilClose,
        None => Framing::Chunked,
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|word| word.trim().eq_ignore_ascii_case("close"))
}

/// An answer that is being written.
struct Writing<B> {
    /// None: all of it was fetched.
    body: Option<B>,
    encoder: Encoder,
    /// Trailers that may be written.
    trailers: Vec<HeaderName>,
    passing: Passing,
    /// What it broke off with.
    broken: Option<io::Error>,
}

/// Whether a body goes past this program's memory.
enum Passing {
    /// Not now.
    No,
    /// Through this.
    By(Pipe),
    /// Never: this answer is read in pieces.
    Never,
}

impl<B: Body<Data = Bytes, Error = BodyError> + Straight + Unpin> Writing<B> {
    fn poll<T: AsyncRead + AsyncWrite + Drain + Unpin>(
        &mut self,
        shared: &Shared<T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.is_passing(shared) {
                // What comes before it goes first.
                let flushed = shared.poll_flush(cx)?;
                if flushed.is_pending() || self.poll_pass(shared, cx)?.is_pending() {
                    return shared.poll_left(cx).map(Err);
                }
            }
            let waits = self.fetch(shared, cx);
            let flushed = shared.poll_flush(cx)?;
            if flushed.is_ready() && self.body.is_none() {
                return Poll::Ready(self.broken.take().map_or(Ok(()), Err));
            }
            if flushed.is_pending() || waits {
                return shared.poll_left(cx).map(Err);
            }
        }
    }

    /// What comes next goes past this program's memory.
    fn is_passing<T: Drain>(&self, shared: &Shared<T>) -> bool {
        match &self.passing {
            Passing::By(_) => true,
            Passing::Never => false,
            Passing::No => {
                let left = self.body.as_ref().map_or(0, Straight::straight);
                left >= LARGE
                    && self.encoder.left() == Some(left)
                    && shared.lock().wire.as_ref().is_some_and(|wire| wire.io.plain().is_some())
            }
        }
    }

    /// Have all of it pass, or as much as can. The body goes on in pieces then, if there is more of it.
    fn poll_pass<T: AsyncRead + AsyncWrite + Drain + Unpin>(
        &mut self,
        shared: &Shared<T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = match std::mem::replace(&mut self.passing, Passing::Never) {
            Passing::By(pipe) => pipe,
            _ => match Pipe::take() {
                Ok(pipe) => pipe,
                Err(_) => return Poll::Ready(Ok(())),
            },
        };
        let passed = self.poll_through(&mut pipe, shared, cx);
        if passed.is_pending() {
            self.passing = Passing::By(pipe);
        } else {
            pipe.put_back();
        }
        passed
    }

    fn poll_through<T: AsyncRead + AsyncWrite + Drain + Unpin>(
        &mut self,
        pipe: &mut Pipe,
        shared: &Shared<T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while !pipe.is_empty() {
                ready!(shared.poll_drain(pipe, cx))?;
            }
            let Some(body) = self.body.as_mut().filter(|body| body.straight() > 0) else {
                return Poll::Ready(Ok(()));
            };
            match ready!(body.poll_straight(cx, pipe)) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(bytes) => {
                    self.encoder.pass(bytes as u64);
                    if body.is_end_stream() {
                        self.body = None;
                    }
                }
                Err(error) => {
                    self.body = None;
                    self.broken = Some(io::Error::other(error));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Fetch what there is, up to a limit. Whether there will be more later.
    fn fetch<T: AsyncRead + AsyncWrite + Drain + Unpin>(
        &mut self,
        shared: &Shared<T>,
        cx: &mut Context<'_>,
    ) -> bool {
        while !self.is_passing(shared)
            && let Some(body) = &mut self.body
        {
            if shared.lock().wire.as_ref().is_some_and(|wire| wire.output.len() >= ENOUGH) {
                return false;
            }
            let polled = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(polled) => polled,
                Poll::Pending => return true,
            };
            let (data, trailers, over) = match polled {
                None => (None, None, true),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => (Some(data), None, body.is_end_stream()),
                    Err(frame) => (None, frame.into_trailers().ok(), true),
                },
                Some(Err(error)) => {
                    self.body = None;
                    self.broken = Some(io::Error::other(error));
                    return false;
                }
            };
            if over {
                self.body = None;
            }
            self.broken = self.encode(shared, data, trailers, over).err();
            if self.broken.is_some() {
                self.body = None;
            }
        }
        false
    }

    fn encode<T>(
        &mut self,
        shared: &Shared<T>,
        data: Option<Bytes>,
        trailers: Option<HeaderMap>,
        over: bool,
    ) -> io::Result<()> {
        let mut inner = shared.lock();
        let out = &mut inner.wire.as_mut().ok_or_else(gone)?.output;
        if let Some(data) = data {
            self.encoder.data(data, out).map_err(io::Error::other)?;
        }
        if over {
            let trailers = trailers.map(|all| allowed(all, &self.trailers));
            self.encoder.end(trailers.as_ref(), out).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

fn allowed(mut all: HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut allowed = HeaderMap::new();
    for name in names {
        if let http::header::Entry::Occupied(entry) = all.entry(name) {
            let (name, values) = entry.remove_entry_mult();
            for value in values {
                allowed.append(name.clone(), value);
            }
        }
    }
    allowed
}
