//! The body of a request, read from its connection by whoever polls it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::shared::{Arriving, Inner, Shared, gone};
use crate::http::body::BodyError;
use crate::http::h1::body::Decoded;
use crate::http::h1::wire::Wire;

const MANY: &str = "there are more trailers than max_headers_count";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A body as it arrives.
pub(super) struct Incoming<T> {
    shared: Arc<Shared<T>>,
    /// All of it was read. The connection may have gone on since.
    over: bool,
}

impl<T> Incoming<T> {
    /// The one that the connection waits for.
    pub(super) fn new(shared: Arc<Shared<T>>) -> Self {
        Self { shared, over: false }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Body for Incoming<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        let mut inner = this.shared.lock();
        let Inner { wire: Some(wire), body: Some(body) } = &mut *inner else {
            return Poll::Ready(Some(Err(gone().into())));
        };
        let read = ready!(body.poll(wire, cx));
        this.over = body.decoder.is_done();
        if this.over || body.broken {
            // The connection is watched by its task again.
            body.wake(Some(cx.waker()));
        }
        Poll::Ready(read.map_err(BodyError::from).transpose())
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        if self.over {
            return SizeHint::with_exact(0);
        }
        let inner = self.shared.lock();
        let left = inner.body.as_ref().and_then(|body| body.decoder.left());
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<T> Drop for Incoming<T> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if let Some(body) = &mut self.shared.lock().body {
            body.held = false;
            body.waited_for = false;
            body.wake(None);
        }
    }
}

impl Arriving {
    /// The next piece. None: the end.
    fn poll<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        self.waited_for = false;
        if self.broken {
            return Poll::Ready(Err(gone()));
        }
        if std::mem::take(&mut self.expected) && !self.answering && wire.input.is_empty() {
            wire.output.flat().extend_from_slice(CONTINUE);
        }
        let polled = self.poll_wire(wire, cx);
        self.waited_for = polled.is_pending();
        self.broken = matches!(polled, Poll::Ready(Err(_)));
        polled
    }

    fn poll_wire<T: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        wire: &mut Wire<T>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        loop {
            let decoded = self.decoder.decode(&mut wire.input);
            match decoded.map_err(|no| io::Error::new(io::ErrorKind::InvalidData, no))? {
                Decoded::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Decoded::Trailers(all) if all.len() > self.max_trailers => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, MANY)));
                }
                Decoded::Trailers(all) => return Poll::Ready(Ok(Some(Frame::trailers(all)))),
                Decoded::End => return Poll::Ready(Ok(None)),
                Decoded::More => {}
            }
            if !self.answering && !wire.output.is_empty() {
                // The client waits for it. What cannot be written now goes before the answer.
                let _ = wire.poll_flush(cx)?;
            }
            if ready!(wire.poll_fill(cx))? == 0 {
                self.decoder
                    .end_of_input()
                    .map_err(|early| io::Error::new(io::ErrorKind::UnexpectedEof, early))?;
            }
        }
    }
}
