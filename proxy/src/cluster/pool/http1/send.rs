//! A request on its way out, until the head of its answer is here.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, TRAILER};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body::Body as _;

use super::{Error, Http1};
use crate::http::body::RequestBody;
use crate::http::h1::body::Encoder;
use crate::http::h1::encode::{self, RequestHead};
use crate::http::h1::{Framing, Malformed, head, trailers};
use crate::http::presence::Presence;

/// Bytes of an answer's head, and of those before it: as much as hyper reads.
const MAX_HEAD: usize = 8192 + 100 * 4096;
/// Lines of an answer's head (Envoy: `max_headers_count`).
const MAX_LINES: usize = 100;
/// While so many bytes wait to be written, no more are taken from the body.
const ENOUGH: usize = 64 << 10;

/// The head of an answer.
#[derive(Debug)]
pub(in super::super) struct Answer {
    pub(in super::super) head: Parts,
    /// Headers that it has.
    pub(in super::super) present: Presence,
    /// The connection goes on in another protocol.
    pub(in super::super) switches: bool,
}

impl Http1 {
    /// Sends a request until the head of its answer is here. That may be before all of it is sent:
    /// see [`Http1::is_sending`].
    ///
    /// # Errors
    /// There is no answer.
    pub(in super::super) async fn send(
        &mut self,
        request: &mut Request<RequestBody>,
    ) -> Result<Answer, Error> {
        let mut begun = false;
        poll_fn(|cx| {
            if begun {
                return self.poll_answer(cx, request, false);
            }
            begun = true;
            self.touched = false;
            // Whoever is woken by the answer is also the first to know that there will be none.
            let waits = match self.wire.poll_fill(cx) {
                Poll::Pending => true,
                // A new connection has nobody else's answers; what this is will be seen.
                Poll::Ready(Ok(1..)) if self.fresh => false,
                Poll::Ready(_) => {
                    self.give_up();
                    return Poll::Ready(Err(Error::Closed));
                }
            };
            self.begin(request);
            self.poll_answer(cx, request, waits)
        })
        .await
    }

    /// The connection ended within a head, or before it: what is there may be none.
    fn cut_off(&mut self) -> Error {
        let Some(last) = memchr::memrchr(b'\n', &self.wire.input) else { return Error::Ended };
        let mut lines = self.wire.input.split_to(last + 1);
        lines.extend_from_slice(b"\r\n");
        head::response(lines.freeze()).map_or_else(Error::from, |_| Error::Ended)
    }

    /// Puts the head into the output.
    fn begin(&mut self, request: &Request<RequestBody>) {
        let framing = framing(request);
        self.fresh = false;
        self.keep = !lists(request.headers(), &CONNECTION, "close");
        let encoder = Encoder::new(framing);
        self.sending = Some(encoder).filter(|encoder| !encoder.is_done());
        self.announced.clear();
        if framing == Framing::Chunked && request.headers().contains_key(TRAILER) {
            self.announced.extend(trailers::announced(request.headers()));
        }
        encode::request(&RequestHead::from(request), framing, self.wire.output.flat());
    }

    /// `waits`: nothing was there to be read a moment ago.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        request: &mut Request<RequestBody>,
        waits: bool,
    ) -> Poll<Result<Answer, Error>> {
        let mut broken = None;
        if self.is_sending() {
            match self.poll_send(cx, request.body_mut()) {
                // There may be an answer nevertheless.
                Poll::Ready(Err(Error::Io(error))) => broken = Some(error),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending if waits => return Poll::Pending,
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        match (self.poll_head(cx, request.method()), broken) {
            (Poll::Ready(answer), None) => Poll::Ready(answer),
            (Poll::Ready(Ok(answer)), Some(_)) => {
                self.stop_sending();
                Poll::Ready(Ok(answer))
            }
            (Poll::Ready(Err(error)), Some(_)) => Poll::Ready(Err(error)),
            (Poll::Pending, Some(error)) => Poll::Ready(Err(error.into())),
            (Poll::Pending, None) => Poll::Pending,
        }
    }

    /// Sends what there is of the request. Ready: that was all.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RequestBody,
    ) -> Poll<Result<(), Error>> {
        loop {
            let mut starved = false;
            while self.sending.is_some() && self.wire.output.len() < ENOUGH {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => self.encode(data, body.is_end_stream())?,
                        Err(frame) => self.end_request(frame.into_trailers().ok())?,
                    },
                    Poll::Ready(Some(Err(error))) => {
                        self.give_up();
                        return Poll::Ready(Err(Error::Request(error)));
                    }
                    Poll::Ready(None) => self.end_request(None)?,
                    Poll::Pending => {
                        starved = true;
                        break;
                    }
                }
            }
            if !self.wire.output.is_empty() {
                let flushed = ready!(self.wire.poll_flush(cx));
                flushed.inspect_err(|_| self.keep = false)?;
            }
            match &self.sending {
                None => return Poll::Ready(Ok(())),
                Some(_) if starved => return Poll::Pending,
                Some(_) => {}
            }
        }
    }

    /// The rest of the request is not sent.
    pub(super) fn stop_sending(&mut self) {
        self.keep = false;
        self.sending = None;
        self.wire.output = Default::default();
    }

    fn encode(&mut self, data: Bytes, last: bool) -> Result<(), Error> {
        self.touched = true;
        let Some(encoder) = &mut self.sending else { return Ok(()) };
        encoder.data(data, &mut self.wire.output).map_err(Self::broken_request)?;
        if last {
            return self.end_request(None);
        }
        if encoder.is_done() {
            self.sending = None;
        }
        Ok(())
    }

    fn end_request(&mut self, trailers: Option<HeaderMap>) -> Result<(), Error> {
        self.touched = true;
        let Some(mut encoder) = self.sending.take() else { return Ok(()) };
        let trailers = trailers.map(|all| only(all, &self.announced));
        encoder.end(trailers.as_ref(), &mut self.wire.output).map_err(Self::broken_request)
    }

    fn broken_request(error: Malformed) -> Error {
        Error::Request(error.into())
    }

    /// Reads until the head of the answer is whole. Those of interim answers are not for anybody.
    fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<Answer, Error>> {
        loop {
            while let [b'\r' | b'\n', ..] = self.wire.input[..] {
                self.wire.input.advance(1);
            }
            let length = head::end_of_head(&self.wire.input);
            if length.unwrap_or(self.wire.input.len()) > MAX_HEAD {
                return Poll::Ready(Err(TOO_LARGE.into()));
            }
            if let Some(length) = length {
                let head = head::response(self.wire.input.split_to(length).freeze())?;
                if head.headers.len() > MAX_LINES {
                    return Poll::Ready(Err(TOO_MANY.into()));
                }
                let code = head.status.as_u16();
                if matches!(code, 100 | 102..=199) {
                    continue;
                }
                return Poll::Ready(self.answered(head, method));
            }
            if !could_be_head(&self.wire.input) {
                return Poll::Ready(Err(Malformed("it does not begin as HTTP/1 does").into()));
            }
            if ready!(self.wire.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(self.cut_off()));
            }
        }
    }
}

/// Whether an answer may begin so. Servers of other protocols are told at once.
fn could_be_head(bytes: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"HTTP/1.";
    bytes.iter().zip(BEGINNING).all(|(one, wanted)| one == wanted)
}

const TOO_LARGE: Malformed = Malformed("the head is too large");
const TOO_MANY: Malformed = Malformed("there are too many header lines");

/// How the end of a request's body is told. What its head says wins.
fn framing(request: &Request<RequestBody>) -> Framing {
    let body = request.body();
    if request.method() == Method::CONNECT {
        return Framing::None;
    }
    // Also where there is no body: a length that is not kept would take from the next request.
    if let Some(length @ 1..) = super::body::length(request.headers()).ok().flatten() {
        return Framing::Length(length);
    }
    if body.is_end_stream() {
        return Framing::None;
    }
    body.size_hint().exact().map_or(Framing::Chunked, Framing::Length)
}

/// Whether a list of words has this one.
pub(super) fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut words = lines.flat_map(|line| line.split(|byte| *byte == b','));
    words.any(|one| one.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

fn only(mut trailers: HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let unwanted: Vec<HeaderName> =
        trailers.keys().filter(|name| !names.contains(name)).cloned().collect();
    for name in unwanted {
        trailers.remove(name);
    }
    trailers
}
