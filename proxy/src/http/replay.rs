//! A request body that can be sent again: what has been read is kept, up to a limit.
//!
//! The first try streams it through while it is being kept; a later one begins with what was
//! kept and goes on with the rest. Past the limit, or once a reader has been left behind by a
//! newer one, it cannot be replayed any more.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::body::{BodyError, BoxBody, RequestBody};

/// The body, and what was read of it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Replay(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    source: RequestBody,
    data: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    bytes: usize,
    limit: usize,
    /// More came than may be kept: `data` is no longer all.
    overflowed: bool,
    ended: bool,
    /// The source failed; the downstream is gone.
    broken: bool,
    /// Only the newest reader may read.
    reader: u64,
}

impl Replay {
    /// Keep up to `limit` bytes of `source`.
    pub fn new(source: RequestBody, limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Kept {
            ended: source.is_end_stream(),
            source,
            data: Vec::new(),
            trailers: None,
            bytes: 0,
            limit,
            overflowed: false,
            broken: false,
            reader: 0,
        })))
    }

    /// The body from its beginning. An earlier reader gets an error from now on.
    pub fn reader(&self) -> RequestBody {
        let mut kept = self.lock();
        kept.reader += 1;
        let reader = Reader { replay: self.clone(), id: kept.reader, next: 0, trailers: false };
        drop(kept);
        RequestBody::Boxed(Box::pin(reader) as BoxBody)
    }

    /// Whether another reader would get all of it.
    pub fn can_replay(&self) -> bool {
        let kept = self.lock();
        !kept.overflowed && !kept.broken
    }

    /// All of it, if it has been read to its end and was kept.
    pub fn complete(&self) -> Option<Vec<Bytes>> {
        let kept = self.lock();
        (kept.ended && !kept.overflowed && !kept.broken).then(|| kept.data.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Reader {
    replay: Replay,
    id: u64,
    next: usize,
    trailers: bool,
}

impl Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut kept = this.replay.lock();
        if kept.reader != this.id {
            return Poll::Ready(Some(Err("the request is being tried again elsewhere".into())));
        }
        if let Some(data) = kept.data.get(this.next).filter(|_| !kept.overflowed) {
            this.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if kept.ended {
            let trailers = kept.trailers.clone().filter(|_| !this.trailers);
            this.trailers = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = std::task::ready!(Pin::new(&mut kept.source).poll_frame(cx));
        Poll::Ready(kept.keep(frame, &mut this.next, &mut this.trailers))
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.replay.lock();
        let all_read = kept.overflowed || self.next >= kept.data.len();
        kept.ended && all_read && (kept.trailers.is_none() || self.trailers)
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.replay.lock();
        let behind: usize = kept.data.iter().skip(self.next).map(Bytes::len).sum();
        let mut hint = SizeHint::new();
        let rest = kept.source.size_hint();
        hint.set_lower(rest.lower() + behind as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + behind as u64);
        }
        hint
    }
}

impl Kept {
    fn keep(
        &mut self,
        frame: Option<Result<Frame<Bytes>, BodyError>>,
        next: &mut usize,
        trailers_given: &mut bool,
    ) -> Option<Result<Frame<Bytes>, BodyError>> {
        match &frame {
            None => self.ended = true,
            Some(Err(_)) => self.broken = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len();
                    if self.bytes > self.limit {
                        self.overflowed = true;
                        self.data = Vec::new();
                    } else if !self.overflowed {
                        self.data.push(data.clone());
                        *next += 1;
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                    self.ended = true;
                    *trailers_given = true;
                }
                // So that the last piece can carry END_STREAM with it.
                self.ended |= self.source.is_end_stream();
            }
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(body: RequestBody) -> Result<Vec<u8>, BodyError> {
        Ok(body.collect().await?.to_bytes().to_vec())
    }

    fn pieces(list: &'static [&'static str]) -> RequestBody {
        let frames = list.iter().map(|p| Ok(Frame::data(Bytes::from_static(p.as_bytes()))));
        let stream = futures_util::stream::iter(frames.collect::<Vec<_>>());
        RequestBody::Boxed(Box::pin(http_body_util::StreamBody::new(stream)))
    }

    #[tokio::test]
    async fn what_was_read_is_read_again_and_the_rest_follows() {
        let replay = Replay::new(pieces(&["a", "b", "c"]), 100);
        let mut first = replay.reader();
        let frame = first.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "a");
        let second = replay.reader();
        assert!(first.frame().await.unwrap().is_err());
        assert_eq!(text(second).await.unwrap(), b"abc");
        assert_eq!(text(replay.reader()).await.unwrap(), b"abc");
        assert_eq!(replay.complete().map(|data| data.concat()), Some(b"abc".to_vec()));
    }

    #[tokio::test]
    async fn past_the_limit_it_still_streams_but_cannot_be_replayed() {
        let replay = Replay::new(pieces(&["aaaa", "bbbb"]), 6);
        assert!(replay.can_replay());
        assert_eq!(text(replay.reader()).await.unwrap(), b"aaaabbbb");
        assert!(!replay.can_replay());
        assert_eq!(replay.complete(), None);
    }
}
