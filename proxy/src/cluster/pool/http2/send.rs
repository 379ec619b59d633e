//! One request on a stream, until its answer begins.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response};
use http_body::Body as _;

use super::{Error, Streams, TakeHead};
use crate::http::body::RequestBody;
use crate::http::h2::{Arriving, Broken, Pump, Tunnel, length};
use crate::http::upgraded;

/// Sends a request, and waits for the head of its answer. When this is dropped the stream is reset.
///
/// # Errors
/// There is no answer; with whether the request is as it was.
pub(in super::super) async fn send(
    streams: &Streams,
    request: &mut Request<RequestBody>,
    how: TakeHead,
) -> Result<Response<Arriving>, (Error, bool)> {
    let mut sender = streams.sender().map_err(|error| (error, true))?;
    let head = how.take(request, streams.learns()).map_err(|error| (error, false))?;
    let connects = head.method() == Method::CONNECT;
    let ends = !connects && request.body().is_end_stream();
    let (answer, stream) =
        sender.send_request(head, ends).map_err(|error| (error.into(), false))?;
    drop(sender);
    if connects {
        let answer = answer.await.map_err(|error| (streams.failed(error), false))?;
        return Ok(connected(answer, stream));
    }
    let pump = (!ends).then(|| Pump::new(stream));
    answered(answer, pump, request.body_mut()).await.map_err(|failed| match failed {
        Failed::Stream(error) => (streams.failed(error), false),
        Failed::Request(error) => (error, false),
    })
}

enum Failed {
    Stream(h2::Error),
    Request(Error),
}

/// Sends the body, and waits for the answer. Who answers before all of the body is there gets the rest from a task:
/// it has to go on even if nobody reads the answer for a while.
async fn answered(
    mut answer: ResponseFuture,
    mut pump: Option<Pump>,
    body: &mut RequestBody,
) -> Result<Response<Arriving>, Failed> {
    let answer = poll_fn(|cx| {
        if let Some(sending) = &mut pump {
            match sending.poll(cx, body) {
                Poll::Ready(Err(Broken::Body(error))) => {
                    return Poll::Ready(Err(Failed::Request(Error::Request(error))));
                }
                Poll::Ready(Ok(()) | Err(Broken::Stream)) => pump = None,
                Poll::Pending => {}
            }
        }
        Pin::new(&mut answer).poll(cx).map_err(Failed::Stream)
    })
    .await?;
    let sent = pump.is_none();
    if let Some(mut pump) = pump {
        let mut body = std::mem::replace(body, RequestBody::Empty);
        tokio::spawn(async move { drop(poll_fn(|cx| pump.poll(cx, &mut body)).await) });
    }
    Ok(arriving(answer, sent))
}

fn arriving(answer: Response<RecvStream>, sent: bool) -> Response<Arriving> {
    let left = length(answer.headers());
    answer.map(|stream| Arriving::answer(stream, left, sent))
}

/// The answer to CONNECT: what follows a good one is no content, but the bytes of the tunnel (RFC 9113 section 8.5).
fn connected(answer: Response<RecvStream>, stream: SendStream<Bytes>) -> Response<Arriving> {
    if !answer.status().is_success() {
        return arriving(answer, false);
    }
    let (mut head, received) = answer.into_parts();
    let (granting, on) = upgraded::pending();
    granting.grant(Tunnel::new(stream, received), Bytes::new());
    head.extensions.insert(on);
    Response::from_parts(head, Arriving::nothing())
}
