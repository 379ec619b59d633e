//! HTTP/2 frames on their way out, gathered into few writes.
//!
//! The HTTP/2 library writes a frame with data as soon as it has one, because it flushes before it
//! takes the next. Over TLS each of these writes is a record and a system call of its own. Here what
//! is written while a connection is polled waits until the poll is over, and goes out at once.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wakes::Wakes;

/// So many bytes are gathered: four records of TLS.
const ROOM: usize = 64 << 10;
/// Larger writes go out as they are.
const LARGE: usize = 32 << 10;

thread_local! {
    /// A connection needs a buffer only while it is polled: one serves all of a worker.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection whose writes are gathered until [`Gathered`] has been polled.
#[derive(Debug)]
pub struct Gather<T> {
    shared: Arc<Mutex<Shared<T>>>,
}

#[derive(Debug)]
struct Shared<T> {
    io: T,
    wakes: Wakes,
    held: Vec<u8>,
    /// So much of `held` is written.
    written: usize,
    /// Something was written since the last flush.
    dirty: bool,
    /// What a write failed with that nobody has heard of.
    failed: Option<io::Error>,
}

pin_project! {
    /// Work on a connection: sends what it has written, each time that it has been polled.
    #[derive(Debug)]
    pub struct Gathered<T, F> {
        shared: Arc<Mutex<Shared<T>>>,
        #[pin]
        work: F,
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Gather<T> {
    /// Nothing goes out unless [`Gathered`] is polled.
    pub fn new(io: T) -> Self {
        let held = Vec::new();
        let wakes = Wakes::default();
        let shared = Shared { io, wakes, held, written: 0, dirty: false, failed: None };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The same connection for the one who makes the work that [`Sender::by`] is given.
    pub fn sender(&self) -> Sender<T> {
        Sender { shared: Arc::clone(&self.shared) }
    }
}

/// Makes [`Gathered`].
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Mutex<Shared<T>>>,
}

impl<T> Sender<T> {
    /// `work` is all that writes to the connection.
    pub fn by<F>(self, work: F) -> Gathered<T, F> {
        Gathered { shared: self.shared, work }
    }
}

impl<T, F> Gathered<T, F> {
    /// What works on the connection.
    pub fn work(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().work
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, F: Future> Future for Gathered<T, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.work.poll(cx);
        let mut shared = lock(this.shared);
        if let Poll::Ready(Err(error)) = shared.poll_send(cx) {
            shared.give_up(error);
            cx.waker().wake_by_ref();
        }
        drop(shared);
        polled
    }
}

fn lock<T>(shared: &Mutex<Shared<T>>) -> MutexGuard<'_, Shared<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncWrite + Unpin> Shared<T> {
    /// What is held is never sent. Whoever reads or writes next hears why.
    fn give_up(&mut self, error: io::Error) {
        self.failed = Some(error);
        self.held = Vec::new();
        self.written = 0;
        self.dirty = false;
    }

    fn fail(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// Sends everything.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_write(cx))?;
        if self.dirty {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is held.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left @ [_, ..]) = self.held.get(self.written..) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.written = 0;
        self.held.clear();
        if self.held.capacity() > 0 {
            SPARE.set(std::mem::take(&mut self.held));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.fail()?;
        let size: usize = bufs.iter().map(|buf| buf.len()).sum();
        if self.held.len() + size > ROOM || size > LARGE {
            ready!(self.poll_write(cx))?;
        }
        self.dirty = true;
        if size > LARGE {
            return Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        }
        if self.held.capacity() == 0 {
            self.held = SPARE.take();
        }
        for buf in bufs {
            self.held.extend_from_slice(buf);
        }
        Poll::Ready(Ok(size))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gather<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.shared);
        shared.fail()?;
        let Shared { io, wakes, .. } = &mut *shared;
        wakes.poll(cx, |cx| Pin::new(io).poll_read(cx, buf))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gather<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        lock(&self.shared).poll_gather(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        lock(&self.shared).poll_gather(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Not now: when the poll is over.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(lock(&self.shared).fail())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = lock(&self.shared);
        shared.fail()?;
        ready!(shared.poll_send(cx))?;
        Pin::new(&mut shared.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    /// Counts writes.
    struct Count(DuplexStream, Arc<Mutex<Vec<usize>>>);

    impl AsyncRead for Count {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Count {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let written = ready!(Pin::new(&mut self.0).poll_write(cx, buf))?;
            self.1.lock().unwrap().push(written);
            Poll::Ready(Ok(written))
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test]
    async fn what_is_written_in_one_poll_is_one_write() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let writes = Arc::new(Mutex::new(Vec::new()));
        let mut io = Gather::new(Count(near, Arc::clone(&writes)));
        let work = io.sender().by(async move {
            for piece in [&b"one"[..], b"two", b"three"] {
                io.write_all(piece).await?;
                io.flush().await?;
            }
            tokio::task::yield_now().await;
            io.write_all(b"four").await?;
            tokio::task::yield_now().await;
            io.shutdown().await
        });
        work.await.unwrap();
        let mut all = String::new();
        far.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "onetwothreefour");
        assert_eq!(*writes.lock().unwrap(), [11, 4]);
    }

    #[tokio::test]
    async fn more_than_fits_goes_out_in_order_through_a_narrow_pipe() {
        let (near, mut far) = tokio::io::duplex(777);
        let mut io = Gather::new(near);
        let piece = |at: usize| vec![at as u8; at * 3000];
        let work = io.sender().by(async move {
            for at in 0..15 {
                io.write_all(&piece(at)).await?;
            }
            io.shutdown().await
        });
        let read = async {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.map(|_| all)
        };
        let (done, all) = tokio::join!(work, read);
        done.unwrap();
        assert_eq!(all.unwrap(), (0..15).flat_map(piece).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_write_that_fails_is_heard_of_by_the_reader() {
        let (near, far) = tokio::io::duplex(777);
        drop(far);
        let mut io = Gather::new(near);
        let work = io.sender().by(async move {
            io.write_all(b"into nothing").await?;
            poll_fn({
                let mut yielded = false;
                move |cx| {
                    cx.waker().wake_by_ref();
                    if std::mem::replace(&mut yielded, true) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                }
            })
            .await;
            io.read_u8().await
        });
        assert_eq!(work.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
