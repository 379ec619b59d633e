//! The bytes of a downstream connection, counted, and who ended it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Connection;
use crate::net::Io;
use crate::net::splice::Drain;

/// A connection that counts itself: `downstream_cx_rx_bytes_total`, `downstream_cx_destroy_remote` …
#[derive(Debug)]
pub(super) struct Metered {
    io: Io,
    /// Taken from it before anybody knew how to read them.
    early: Vec<u8>,
    connection: Arc<Connection>,
    /// The peer ended it, or it broke.
    remote: bool,
}

impl Metered {
    pub(super) fn new(io: Io, early: Vec<u8>, connection: Arc<Connection>) -> Self {
        Self { io, early, connection, remote: false }
    }

    fn give_early(&mut self, buf: &mut ReadBuf<'_>) {
        let later = self.early.split_off(self.early.len().min(buf.remaining()));
        buf.put_slice(&self.early);
        self.early = later;
    }

    fn sent(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(bytes) = &polled {
            self.drained(bytes);
        }
        polled
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        self.connection.lifetime.end();
        let stats = &self.connection.http.stats;
        let (all, with_requests) = if self.remote {
            (&stats.downstream_cx_destroy_remote, &stats.downstream_cx_destroy_remote_active_rq)
        } else {
            (&stats.downstream_cx_destroy_local, &stats.downstream_cx_destroy_local_active_rq)
        };
        all.inc();
        if self.connection.lifetime.is_busy() {
            with_requests.inc();
            stats.downstream_cx_destroy_active_rq.inc();
        }
    }
}

impl Drain for Metered {
    fn plain(&self) -> Option<&TcpStream> {
        self.io.plain()
    }

    fn drained(&mut self, bytes: &io::Result<usize>) {
        match bytes {
            Ok(bytes) => {
                self.connection.http.stats.downstream_cx_tx_bytes_total.add(*bytes as u64);
            }
            Err(_) => self.remote = true,
        }
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = if self.early.is_empty() {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))
        } else {
            self.give_early(buf);
            Ok(())
        };
        match buf.filled().len() - before {
            0 => self.remote = true,
            bytes => self.connection.http.stats.downstream_cx_rx_bytes_total.add(bytes as u64),
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.sent(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.sent(polled)
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
