//! A stream that has become a tunnel: CONNECT (RFC 9113 section 8.5) and extended CONNECT (RFC 8441).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes of a tunnel. Dropped before both sides have ended, the stream is reset.
#[derive(Debug)]
pub struct Tunnel {
    to: SendStream<Bytes>,
    from: RecvStream,
    /// Received, and not yet read.
    ahead: Bytes,
    /// We have ended our side.
    ended: bool,
}

impl Tunnel {
    /// Of a stream whose heads are exchanged.
    pub fn new(to: SendStream<Bytes>, from: RecvStream) -> Self {
        Self { to, from, ahead: Bytes::new(), ended: false }
    }

    /// What a write fails with: the reset that came in the meantime, if one did.
    fn refused(&mut self, cx: &mut Context<'_>) -> io::Error {
        match self.to.poll_reset(cx) {
            Poll::Ready(Ok(Reason::NO_ERROR | Reason::CANCEL | Reason::STREAM_CLOSED)) => {
                io::ErrorKind::BrokenPipe.into()
            }
            Poll::Ready(Ok(reason)) => failed(reason.into()),
            Poll::Ready(Err(error)) => failed(error),
            Poll::Pending => io::ErrorKind::BrokenPipe.into(),
        }
    }
}

fn failed(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error.into_io().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::other(error)
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.ahead.is_empty() {
            match ready!(self.from.poll_data(cx)) {
                Some(Ok(data)) => self.ahead = data,
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => {
                    return Poll::Ready(match error.reason() {
                        Some(Reason::NO_ERROR | Reason::CANCEL) => Ok(()),
                        _ => Err(failed(error)),
                    });
                }
            }
        }
        let length = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..length]);
        self.ahead.advance(length);
        // It fails only for more than was received.
        let _ = self.from.flow_control().release_capacity(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.to.reserve_capacity(buf.len());
        while self.to.capacity() == 0 {
            match ready!(self.to.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(self.refused(cx))),
            }
        }
        let length = self.to.capacity().min(buf.len());
        match self.to.send_data(Bytes::copy_from_slice(&buf[..length]), false) {
            Ok(()) => Poll::Ready(Ok(length)),
            Err(_) => Poll::Ready(Err(self.refused(cx))),
        }
    }

    /// What drives the connection sends it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.ended, true)
            && self.to.send_data(Bytes::new(), true).is_err()
        {
            return Poll::Ready(match self.to.poll_reset(cx) {
                // It wants nothing any more: so be it.
                Poll::Ready(Ok(Reason::NO_ERROR)) => Ok(()),
                _ => Err(self.refused(cx)),
            });
        }
        Poll::Ready(Ok(()))
    }
}
