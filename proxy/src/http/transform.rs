//! Bodies that are changed, or slowed down, on their way.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::body::{BodyError, BoxBody};

/// So much goes through a change at once: what comes out of a piece has to be bounded too.
const PIECE: usize = 16 * 1024;

/// A change of a body, piece by piece. What comes out goes into `out`.
pub trait Change: Send + Unpin + 'static {
    /// A piece. `more`: another one, or trailers, may be long in coming.
    ///
    /// # Errors
    /// The body is not what it says that it is: it breaks off here.
    fn data(&mut self, piece: &[u8], more: bool, out: &mut BytesMut) -> Result<(), BodyError>;

    /// The end; the trailers are passed on as they are returned.
    ///
    /// # Errors
    /// The body is incomplete.
    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        out: &mut BytesMut,
    ) -> Result<Option<HeaderMap>, BodyError>;
}

/// A body with a [`Change`] applied.
pub struct Changed<C> {
    inner: BoxBody,
    change: C,
    piece: Bytes,
    state: State,
}

enum State {
    Reading,
    Trailers(HeaderMap),
    Ended,
}

impl<C: Change> Changed<C> {
    /// `change` applied to `inner`.
    pub fn new(inner: BoxBody, change: C) -> Self {
        Self { inner, change, piece: Bytes::new(), state: State::Reading }
    }

    /// The same, in the form in which bodies are passed on.
    pub fn boxed(inner: BoxBody, change: C) -> BoxBody {
        Box::pin(Self::new(inner, change))
    }

    fn take_piece(&mut self, out: &mut BytesMut) -> Result<(), BodyError> {
        let piece = self.piece.split_to(self.piece.len().min(PIECE));
        let more = self.piece.is_empty() && !self.inner.is_end_stream();
        self.change.data(&piece, more, out)
    }

    /// Nothing comes any more.
    fn is_last(&self) -> bool {
        self.piece.is_empty() && self.inner.is_end_stream()
    }

    fn end(&mut self, trailers: Option<HeaderMap>, out: &mut BytesMut) -> Result<(), BodyError> {
        let trailers = self.change.end(trailers, out)?;
        self.state = trailers.map_or(State::Ended, State::Trailers);
        Ok(())
    }
}

impl<C> std::fmt::Debug for Changed<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Changed")
    }
}

impl<C: Change> Body for Changed<C> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut out = BytesMut::new();
        loop {
            match std::mem::replace(&mut this.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Trailers(trailers) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                State::Reading => this.state = State::Reading,
            }
            let done = if this.piece.is_empty() {
                match ready!(this.inner.as_mut().poll_frame(cx)) {
                    None => this.end(None, &mut out),
                    Some(Err(error)) => Err(error),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            this.piece = data;
                            Ok(())
                        }
                        Err(frame) => this.end(frame.into_trailers().ok(), &mut out),
                    },
                }
            } else {
                // Whoever knows the length does not ask again after the last byte.
                this.take_piece(&mut out).and_then(|()| match this.is_last() {
                    true => this.end(None, &mut out),
                    false => Ok(()),
                })
            };
            if let Err(error) = done {
                this.state = State::Ended;
                return Poll::Ready(Some(Err(error)));
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.freeze()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

/// Leaves the data alone.
pub struct Trailers<F>(pub Option<F>);

impl<F> std::fmt::Debug for Trailers<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trailers")
    }
}

impl<F: FnOnce(&mut HeaderMap) + Send + Unpin + 'static> Change for Trailers<F> {
    fn data(&mut self, piece: &[u8], _more: bool, out: &mut BytesMut) -> Result<(), BodyError> {
        out.extend_from_slice(piece);
        Ok(())
    }

    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        _out: &mut BytesMut,
    ) -> Result<Option<HeaderMap>, BodyError> {
        let mut trailers = trailers;
        if let (Some(trailers), Some(change)) = (&mut trailers, self.0.take()) {
            change(trailers);
        }
        Ok(trailers.filter(|trailers| !trailers.is_empty()))
    }
}

/// Leaves everything alone; tells when the end has come, with the trailers. A body that breaks off
/// drops it untold.
pub struct AtEnd<F>(pub Option<F>);

impl<F> std::fmt::Debug for AtEnd<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AtEnd")
    }
}

impl<F: FnOnce(Option<&HeaderMap>) + Send + Unpin + 'static> Change for AtEnd<F> {
    fn data(&mut self, piece: &[u8], _more: bool, out: &mut BytesMut) -> Result<(), BodyError> {
        out.extend_from_slice(piece);
        Ok(())
    }

    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        _out: &mut BytesMut,
    ) -> Result<Option<HeaderMap>, BodyError> {
        if let Some(tell) = self.0.take() {
            tell(trailers.as_ref());
        }
        Ok(trailers)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full, StreamBody};

    use super::*;

    struct Upper;

    impl Change for Upper {
        fn data(&mut self, piece: &[u8], _: bool, out: &mut BytesMut) -> Result<(), BodyError> {
            if piece.contains(&b'!') {
                return Err("no shouting".into());
            }
            out.extend_from_slice(&piece.to_ascii_uppercase());
            Ok(())
        }

        fn end(
            &mut self,
            trailers: Option<HeaderMap>,
            out: &mut BytesMut,
        ) -> Result<Option<HeaderMap>, BodyError> {
            out.extend_from_slice(b".");
            Ok(trailers)
        }
    }

    fn of(frames: Vec<Frame<Bytes>>) -> BoxBody {
        let frames = frames.into_iter().map(Ok::<_, BodyError>);
        Box::pin(StreamBody::new(futures_util::stream::iter(frames)))
    }

    #[tokio::test]
    async fn pieces_go_through_and_trailers_follow() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "x".parse().unwrap())]);
        let frames = vec![
            Frame::data(Bytes::from_static(b"ab")),
            Frame::data(Bytes::from(vec![b'c'; PIECE + 1])),
            Frame::trailers(trailers.clone()),
        ];
        let all = Changed::new(of(frames), Upper).collect().await.unwrap();
        assert_eq!(all.trailers(), Some(&trailers));
        let text = all.to_bytes();
        assert_eq!(text.len(), PIECE + 4);
        assert!(text.starts_with(b"ABCC") && text.ends_with(b"C."));
    }

    #[tokio::test]
    async fn a_broken_body_breaks_off() {
        let body = Full::new(Bytes::from_static(b"a!")).map_err(|never| match never {});
        let mut changed = Changed::new(Box::pin(body), Upper);
        assert!(changed.frame().await.unwrap().is_err());
        assert!(changed.frame().await.is_none());
    }
}
