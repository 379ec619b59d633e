//! What the task of a connection shares with the request's body, which may be read elsewhere.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::http::h1::body::{Decoded, Decoder};
use crate::http::h1::wire::Wire;
use crate::net::splice::{Drain, Pipe};

/// So much of what comes in advance is kept while an exchange is under way.
const KEPT: usize = 16 << 10;
/// A buffer for answers that is larger is given back when a connection has nothing to do.
const SMALL: usize = 1 << 10;

/// A connection, and where it stands.
#[derive(Debug)]
pub(super) struct Shared<T> {
    /// Never held across polls of anything but the connection.
    inner: Mutex<Inner<T>>,
    finishing: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Inner<T> {
    /// None: it was given away, or cut off.
    pub(super) wire: Option<Wire<T>>,
    /// The body of the request that is under way. None: it has none.
    pub(super) body: Option<Arriving>,
}

/// A body on its way.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) decoder: Decoder,
    /// So many trailers may follow it.
    pub(super) max_trailers: usize,
    /// There is somebody who may read it.
    pub(super) held: bool,
    /// They wait for the connection: it is theirs to watch.
    pub(super) waited_for: bool,
    /// The client waits for `100 Continue`.
    pub(super) expected: bool,
    /// The answer has begun.
    pub(super) answering: bool,
    /// What came is no body, or the client has left.
    pub(super) broken: bool,
    /// The connection's task.
    pub(super) task: Option<Waker>,
}

impl Arriving {
    pub(super) fn new(decoder: Decoder, max_trailers: usize, expected: bool) -> Self {
        Self {
            decoder,
            max_trailers,
            held: true,
            waited_for: false,
            expected,
            answering: false,
            broken: false,
            task: None,
        }
    }

    /// Something has changed that the connection's task waits for.
    pub(super) fn wake(&mut self, reader: Option<&Waker>) {
        if let Some(task) = self.task.take()
            && !reader.is_some_and(|reader| reader.will_wake(&task))
        {
            task.wake();
        }
    }

    fn register(&mut self, cx: &Context<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
    }
}

impl<T> Shared<T> {
    /// Nothing of it has been read.
    pub(super) fn new(io: T) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let wire = Some(Wire::new(io, BytesMut::new()));
        Self { inner: Mutex::new(Inner { wire, body: None }), finishing: AtomicBool::new(false) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing is served after what is under way.
    pub(super) fn finish(&self) {
        self.finishing.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finishing.load(Ordering::Relaxed)
    }

    /// Whatever is under way is cut off.
    pub(super) fn cut(&self) {
        let wire = self.lock().wire.take();
        drop(wire);
    }

    /// The exchange is over, body and all.
    pub(super) fn finish_turn(&self) {
        self.lock().body = None;
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Shared<T> {
    /// Whether the client has left while an exchange is under way. Then the connection is cut off
    /// first, so that it is known what was under way.
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let left = ready!(self.lock().poll_left(cx));
        self.cut();
        Poll::Ready(left)
    }

    /// Write everything that waits.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = match &mut self.lock().wire {
            Some(wire) => ready!(wire.poll_flush(cx)),
            None => Err(gone()),
        };
        if flushed.is_err() {
            self.cut();
        }
        Poll::Ready(flushed)
    }

    /// Write some of what is in a pipe.
    pub(super) fn poll_drain(&self, pipe: &mut Pipe, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        T: Drain,
    {
        let drained = match &mut self.lock().wire {
            Some(wire) => ready!(pipe.poll_drain(&mut wire.io, cx)),
            None => Err(gone()),
        };
        if drained.is_err() {
            self.cut();
        }
        Poll::Ready(drained.map(drop))
    }

    /// The end of the request's body, after its answer. False: the connection cannot go on.
    pub(super) fn poll_end_of_body(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut inner = self.lock();
        if inner.drain(cx) {
            return Poll::Ready(true);
        }
        match &mut inner.body {
            // Somebody goes on reading it.
            Some(body) if body.held && !body.broken && !self.is_finishing() => {
                body.register(cx);
                inner.poll_left(cx).map(|_| false)
            }
            _ => Poll::Ready(false),
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Inner<T> {
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(wire) = &mut self.wire else { return Poll::Ready(gone()) };
        if let Some(body) = &mut self.body {
            if !body.decoder.is_done() {
                body.register(cx);
            }
            if body.waited_for || body.broken {
                return Poll::Pending;
            }
        }
        if wire.input.is_empty() {
            // What is waited for is the end: no buffer is needed for that.
            wire.input = BytesMut::new();
        }
        while wire.input.len() < KEPT {
            match ready!(wire.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(gone()),
                Ok(_) => {}
                Err(error) => return Poll::Ready(error),
            }
        }
        Poll::Pending
    }

    /// Whether the body is over, or what is left of it is here already: then it is thrown away.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(body) = &mut self.body else { return true };
        let Some(wire) = &mut self.wire else { return false };
        if body.broken || body.decoder.is_done() {
            return !body.broken;
        }
        if body.held {
            return false;
        }
        let mut read = false;
        loop {
            match body.decoder.decode(&mut wire.input) {
                Ok(_) if body.decoder.is_done() => return true,
                // Once: a client that goes on sending is not waited for.
                Ok(Decoded::More) if !std::mem::replace(&mut read, true) => {
                    if !matches!(wire.poll_fill(cx), Poll::Ready(Ok(1..))) {
                        return false;
                    }
                }
                Ok(Decoded::More) => return false,
                Ok(_) => {}
                Err(_) => {
                    body.broken = true;
                    return false;
                }
            }
        }
    }

    /// Nothing is under way, and nothing has come: hold no large buffers.
    pub(super) fn rest(wire: &mut Wire<T>) {
        if wire.output.flat().capacity() > SMALL {
            wire.rest();
        } else {
            wire.input = BytesMut::new();
        }
    }
}

/// The client has left.
pub(super) fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the client has left")
}
