//! The content of a message, out of its stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http_body::{Body, Frame, SizeHint};

use crate::http::body::BodyError;

/// What the other end sends on a stream. Dropped before its end, the stream is reset as soon as our own end of it is
/// dropped too.
#[derive(Debug)]
pub struct Arriving {
    /// None: there is nothing.
    stream: Option<RecvStream>,
    /// Bytes that are still to come, where that is known.
    left: Option<u64>,
    /// Trailers may come, nothing else.
    data_done: bool,
    /// It is an answer's.
    answer: bool,
    /// What it answers was sent in full before it began.
    sent: bool,
}

impl Arriving {
    /// Of a request, whose `content-length` is this.
    pub fn request(stream: RecvStream, length: Option<u64>) -> Self {
        Self::new(stream, length, false)
    }

    /// Of an answer. `sent`: the request was sent in full before it began.
    pub fn answer(stream: RecvStream, length: Option<u64>, sent: bool) -> Self {
        Self { sent, ..Self::new(stream, length, true) }
    }

    fn new(stream: RecvStream, length: Option<u64>, answer: bool) -> Self {
        let left = if stream.is_end_stream() { Some(0) } else { length };
        Self { stream: Some(stream), left, data_done: false, answer, sent: false }
    }

    /// No content.
    pub fn nothing() -> Self {
        Self { stream: None, left: Some(0), data_done: true, answer: true, sent: false }
    }

    /// The stream of an answer that was read to its end, if it has ended the other way too.
    pub fn take_ended(&mut self) -> Option<RecvStream> {
        let stream = self.stream.take_if(|_| self.sent)?;
        self.left = Some(0);
        Some(stream)
    }

    /// Who has answered in full may end the stream without an error (RFC 9113 section 8.1); a request ends in full.
    fn broken<T>(&self, error: h2::Error) -> Option<Result<T, BodyError>> {
        let done = self.answer && error.reason() == Some(Reason::NO_ERROR);
        (!done).then(|| Err(error.into()))
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        if !this.data_done {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It fails only for more than was received.
                    let _ = stream.flow_control().release_capacity(data.len());
                    let length = data.len() as u64;
                    this.left = this.left.map(|left| left.saturating_sub(length));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(this.broken(error)),
                None => {
                    this.data_done = true;
                    this.left = this.left.map(|_| 0);
                }
            }
        }
        Poll::Ready(match ready!(stream.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(Frame::trailers).map(Ok),
            Err(error) => this.broken(error),
        })
    }

    fn is_end_stream(&self) -> bool {
        // Without asking the connection, where content is still to come.
        self.left.is_none_or(|left| left == 0)
            && self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use http_body_util::BodyExt;

    use super::*;

    /// A client, and a server that answers with this.
    async fn answered(content: &'static str) -> h2::client::SendRequest<Bytes> {
        let (near, far) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(far).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let mut answer = respond.send_response(Response::new(()), false).unwrap();
                answer.send_data(Bytes::from(content), true).unwrap();
            }
        });
        let (sender, connection) = h2::client::handshake(near).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn get(sender: &mut h2::client::SendRequest<Bytes>, sent: bool) -> Arriving {
        let request = Request::get("http://shop.test/").body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        Arriving::answer(answer.await.unwrap().into_body(), Some(5), sent)
    }

    #[tokio::test]
    async fn an_answer_ends_though_it_announced_more() {
        let mut body = get(&mut answered("").await, true).await;
        assert_eq!((&mut body).collect().await.unwrap().to_bytes(), "");
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn a_stream_is_taken_when_both_ends_have_said_all() {
        let mut sender = answered("hello").await;
        for sent in [true, false] {
            let mut body = get(&mut sender, sent).await;
            assert_eq!((&mut body).collect().await.unwrap().to_bytes(), "hello");
            assert_eq!(body.take_ended().is_some(), sent);
            assert!(body.take_ended().is_none());
            assert!(body.is_end_stream());
            assert_eq!(body.size_hint().exact(), Some(0));
        }
    }
}
