//! Answers that begin before their request has been sent. Both have to go on, even if nobody reads
//! the answer for a while: a task does both, and passes the answer on piece by piece.

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::Frame;

use super::{Error, Http1};
use crate::http::body::{BodyError, RequestBody};

/// The reader's end of an answer that is passed on.
#[derive(Debug)]
pub(crate) struct Carried {
    shared: Arc<Mutex<Shared>>,
    /// Bytes that are still to come, where that is known.
    left: Option<u64>,
    over: bool,
}

/// The task's end.
#[derive(Debug)]
pub(in super::super) struct Carrier(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    /// With whether it is the last one.
    piece: Option<(Result<Frame<Bytes>, BodyError>, bool)>,
    /// Nothing comes any more.
    ended: bool,
    /// The reader has left.
    gone: bool,
    reader: Option<Waker>,
    carrier: Option<Waker>,
}

/// The reader of an answer, and who writes to it.
fn pair(left: Option<u64>) -> (Carrier, Carried) {
    let shared = Arc::default();
    (Carrier(Arc::clone(&shared)), Carried { shared, left, over: left == Some(0) })
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the rest of a request, and passes its answer on; `done` gets the connection back, which
/// says itself whether it can serve again; false: it broke under the answer.
pub(in super::super) fn carry(
    mut http1: Box<Http1>,
    mut body: RequestBody,
    done: impl FnOnce(Box<Http1>, bool) + Send + 'static,
) -> Carried {
    let (carrier, carried) = pair(http1.left());
    tokio::spawn(async move {
        let whole = poll_fn(|cx| http1.poll_carry(cx, &mut body, &carrier)).await;
        done(http1, whole);
    });
    carried
}

impl Http1 {
    /// Ready: it is over. False: the connection broke under it.
    fn poll_carry(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut RequestBody,
        to: &Carrier,
    ) -> Poll<bool> {
        if self.is_sending() {
            match self.poll_send(cx, body) {
                Poll::Ready(Err(Error::Io(_))) => self.stop_sending(),
                Poll::Ready(Err(error)) => {
                    to.put(Err(error.into()), true);
                    return Poll::Ready(true);
                }
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
        if !to.has_ended() {
            match self.poll_pass_on(cx, to) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(torn)) => return Poll::Ready(!torn),
                Poll::Pending => return Poll::Pending,
            }
        }
        // The answer is over: all that is left is the request.
        if self.keep && self.is_sending() && self.wire.poll_fill(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(true)
    }

    /// Ready: the answer is passed on. Error: it cannot be; true: because the connection broke.
    fn poll_pass_on(&mut self, cx: &mut Context<'_>, to: &Carrier) -> Poll<Result<(), bool>> {
        loop {
            if self.is_over() {
                to.end();
                return Poll::Ready(Ok(()));
            }
            if ready!(to.poll_ready(cx)).is_err() {
                self.give_up();
                return Poll::Ready(Err(false));
            }
            match ready!(self.poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let last = self.is_over() || frame.is_trailers();
                    to.put(Ok(frame), last);
                    if last {
                        return Poll::Ready(Ok(()));
                    }
                }
                Some(Err(error)) => {
                    to.put(Err(error), true);
                    return Poll::Ready(Err(true));
                }
                None => {
                    to.end();
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// Nobody reads any more.
#[derive(Debug)]
struct Gone;

impl Carrier {
    /// Whether there is room for another piece.
    fn poll_ready(&self, cx: &Context<'_>) -> Poll<Result<(), Gone>> {
        let mut shared = lock(&self.0);
        if shared.gone {
            return Poll::Ready(Err(Gone));
        }
        shared.carrier = Some(cx.waker().clone());
        if shared.piece.is_some() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// The next piece. There is room for it, or it is an error, which comes before everything.
    fn put(&self, piece: Result<Frame<Bytes>, BodyError>, last: bool) {
        let mut shared = lock(&self.0);
        shared.piece = Some((piece, last));
        shared.ended = last;
        shared.wake();
    }

    fn end(&self) {
        let mut shared = lock(&self.0);
        shared.ended = true;
        shared.wake();
    }

    fn has_ended(&self) -> bool {
        lock(&self.0).ended
    }
}

impl Shared {
    /// Tells the reader.
    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.put(Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()), true);
        }
    }
}

impl Carried {
    /// All of the answer has been read.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Bytes that are still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        if self.over { Some(0) } else { self.left }
    }

    /// The next piece of the answer.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let mut shared = lock(&self.shared);
        if let Some((piece, last)) = shared.piece.take() {
            if let Some(carrier) = shared.carrier.take() {
                carrier.wake();
            }
            self.over = last;
            if let (Some(left), Ok(frame)) = (&mut self.left, &piece) {
                *left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len) as u64);
            }
            return Poll::Ready(Some(piece));
        }
        if shared.ended {
            self.over = true;
            return Poll::Ready(None);
        }
        shared.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.gone = true;
        if let Some(carrier) = shared.carrier.take() {
            carrier.wake();
        }
    }
}
