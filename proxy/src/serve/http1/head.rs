//! Heads of requests: read whole, looked at by the guard, parsed once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use super::Settings;
use super::shared::{Inner, Shared, gone};
use crate::http::guard::{self, Follows, Verdict};
use crate::http::h1::head;

/// What comes next on a connection.
#[expect(
    clippy::large_enum_variant,
    reason = "moved once; boxing would cost an allocation a request"
)]
pub(super) enum Next {
    /// A request.
    Request(Parts, Follows),
    /// One that may not pass. Nothing follows it.
    Refused(Verdict),
}

/// Reads one head after the other.
#[derive(Debug)]
pub(super) struct Reader {
    settings: Settings,
    /// So much was looked at, and has no end.
    looked: usize,
    /// Runs while there is half a head.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Reader {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, looked: 0, timer: None }
    }

    /// The next request. None: there is none any more.
    pub(super) fn poll<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        shared: &Shared<T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Next>>> {
        let mut inner = shared.lock();
        let Some(wire) = &mut inner.wire else { return Poll::Ready(Err(gone())) };
        loop {
            if let Some(next) = self.look(&mut wire.input) {
                self.timer = None;
                self.looked = 0;
                return Poll::Ready(Ok(Some(next)));
            }
            if shared.is_finishing() {
                return Poll::Ready(Ok(None));
            }
            match wire.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if wire.input.is_empty() => {
                    Inner::rest(wire);
                    return Poll::Pending;
                }
                Poll::Pending => {
                    ready!(self.poll_patience(cx));
                    return Poll::Ready(Ok(Some(Next::Refused(guard::TOO_SLOW))));
                }
            }
        }
    }

    /// The head at the beginning, once it is whole, or has no chance of becoming that.
    fn look(&mut self, input: &mut BytesMut) -> Option<Next> {
        let blank = input.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        // An end may have begun in what was looked at.
        let from = blank.max(self.looked.saturating_sub(3));
        let length = head::end_of_head(input.get(from..)?).map(|length| from + length);
        if length.unwrap_or(input.len()) > self.settings.rules.max_head {
            return Some(Next::Refused(guard::TOO_LARGE));
        }
        let Some(length) = length else {
            self.looked = input.len();
            return None;
        };
        let mut head = take(input, length);
        head.advance(blank);
        let parsed = guard::check(&head, &self.settings.rules).and_then(|follows| {
            let parts = head::request(head).map_err(|malformed| guard::bad(malformed.0))?;
            Ok(Next::Request(parts, follows))
        });
        Some(parsed.unwrap_or_else(Next::Refused))
    }

    /// Half a head: has it been too long?
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(patience) = self.settings.patience else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        timer.as_mut().poll(cx)
    }
}

/// The first bytes. Mostly they are all of them: then the whole buffer goes.
fn take(input: &mut BytesMut, length: usize) -> Bytes {
    if length == input.len() {
        std::mem::take(input).freeze()
    } else {
        input.split_to(length).freeze()
    }
}
