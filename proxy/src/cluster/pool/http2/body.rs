//! The content of an answer, out of its stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::Frame;

use crate::http::body::BodyError;

/// What an endpoint sends on a stream. Dropped before its end, the stream is reset.
#[derive(Debug)]
pub(crate) struct Arriving {
    /// None: there is nothing.
    stream: Option<RecvStream>,
    /// Bytes that are still to come, where that is known.
    left: Option<u64>,
    /// Trailers may come, nothing else.
    data_done: bool,
}

impl Arriving {
    pub(super) fn new(stream: RecvStream, left: Option<u64>) -> Self {
        let left = if stream.is_end_stream() { Some(0) } else { left };
        Self { stream: Some(stream), left, data_done: false }
    }

    pub(super) fn nothing() -> Self {
        Self { stream: None, left: Some(0), data_done: true }
    }

    /// The next piece.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        if !self.data_done {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It fails only for more than was received.
                    let _ = stream.flow_control().release_capacity(data.len());
                    let length = data.len() as u64;
                    self.left = self.left.map(|left| left.saturating_sub(length));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(broken(error)),
                None => self.data_done = true,
            }
        }
        Poll::Ready(match ready!(stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(Frame::trailers).map(Ok),
            Err(error) => broken(error),
        })
    }

    /// All of it has been read.
    pub(crate) fn is_over(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    /// Bytes that are still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        self.left
    }
}

/// Who has answered in full may end the stream without an error (RFC 9113 section 8.1).
fn broken<T>(error: h2::Error) -> Option<Result<T, BodyError>> {
    (error.reason() != Some(Reason::NO_ERROR)).then(|| Err(error.into()))
}
