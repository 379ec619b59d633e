//! The frames of an HTTP/2 connection, counted before the parser sees them.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http::frames::{Flood, FrameGuard};
use crate::http::gather::Gather;
use crate::model::cluster::FrameLimits;

/// DATA on stream 0, a connection error (RFC 9113 section 6.1): the parser answers it with GOAWAY
/// and ends the connection, which is what a flood deserves.
const POISON: &[u8] = &[0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

/// A connection with its guard.
#[derive(Debug)]
pub(super) struct Framed<T> {
    io: Gather<T>,
    guard: FrameGuard,
    seen: Arc<Seen>,
    /// Not given to the parser yet.
    poison: &'static [u8],
}

/// What whoever serves the connection learns of its bytes.
#[derive(Debug, Default)]
pub(super) struct Seen {
    received: AtomicU64,
    flood: OnceLock<Flood>,
}

impl Seen {
    /// Bytes so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Why the connection ends, if it is for a flood of frames.
    pub(super) fn flood(&self) -> Option<Flood> {
        self.flood.get().copied()
    }
}

impl<T> Framed<T> {
    pub(super) fn new(io: Gather<T>, limits: FrameLimits, seen: Arc<Seen>) -> Self {
        Self { io, guard: FrameGuard::new(limits), seen, poison: &[] }
    }

    fn give_poison(&mut self, buf: &mut ReadBuf<'_>) {
        let (now, later) = self.poison.split_at(self.poison.len().min(buf.remaining()));
        buf.put_slice(now);
        self.poison = later;
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Framed<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.seen.flood().is_some() {
            // After the poison, an end.
            this.give_poison(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        this.seen.received.fetch_add(new.len() as u64, Ordering::Relaxed);
        if let Some((end, flood)) = this.guard.read(new) {
            buf.set_filled(before + end);
            // It is the first: nothing is read after it.
            let _ = this.seen.flood.set(flood);
            this.poison = POISON;
            this.give_poison(buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Framed<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.guard.written(buf.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            this.guard.written(buf.get(..part).unwrap_or_default());
            left -= part;
        }
        Poll::Ready(Ok(written))
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
