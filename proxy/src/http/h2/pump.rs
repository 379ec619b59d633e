//! A body on its way into a stream.

use std::error::Error as StdError;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;

use crate::http::body::BodyError;

/// Sends a body, as fast as the other end takes it.
#[derive(Debug)]
pub struct Pump {
    stream: SendStream<Bytes>,
    /// Taken from the body, and whether it is the last: the other end's window is full.
    held: Option<(Bytes, bool)>,
}

/// Why a body was not sent to its end.
#[derive(Debug)]
pub enum Broken {
    /// It broke off itself; the stream is reset.
    Body(BodyError),
    /// The other end wants no more of it, or the connection is gone.
    Stream,
}

impl From<h2::Error> for Broken {
    fn from(_: h2::Error) -> Self {
        Self::Stream
    }
}

impl Pump {
    /// Into this stream, whose head is sent.
    pub fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream, held: None }
    }

    /// Always with the same body. Ready: there is no more of it to be sent.
    ///
    /// # Errors
    /// It was not sent to its end.
    pub fn poll<B: Body<Data = Bytes, Error = BodyError> + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut B,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if let Some((data, last)) = self.held.take() {
                if self.poll_room(cx, &data)?.is_pending() {
                    self.held = Some((data, last));
                    return Poll::Pending;
                }
                self.stream.send_data(data, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                // To be woken when the other end wants no more of it.
                ready!(self.stream.poll_reset(cx))?;
                return Poll::Ready(Err(Broken::Stream));
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        // A claim on the connection's window that blocks no other stream: the library
                        // claims the rest when it gets the data.
                        self.stream.reserve_capacity(usize::from(!data.is_empty()));
                        self.held = Some((data, body.is_end_stream()));
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.stream.reserve_capacity(0);
                            self.stream.send_trailers(trailers)?;
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
                Some(Err(error)) => {
                    self.stream.send_reset(reason(error.as_ref()));
                    return Poll::Ready(Err(Broken::Body(error)));
                }
                None => {
                    self.stream.send_data(Bytes::new(), true)?;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>, data: &Bytes) -> Poll<Result<(), Broken>> {
        while !data.is_empty() && self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Broken::Stream)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What the other end is told: the reason of whoever sends the body, if it is one.
fn reason(error: &(dyn StdError + 'static)) -> Reason {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(reason) = error.downcast_ref::<h2::Error>().and_then(h2::Error::reason) {
            return reason;
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
