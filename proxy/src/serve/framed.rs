//! The frames of an HTTP/2 connection, counted before the parser sees them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::listener::Http;
use super::meter::Metered;
use crate::http::frames::{Flood, FrameGuard};
use crate::http::gather::Gather;

/// DATA on stream 0, a connection error (RFC 9113 section 6.1): the parser answers it with GOAWAY
/// and ends the connection, which is what a flood deserves.
const POISON: &[u8] = &[0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

/// A connection with its guard.
#[derive(Debug)]
pub(super) struct Framed {
    io: Gather<Metered>,
    guard: FrameGuard,
    http: Arc<Http>,
    /// Not given to the parser yet.
    poison: &'static [u8],
    flooded: bool,
}

impl Framed {
    pub(super) fn new(io: Gather<Metered>, http: Arc<Http>) -> Self {
        let guard = FrameGuard::new(http.manager.http2.frames);
        Self { io, guard, http, poison: &[], flooded: false }
    }

    fn flooded(&mut self, flood: Flood) {
        let stats = &self.http.stats;
        match flood {
            Flood::Empty => stats.inbound_empty_frames_flood.inc(),
            Flood::Priority => stats.inbound_priority_frames_flood.inc(),
            Flood::WindowUpdate => stats.inbound_window_update_frames_flood.inc(),
        }
        self.poison = POISON;
        self.flooded = true;
    }

    fn give_poison(&mut self, buf: &mut ReadBuf<'_>) {
        let (now, later) = self.poison.split_at(self.poison.len().min(buf.remaining()));
        buf.put_slice(now);
        self.poison = later;
    }
}

impl AsyncRead for Framed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.flooded {
            // After the poison, an end.
            this.give_poison(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if let Some((end, flood)) = this.guard.read(new) {
            buf.set_filled(before + end);
            this.flooded(flood);
            this.give_poison(buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Framed {
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
