//! Bytes from one socket to another past this program's memory: splice(2), through a pipe.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes that a pipe may hold, where the system allows that: fewer switches from one side to the other.
const SIZE: usize = 256 << 10;
/// So many empty ones are kept for each thread.
const KEPT: usize = 4;

thread_local! {
    static SPARE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe. It is filled when it is empty, and emptied before it is filled again.
#[derive(Debug)]
pub struct Pipe {
    from: OwnedFd,
    into: OwnedFd,
    held: usize,
}

/// A connection that bytes may go into out of a pipe.
pub trait Drain {
    /// Its socket, if what goes into that goes out as it is.
    fn plain(&self) -> Option<&TcpStream>;

    /// So many bytes went into it, or it broke.
    fn drained(&mut self, bytes: &io::Result<usize>);
}

impl Pipe {
    /// An empty one. It is to be given back ([`Self::put_back`]).
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn take() -> io::Result<Self> {
        if let Some(spare) = SPARE.with_borrow_mut(Vec::pop) {
            return Ok(spare);
        }
        let (from, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user may have so much in pipes and no more: a smaller one does as well.
        let _ = fcntl_setpipe_size(&into, SIZE);
        Ok(Self { from, into, held: 0 })
    }

    /// For whoever needs one next.
    pub fn put_back(self) {
        SPARE.with_borrow_mut(|spare| {
            if self.held == 0 && spare.len() < KEPT {
                spare.push(self);
            }
        });
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Fill it, empty as it is, with at most so many bytes. 0: the end, or this system does not splice that.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_fill(
        &mut self,
        from: &TcpStream,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        use io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported, WouldBlock};
        loop {
            ready!(from.poll_read_ready(cx))?;
            let filled = from.try_io(Interest::READABLE, || step(from, &self.into, most));
            return Poll::Ready(match filled {
                Ok(bytes) => {
                    self.held += bytes;
                    Ok(bytes)
                }
                Err(error) => match error.kind() {
                    WouldBlock => continue,
                    InvalidInput | PermissionDenied | Unsupported => Ok(0),
                    _ => Err(error),
                },
            });
        }
    }

    /// Empty it. How many bytes went out, perhaps not all.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_drain<T: Drain>(
        &mut self,
        to: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let drained = match to.plain() {
            Some(socket) => ready!(self.poll_step_out(socket, cx)),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        to.drained(&drained);
        Poll::Ready(drained)
    }

    fn poll_step_out(&mut self, to: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            ready!(to.poll_write_ready(cx))?;
            match to.try_io(Interest::WRITABLE, || step(&self.from, to, self.held)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                drained => {
                    self.held -= drained.as_ref().copied().unwrap_or_default();
                    return Poll::Ready(drained);
                }
            }
        }
    }
}

fn step(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;
    use crate::net::testing::tcp_pair;

    impl Drain for TcpStream {
        fn plain(&self) -> Option<&TcpStream> {
            Some(self)
        }

        fn drained(&mut self, _: &io::Result<usize>) {}
    }

    impl Drain for UnixStream {
        fn plain(&self) -> Option<&TcpStream> {
            None
        }

        fn drained(&mut self, _: &io::Result<usize>) {}
    }

    #[tokio::test]
    async fn everything_comes_out_in_order_until_the_end() {
        let (mut source, from) = tcp_pair().await;
        let (mut to, mut target) = tcp_pair().await;
        let all: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let sent = all.clone();
        let sending = tokio::spawn(async move { source.write_all(&sent).await });
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            target.read_to_end(&mut read).await.map(|_| read)
        });
        let mut pipe = Pipe::take().unwrap();
        let mut passed = 0;
        loop {
            let filled = poll_fn(|cx| pipe.poll_fill(&from, 100_000, cx)).await.unwrap();
            assert!(filled <= 100_000);
            if filled == 0 {
                break;
            }
            while !pipe.is_empty() {
                passed += poll_fn(|cx| pipe.poll_drain(&mut to, cx)).await.unwrap();
            }
        }
        assert_eq!(passed, all.len());
        drop(to);
        sending.await.unwrap().unwrap();
        assert_eq!(reading.await.unwrap().unwrap(), all);
        pipe.put_back();
        assert!(Pipe::take().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_pipe_that_holds_something_is_not_for_others() {
        let (mut source, from) = tcp_pair().await;
        source.write_all(b"secret").await.unwrap();
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(poll_fn(|cx| pipe.poll_fill(&from, 100, cx)).await.unwrap(), 6);
        pipe.put_back();
        assert!(SPARE.with_borrow(Vec::is_empty));
    }
}
