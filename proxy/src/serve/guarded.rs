//! The bytes of an HTTP/1 connection, looked at before the parser sees them.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::HOST;
use http::{Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::meter::Metered;
use crate::http::guard::{Guard, Rules, Step, Verdict};
use crate::model::http::HttpManager;

/// Stands for a request that may not pass: the parser reads this, and the exchange finds the
/// verdict on its connection. So a refusal has a log line, metrics and headers as any other.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

/// Whether a request is the stand-in of one that may not pass.
pub(super) fn verdict<B>(refused: &Refused, request: &Request<B>) -> Option<Verdict> {
    let stands_in = request.headers().get(HOST).is_some_and(|host| host == "-");
    refused.get().copied().filter(|_| stands_in)
}

/// What was refused on a connection. Nothing follows it.
pub(crate) type Refused = Arc<OnceLock<Verdict>>;

/// A connection with its guard.
#[derive(Debug)]
pub(super) struct Guarded {
    io: Metered,
    guard: Guard,
    refused: Refused,
    /// Read, and not passed yet: a head that is not whole. Or passed, and not taken yet.
    held: Vec<u8>,
    /// So much of `held` may be taken.
    free: usize,
    ended: bool,
    /// How long a head may take from its first byte.
    patience: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Guarded {
    pub(super) fn new(io: Metered, manager: &HttpManager, refused: Refused) -> Self {
        let rules = Rules {
            max_head: manager.limits.max_request_headers_kb as usize * 1024,
            max_lines: manager.limits.max_headers_count as usize,
            accept_http_10: manager.accept_http_10,
            allow_chunked_length: manager.allow_chunked_length,
        };
        let guard = Guard::new(rules);
        let patience = manager.timeouts.request_headers;
        let (held, timer) = (Vec::new(), None);
        Self { io, guard, refused, held, free: 0, ended: false, patience, timer }
    }

    /// Give away what may pass of what is held.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.free.min(buf.remaining());
        buf.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.drain(..count);
        self.free -= count;
    }

    /// Look at everything that is held, and free what may pass.
    fn look(&mut self) {
        match self.guard.look(&self.held) {
            Step::Pass(passed) => {
                self.free = passed;
                if passed > 0 {
                    self.timer = None;
                }
            }
            Step::End(passed) => self.end(passed),
            Step::Refuse(passed, verdict) => {
                // Nobody else sets it.
                let _ = self.refused.set(verdict);
                self.end(passed);
                self.held.extend_from_slice(STAND_IN);
                self.free = self.held.len();
            }
        }
    }

    /// The common case: whole heads and pieces of bodies, without a copy. None: nothing may pass yet.
    fn poll_straight(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Option<io::Result<()>>> {
        let before = buf.filled().len();
        if let Err(error) = ready!(Pin::new(&mut self.io).poll_read(cx, buf)) {
            return Poll::Ready(Some(Err(error)));
        }
        let new = buf.filled().get(before..).unwrap_or_default();
        if new.is_empty() {
            self.ended = true;
            return Poll::Ready(Some(Ok(())));
        }
        let passed = match self.guard.look(new) {
            Step::Pass(passed) => {
                self.held = new.get(passed..).unwrap_or_default().to_vec();
                passed
            }
            Step::End(passed) => {
                self.ended = true;
                buf.set_filled(before + passed);
                return Poll::Ready(Some(Ok(())));
            }
            Step::Refuse(passed, verdict) => {
                let _ = self.refused.set(verdict);
                self.held = STAND_IN.to_vec();
                self.free = STAND_IN.len();
                passed
            }
        };
        buf.set_filled(before + passed);
        Poll::Ready((passed > 0).then_some(Ok(())))
    }

    /// Half a head: has it been too long?
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(patience) = self.patience else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(timer.as_mut().poll(cx));
        let status = StatusCode::REQUEST_TIMEOUT;
        let why = "the head took longer than request_headers_timeout";
        let _ = self.refused.set(Verdict { status, why });
        self.end(0);
        self.held.extend_from_slice(STAND_IN);
        self.free = self.held.len();
        Poll::Ready(())
    }

    fn end(&mut self, passed: usize) {
        self.held.truncate(passed);
        self.free = passed;
        self.ended = true;
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.free > 0 {
                this.give(buf);
                return Poll::Ready(Ok(()));
            }
            if this.refused.get().is_some() {
                // The answer ends the connection: an end before that would look like a peer that left.
                return Poll::Pending;
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            if this.guard.is_through() && this.held.is_empty() {
                return Pin::new(&mut this.io).poll_read(cx, buf);
            }
            if !this.held.is_empty() {
                // More of a head.
                let mut more = [0; 4096];
                let mut more = ReadBuf::new(&mut more);
                if Pin::new(&mut this.io).poll_read(cx, &mut more)?.is_pending() {
                    ready!(this.poll_patience(cx));
                    continue;
                }
                if more.filled().is_empty() {
                    // Half a head, and the peer is gone: nothing to be answered.
                    this.held.clear();
                    this.ended = true;
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(more.filled());
                this.look();
                continue;
            }
            if let Some(ready) = ready!(this.poll_straight(cx, buf)) {
                return Poll::Ready(ready);
            }
        }
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
