//! Copying bytes both ways between two streams.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::io::poll_read_buf;

/// Buffer sizes, smallest first: one that was filled by a read is followed by the next.
const SIZES: [usize; 3] = [1 << 10, 16 << 10, 256 << 10];

/// One end of a copied connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first stream.
    Downstream,
    /// The second stream.
    Upstream,
}

/// When copying ends by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// After so long without a byte either way. None: never.
    pub idle: Option<Duration>,
    /// So long after its start, whatever happens. None: never.
    pub max_duration: Option<Duration>,
    /// Most bytes that are buffered from downstream, and from upstream. None: 256 KiB.
    pub buffers: Option<(usize, usize)>,
}

/// Why copying ended.
#[derive(Debug)]
pub enum CopyEnd {
    /// Both sides have said all that they had to say.
    Finished,
    /// [`CopyOptions::idle`] ran out.
    Idle,
    /// [`CopyOptions::max_duration`] ran out.
    MaxDuration,
    /// The caller's `stop` said so.
    Stopped,
    /// One side failed.
    Failed {
        /// Which.
        side: Side,
        /// How; often a reset.
        error: io::Error,
    },
}

/// What was copied.
#[derive(Debug)]
pub struct Copied {
    /// Bytes read from downstream and written upstream.
    pub from_downstream: u64,
    /// Bytes read from upstream and written downstream.
    pub from_upstream: u64,
    /// Why it ended.
    pub end: CopyEnd,
}

/// Copies both ways until both sides have ended, a timeout runs out, a side fails, or `stop`
/// completes. When one side ends, the other's writing half is shut down and the rest goes on.
///
/// `progress` is told of bytes as they are written: the side that they came from, and how many.
/// A connection without traffic holds no buffer; a busy one has up to [`CopyOptions::buffers`] each way. TLS that
/// ends without `close_notify` counts as ended.
pub async fn bidirectional<A, B>(
    downstream: &mut A,
    upstream: &mut B,
    options: CopyOptions,
    stop: impl Future<Output = ()>,
    mut progress: impl FnMut(Side, usize),
) -> Copied
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let start = Instant::now();
    let mut stop = pin!(stop);
    let mut idle = pin!(options.idle.map(|idle| sleep_until(start + idle)));
    let mut whole = pin!(options.max_duration.map(|most| sleep_until(start + most)));
    let mut last = start;
    let (up_most, down_most) = options.buffers.unwrap_or((SIZES[2], SIZES[2]));
    let mut up = Half::new(Side::Downstream, up_most);
    let mut down = Half::new(Side::Upstream, down_most);
    let end = poll_fn(|cx| {
        let before = up.activity + down.activity;
        let sent = up.poll(cx, downstream, upstream, &mut progress);
        let received = down.poll(cx, upstream, downstream, &mut progress);
        match (sent, received) {
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => return Poll::Ready(end),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(CopyEnd::Finished),
            _ => {}
        }
        if stop.as_mut().poll(cx).is_ready() {
            return Poll::Ready(CopyEnd::Stopped);
        }
        if poll_timer(&mut whole, cx).is_ready() {
            return Poll::Ready(CopyEnd::MaxDuration);
        }
        if let Some(after) = options.idle {
            if up.activity + down.activity != before {
                last = Instant::now();
            }
            ready!(poll_idle(&mut idle, cx, last + after));
            return Poll::Ready(CopyEnd::Idle);
        }
        Poll::Pending
    })
    .await;
    Copied { from_downstream: up.bytes, from_upstream: down.bytes, end }
}

/// One direction.
struct Half {
    from: Side,
    state: State,
    buffer: BytesMut,
    size: usize,
    most: usize,
    bytes: u64,
    // Counts everything that moved; compared, never shown.
    activity: u64,
    // Something was written that may still sit in the writer (TLS).
    unflushed: bool,
}

#[derive(PartialEq)]
enum State {
    Copying,
    Ended,
    Done,
}

impl Half {
    fn new(from: Side, most: usize) -> Self {
        let most = most.max(1);
        Self {
            from,
            state: State::Copying,
            buffer: BytesMut::new(),
            size: SIZES[0].min(most),
            most,
            bytes: 0,
            activity: 0,
            unflushed: false,
        }
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
        progress: &mut impl FnMut(Side, usize),
    ) -> Poll<Result<(), CopyEnd>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.poll_write(cx, writer, progress))?;
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Ended => {
                    // Shutting down flushes. A peer that is gone already has nothing to be told.
                    let shut = ready!(Pin::new(&mut *writer).poll_shutdown(cx));
                    if let Err(error) = shut
                        && error.kind() != io::ErrorKind::NotConnected
                    {
                        return Poll::Ready(Err(self.failed_writing(error)));
                    }
                    self.state = State::Done;
                }
                State::Copying => match self.poll_fill(cx, reader) {
                    Poll::Ready(filled) => filled?,
                    Poll::Pending => {
                        if self.unflushed {
                            match Pin::new(&mut *writer).poll_flush(cx) {
                                Poll::Ready(Ok(())) => self.unflushed = false,
                                Poll::Ready(Err(error)) => {
                                    return Poll::Ready(Err(self.failed_writing(error)));
                                }
                                Poll::Pending => {}
                            }
                        }
                        return Poll::Pending;
                    }
                },
            }
        }
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
        progress: &mut impl FnMut(Side, usize),
    ) -> Poll<Result<(), CopyEnd>> {
        while !self.buffer.is_empty() {
            let written = match ready!(Pin::new(&mut *writer).poll_write(cx, &self.buffer)) {
                Ok(0) => {
                    return Poll::Ready(Err(self.failed_writing(io::ErrorKind::WriteZero.into())));
                }
                Ok(written) => written,
                Err(error) => return Poll::Ready(Err(self.failed_writing(error))),
            };
            self.buffer.advance(written);
            self.bytes += written as u64;
            self.activity += written as u64;
            self.unflushed = true;
            progress(self.from, written);
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into the empty buffer. While there is nothing to read, there is no buffer.
    fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
    ) -> Poll<Result<(), CopyEnd>> {
        self.buffer.reserve(self.size);
        match poll_read_buf(Pin::new(reader), cx, &mut self.buffer) {
            Poll::Pending => {
                self.buffer = BytesMut::new();
                self.size = self.size.min(SIZES[1]);
                Poll::Pending
            }
            Poll::Ready(Ok(0)) => {
                self.end();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(read)) => {
                self.activity += 1;
                if read >= self.size {
                    let larger = SIZES.into_iter().find(|size| *size > self.size);
                    self.size = larger.unwrap_or(self.size).min(self.most);
                }
                Poll::Ready(Ok(()))
            }
            // TLS without close_notify: many peers just close.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.end();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(CopyEnd::Failed { side: self.from, error })),
        }
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.activity += 1;
        self.buffer = BytesMut::new();
    }

    fn failed_writing(&self, error: io::Error) -> CopyEnd {
        let side = match self.from {
            Side::Downstream => Side::Upstream,
            Side::Upstream => Side::Downstream,
        };
        CopyEnd::Failed { side, error }
    }
}

fn poll_timer(timer: &mut Pin<&mut Option<Sleep>>, cx: &mut Context<'_>) -> Poll<()> {
    match timer.as_mut().as_pin_mut() {
        Some(timer) => timer.poll(cx),
        None => Poll::Pending,
    }
}

/// The timer is moved only when it fires: most bytes cost no timer operation.
fn poll_idle(
    timer: &mut Pin<&mut Option<Sleep>>,
    cx: &mut Context<'_>,
    deadline: Instant,
) -> Poll<()> {
    loop {
        ready!(poll_timer(timer, cx));
        match timer.as_mut().as_pin_mut() {
            Some(timer) if Instant::now() < deadline => timer.reset(deadline),
            _ => return Poll::Ready(()),
        }
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
