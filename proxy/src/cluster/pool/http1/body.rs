//! The body of an answer, read from its connection.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use http_body::Frame;

use super::send::{Answer, lists};
use super::{Error, Http1};
use crate::http::body::BodyError;
use crate::http::h1::body::{Decoded, Decoder};
use crate::http::h1::{Framing, Malformed};
use crate::http::presence::Presence;
use crate::net::splice::Pipe;

/// Bytes of trailers, and of chunk extensions.
const MAX_BESIDE: usize = 16 << 10;

impl Http1 {
    /// The head of the answer is here.
    pub(super) fn answered(&mut self, head: Parts, method: &Method) -> Result<Answer, Error> {
        let status = head.status.as_u16();
        let present = Presence::of(&head.headers);
        let framing = framing(&head, present, method)?;
        let switches = status == 101 || (method == Method::CONNECT && head.status.is_success());
        self.keep &= framing != Framing::UntilClose && keeps_alive(&head, present);
        self.decoder = Decoder::new(framing, MAX_BESIDE);
        self.ahead = None;
        Ok(Answer { head, present, switches })
    }

    /// All of the answer has been read.
    pub(in super::super) fn is_over(&self) -> bool {
        self.decoder.is_done() && self.ahead.is_none()
    }

    /// Bytes of the answer that are still to come, where that is known.
    pub(in super::super) fn left(&self) -> Option<u64> {
        self.decoder.left().filter(|_| self.ahead.is_none())
    }

    /// Bytes of the answer, all that is left of it, that can go past this program's memory.
    pub(in super::super) fn straight(&self) -> u64 {
        let here = self.ahead.is_some() || !self.wire.input.is_empty() || self.is_sending();
        if here || !self.wire.io.is_plain() { 0 } else { self.left().unwrap_or(0) }
    }

    /// The next of them. 0: they have to be read.
    pub(in super::super) fn poll_straight(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        let passed = ready!(self.wire.io.poll_splice(self.straight(), cx, pipe));
        match &passed {
            Ok(bytes) => self.decoder.pass(*bytes as u64),
            Err(_) => self.keep = false,
        }
        Poll::Ready(passed)
    }

    /// The next piece of the answer.
    pub(in super::super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = ready!(self.poll_decoded(cx));
        Poll::Ready(match polled {
            Ok(Decoded::Data(data)) => {
                self.look_ahead();
                Some(Ok(Frame::data(data)))
            }
            Ok(Decoded::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Decoded::End | Decoded::More) => None,
            Err(error) => {
                self.keep = false;
                Some(Err(error.into()))
            }
        })
    }

    fn poll_decoded(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Decoded>> {
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(ahead.map_err(malformed));
        }
        loop {
            match self.decoder.decode(&mut self.wire.input).map_err(malformed)? {
                Decoded::More => {}
                decoded => return Poll::Ready(Ok(decoded)),
            }
            if ready!(self.wire.poll_fill(cx))? == 0 {
                let ended = self.decoder.end_of_input();
                let cut = |error: Malformed| io::Error::new(io::ErrorKind::UnexpectedEof, error);
                return Poll::Ready(ended.map(|()| Decoded::End).map_err(cut));
            }
        }
    }

    /// The end of a chunked body is mostly here together with its last piece: whoever knows that
    /// can send both at once, and the connection is free earlier.
    fn look_ahead(&mut self) {
        if self.decoder.left().is_none() && !self.wire.input.is_empty() {
            let next = self.decoder.decode(&mut self.wire.input);
            self.ahead = Some(next).filter(|n| !matches!(n, Ok(Decoded::End | Decoded::More)));
        }
    }
}

fn malformed(error: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Where an answer ends (RFC 9112 section 6.3). An answer with two lengths, or with a coding that
/// is not taken off, ends nobody knows where (section 6.1).
fn framing(head: &Parts, present: Presence, method: &Method) -> Result<Framing, Error> {
    let status = head.status.as_u16();
    let chunked = present.has(Presence::FRAMING) && chunked(&head.headers)?;
    let bodiless = matches!(status, 101 | 204 | 304)
        || *method == Method::HEAD
        || (*method == Method::CONNECT && head.status.is_success());
    if bodiless {
        return Ok(Framing::None);
    }
    if chunked {
        if head.version == Version::HTTP_10 {
            return Err(Malformed("HTTP/1.0 has no transfer-encoding").into());
        }
        return Ok(Framing::Chunked);
    }
    Ok(length(&head.headers)?.map_or(Framing::UntilClose, Framing::Length))
}

/// Whether it is in chunks, and in nothing else.
fn chunked(headers: &HeaderMap) -> Result<bool, Error> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes);
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(coding), None)
            if coding.eq_ignore_ascii_case(b"chunked") && !headers.contains_key(CONTENT_LENGTH) =>
        {
            Ok(true)
        }
        _ => Err(Error::Ambiguous),
    }
}

/// What `content-length` says, however often it says so.
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let wrong = Malformed("content-length is no number");
    let mut length = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        for number in line.as_bytes().split(|byte| *byte == b',') {
            let number = number.trim_ascii();
            if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
                return Err(wrong);
            }
            let number: Option<u64> = str::from_utf8(number).ok().and_then(|n| n.parse().ok());
            let number = number.ok_or(wrong)?;
            if length.is_some_and(|length| length != number) {
                return Err(Malformed("there are two different content-lengths"));
            }
            length = Some(number);
        }
    }
    Ok(length)
}

/// Whether the endpoint takes another request on this connection (RFC 9112 section 9.3).
fn keeps_alive(head: &Parts, present: Presence) -> bool {
    let says = |word| present.has(Presence::CONNECTION) && lists(&head.headers, &CONNECTION, word);
    !says("close") && (head.version != Version::HTTP_10 || says("keep-alive"))
}
