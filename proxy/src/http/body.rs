//! The body of a request on its way to an endpoint.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::h2::Arriving;
use super::meter::Meter;

/// Why a body ended early. Allocated only when that happens.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body that is made by this proxy itself, such as a gRPC stream of its own.
pub type BoxBody = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>;

/// What is sent to an endpoint. The common cases need no allocation.
pub enum RequestBody {
    /// Nothing.
    Empty,
    /// All of it, known in advance.
    Full(Option<Bytes>),
    /// As it arrives from the downstream in HTTP/2, metered.
    Http2(Arriving, Meter),
    /// The same in HTTP/1.
    Http1(BoxBody, Meter),
    /// Anything else: replayed for retries, or made by this proxy.
    Boxed(BoxBody),
}

impl RequestBody {
    /// The same, for whoever wraps it.
    pub fn boxed(self) -> BoxBody {
        match self {
            Self::Boxed(body) => body,
            other => Box::pin(other),
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Http2(..) => "Http2",
            Self::Http1(..) => "Http1",
            Self::Boxed(_) => "Boxed",
        })
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Full(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Http2(body, meter) => poll_metered(body, meter, cx),
            Self::Http1(body, meter) => poll_metered(body, meter, cx),
            Self::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(data) => data.is_none(),
            Self::Http2(body, _) => body.is_end_stream(),
            Self::Http1(body, _) | Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(data) => SizeHint::with_exact(data.as_ref().map_or(0, Bytes::len) as u64),
            Self::Http2(body, _) => body.size_hint(),
            Self::Http1(body, _) | Self::Boxed(body) => body.size_hint(),
        }
    }
}

fn poll_metered<B: Body<Data = Bytes, Error = BodyError> + Unpin>(
    body: &mut B,
    meter: &Meter,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
    let now = Instant::now();
    match &frame {
        None => meter.end(now),
        Some(Ok(frame)) => {
            meter.progress(frame.data_ref().map_or(0, Bytes::len) as u64, now);
            if frame.is_trailers() || body.is_end_stream() {
                meter.end(now);
            }
        }
        Some(Err(_)) => {}
    }
    Poll::Ready(frame)
}
