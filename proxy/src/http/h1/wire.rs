//! The bytes of a connection on their way in and out.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// What is read at first: on the stack, so that who waits for it holds no buffer.
const FIRST: usize = 8 << 10;
/// Reads grow up to this while they are filled.
const LARGEST: usize = 64 << 10;
/// Smaller pieces are copied together: that is cheaper than to write them one by one.
const SMALL: usize = 4 << 10;
/// So many pieces are written at a time.
const SLICES: usize = 16;

/// A connection with what was read and not used yet, and what is still to be written.
#[derive(Debug)]
pub struct Wire<T> {
    /// The connection itself.
    pub io: T,
    /// Read, not used.
    pub input: BytesMut,
    /// To be written.
    pub output: Output,
    /// How much is read at a time, once there is a buffer.
    step: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Wire<T> {
    /// Nothing read yet but `input`.
    pub fn new(io: T, input: BytesMut) -> Self {
        Self { io, input, output: Output::default(), step: FIRST }
    }

    /// Read more. 0: the end.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == 0 && self.step == FIRST {
            let read = ready!(self.poll_first(cx))?;
            self.learn(read, FIRST);
            return Poll::Ready(Ok(read));
        }
        self.input.reserve(self.step);
        let room = self.input.capacity() - self.input.len();
        let polled = poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input);
        if polled.is_pending() && self.input.is_empty() {
            // Whoever waits holds no buffer, however large his last reads were.
            self.input = BytesMut::new();
        }
        let read = ready!(polled)?;
        self.learn(read, room);
        Poll::Ready(Ok(read))
    }

    /// Reads grow while they fill what there is room for, and begin anew after small ones.
    fn learn(&mut self, read: usize, room: usize) {
        if read == room {
            self.step = (self.step * 2).min(LARGEST);
        } else if read < FIRST {
            self.step = FIRST;
        }
    }

    /// Read while there is no buffer.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [const { MaybeUninit::<u8>::uninit() }; FIRST];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        self.input = BytesMut::from(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Nothing is expected soon: hold no buffers.
    pub fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        self.step = FIRST;
        self.output.rest();
    }

    /// Write everything, and have it sent.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.output.poll_write(&mut self.io, cx)
    }
}

/// Bytes that wait to be written. Large pieces are not copied.
#[derive(Debug, Default)]
pub struct Output {
    queue: VecDeque<Bytes>,
    queued: usize,
    /// After those of the queue.
    flat: BytesMut,
}

impl Output {
    /// Where small things are written to: they come after everything else.
    pub fn flat(&mut self) -> &mut BytesMut {
        &mut self.flat
    }

    /// One more piece.
    pub fn push(&mut self, data: Bytes) {
        if data.len() < SMALL {
            return self.flat.extend_from_slice(&data);
        }
        if !self.flat.is_empty() {
            let before = self.flat.split().freeze();
            self.queued += before.len();
            self.queue.push_back(before);
        }
        self.queued += data.len();
        self.queue.push_back(data);
    }

    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.queued + self.flat.len()
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that waits, for tests.
    #[cfg(test)]
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut all = self.queue.iter().flat_map(|data| data.to_vec()).collect::<Vec<_>>();
        all.extend_from_slice(&self.flat);
        all
    }

    /// Write everything, and have it sent.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn poll_write<T: AsyncWrite + Unpin>(
        &mut self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = if self.queue.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.flat))?
            } else {
                ready!(self.poll_vectored(io, cx))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        Pin::new(io).poll_flush(cx)
    }

    fn poll_vectored<T: AsyncWrite + Unpin>(
        &self,
        io: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let last = (!self.flat.is_empty()).then_some(&self.flat[..]);
        for (slot, data) in
            slices.iter_mut().zip(self.queue.iter().map(|data| &data[..]).chain(last))
        {
            *slot = IoSlice::new(data);
            count += 1;
        }
        Pin::new(io).poll_write_vectored(cx, slices.get(..count).unwrap_or_default())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(front) = self.queue.front_mut() {
            if written < front.len() {
                self.queued -= written;
                return front.advance(written);
            }
            written -= front.len();
            self.queued -= front.len();
            self.queue.pop_front();
        }
        self.flat.advance(written);
    }

    fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn small_and_large_pieces_keep_their_order() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut wire = Wire::new(near, BytesMut::new());
        let mut all = Vec::new();
        for size in [10, 5000, 1, 1, 70_000, 4096, 300] {
            let piece: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
            all.extend_from_slice(&piece);
            wire.output.push(piece.into());
        }
        assert_eq!(wire.output.len(), all.len());
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.map(|_| read)
        });
        poll_fn(|cx| wire.poll_flush(cx)).await.unwrap();
        assert!(wire.output.is_empty());
        drop(wire);
        assert_eq!(reader.await.unwrap().unwrap(), all);
    }

    #[tokio::test]
    async fn what_comes_is_read_however_much_it_is() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut wire = Wire::new(near, BytesMut::new());
        let all: Vec<u8> = (0..400_000_u32).map(|at| (at % 251) as u8).collect();
        far.write_all(&all).await.unwrap();
        drop(far);
        let mut sizes = Vec::new();
        loop {
            match poll_fn(|cx| wire.poll_fill(cx)).await.unwrap() {
                0 => break,
                read => sizes.push(read),
            }
        }
        assert_eq!(wire.input, all);
        assert_eq!(sizes[0], FIRST);
        assert!(sizes.iter().any(|size| *size > FIRST), "{sizes:?}");
        wire.input.clear();
        wire.rest();
        assert_eq!(wire.input.capacity(), 0);
    }

    #[tokio::test]
    async fn reads_grow_although_everything_is_taken_and_who_waits_holds_nothing() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let mut wire = Wire::new(near, BytesMut::new());
        far.write_all(&[b'x'; 300_000]).await.unwrap();
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < 300_000 {
            sizes.push(poll_fn(|cx| wire.poll_fill(cx)).await.unwrap());
            drop(std::mem::take(&mut wire.input).freeze());
        }
        assert_eq!(sizes[..4], [FIRST, 2 * FIRST, 4 * FIRST, LARGEST]);
        assert!(poll_fn(|cx| Poll::Ready(wire.poll_fill(cx).is_pending())).await);
        assert_eq!(wire.input.capacity(), 0);
        far.write_all(b"y").await.unwrap();
        assert_eq!(poll_fn(|cx| wire.poll_fill(cx)).await.unwrap(), 1);
        drop(std::mem::take(&mut wire.input).freeze());
        assert_eq!(wire.step, FIRST);
    }
}
