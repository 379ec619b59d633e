//! Connections that go on in another protocol, whoever read the HTTP before that.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::Extensions;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

/// The bytes that a message's connection will be. In the extensions of the message.
#[derive(Clone, Debug)]
pub struct OnUpgrade(Arc<Mutex<oneshot::Receiver<Upgraded>>>);

/// Whoever has the connection grants the upgrade with this. Dropped: it does not happen.
#[derive(Debug)]
pub struct Granting(oneshot::Sender<Upgraded>);

/// An upgrade that may happen, and who grants it.
pub fn pending() -> (Granting, OnUpgrade) {
    let (sender, receiver) = oneshot::channel();
    (Granting(sender), OnUpgrade(Arc::new(Mutex::new(receiver))))
}

/// Whether a message's connection may go on in another protocol.
pub fn offered(extensions: &Extensions) -> bool {
    extensions.get::<OnUpgrade>().is_some()
}

/// The upgrade out of a message. None: its connection offers none.
pub fn take(extensions: &mut Extensions) -> Option<OnUpgrade> {
    extensions.remove()
}

impl Granting {
    /// The connection, and what was read of it already.
    pub fn grant<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(self, io: T, read: Bytes) {
        // Who does not wait for it any more has closed it.
        drop(self.0.send(Upgraded { io: Box::new(io), read }));
    }
}

impl Future for OnUpgrade {
    type Output = io::Result<Upgraded>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "there was no upgrade");
        Pin::new(&mut *receiver).poll(cx).map_err(gone)
    }
}

/// A connection that has become a stream of bytes.
pub struct Upgraded {
    io: Box<dyn Duplex>,
    /// Read of it before that.
    read: Bytes,
}

impl std::fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upgraded").field("read", &self.read.len()).finish_non_exhaustive()
    }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_read_already_comes_first() {
        let (near, mut far) = tokio::io::duplex(100);
        let (granting, on) = pending();
        let mut extensions = Extensions::new();
        extensions.insert(on);
        assert!(offered(&extensions));
        let on = take(&mut extensions).unwrap();
        assert!(!offered(&extensions));
        granting.grant(near, Bytes::from_static(b"early "));
        far.write_all(b"late").await.unwrap();
        let mut upgraded = on.await.unwrap();
        let mut text = [0; 10];
        upgraded.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"early late");
        upgraded.write_all(b"back").await.unwrap();
        drop(upgraded);
        let mut back = String::new();
        far.read_to_string(&mut back).await.unwrap();
        assert_eq!(back, "back");
    }

    #[tokio::test]
    async fn an_upgrade_that_is_not_granted_fails() {
        let (granting, on) = pending();
        drop(granting);
        assert!(on.await.is_err());
    }
}
