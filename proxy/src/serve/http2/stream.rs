//! One request on its stream, until the last byte of its answer is handed over.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::SystemTime;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body;

use crate::http::body::BodyError;
use crate::http::h2::{Arriving, Pump, Tunnel, length};
use crate::http::upgraded::{self, Granting};
use crate::http::{date, hop};
use crate::serve::exchange::Arrived;

/// CONNECT: what follows a good answer is no content, but the bytes of a tunnel (RFC 9113 section 8.5).
struct Connecting {
    granting: Granting,
    received: RecvStream,
}

/// Serve a request in a task of its own.
pub(super) fn begin<A, W, B>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    answer: &A,
) where
    A: Fn(Request<Arrived>) -> W,
    W: Future<Output = Response<B>> + Send + Unpin + 'static,
    B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    let (mut head, received) = request.into_parts();
    let mut connecting = None;
    let arrived = if head.method == Method::CONNECT {
        if length(&head.headers).is_some_and(|length| length != 0) {
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        let (granting, on) = upgraded::pending();
        head.extensions.insert(on);
        connecting = Some(Box::new(Connecting { granting, received }));
        Arrived::Nothing
    } else if received.is_end_stream() {
        Arrived::Nothing
    } else {
        let length = length(&head.headers);
        Arrived::Http2(Arriving::request(received, length))
    };
    let work = answer(Request::from_parts(head, arrived));
    tokio::spawn(serve(work, respond, connecting));
}

/// Answers, unless the client ends the stream before that.
async fn serve<W, B>(
    mut work: W,
    mut respond: SendResponse<Bytes>,
    connecting: Option<Box<Connecting>>,
) where
    W: Future<Output = Response<B>> + Unpin,
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    let answer = poll_fn(|cx| match Pin::new(&mut work).poll(cx) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    });
    let Some(answer) = answer.await else { return };
    drop(work);
    let (mut body, stream) = match send_head(answer, &mut respond, connecting) {
        Ok(Some(going_on)) => going_on,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(%error, "an answer was not sent");
            return respond.send_reset(Reason::INTERNAL_ERROR);
        }
    };
    let mut pump = Pump::new(stream);
    // What it fails with, the body has told the exchange.
    let _ = poll_fn(|cx| pump.poll(cx, &mut body)).await;
}

/// The body that has to follow, if one has to.
fn send_head<B: Body>(
    answer: Response<B>,
    respond: &mut SendResponse<Bytes>,
    connecting: Option<Box<Connecting>>,
) -> Result<Option<(B, SendStream<Bytes>)>, h2::Error> {
    let (mut head, body) = answer.into_parts();
    dress(&mut head.headers);
    if let Some(connecting) = connecting.filter(|_| head.status.is_success()) {
        let Connecting { granting, received } = *connecting;
        head.headers.remove(CONTENT_LENGTH);
        let stream = respond.send_response(Response::from_parts(head, ()), false)?;
        granting.grant(Tunnel::new(stream, received), Bytes::new());
        return Ok(None);
    }
    let ends = body.is_end_stream();
    if !ends && let Some(length) = body.size_hint().exact() {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    let stream = respond.send_response(Response::from_parts(head, ()), ends)?;
    Ok((!ends).then_some((body, stream)))
}

/// A head as HTTP/2 wants it: a route may add what HTTP/2 forbids, and that must not fail the answer.
fn dress(headers: &mut HeaderMap) {
    hop::strip(headers);
    headers.entry(DATE).or_insert_with(|| date::with(SystemTime::now(), HeaderValue::clone));
}
