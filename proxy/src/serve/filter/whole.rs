//! Request bodies that a filter wants whole.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};

use super::super::clock::Clock;
use super::super::exchange::Exchange;
use crate::http::body::{BodyError, BoxBody, RequestBody};
use crate::policy::timeout::Timeouts;
use crate::telemetry::reason::{Reason, Refusal, Side};

/// A request body, read whole.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) data: Bytes,
    pub(super) trailers: Option<HeaderMap>,
}

impl From<Whole> for RequestBody {
    fn from(whole: Whole) -> Self {
        match whole.trailers {
            None if whole.data.is_empty() => Self::Empty,
            None => Self::Full(Some(whole.data)),
            Some(trailers) => {
                let frames = [Frame::data(whole.data), Frame::trailers(trailers)];
                let frames = futures_util::stream::iter(frames.map(Ok::<_, BodyError>));
                Self::Boxed(Box::pin(StreamBody::new(frames)))
            }
        }
    }
}

/// What reading a body to its end, or to a limit, came to.
#[derive(Debug)]
pub(super) enum Read {
    /// All of it.
    Whole(Whole),
    /// More than the limit came: what has been read, and the rest.
    TooLong(Bytes, RequestBody),
}

/// Read a request body of at most `limit` bytes, for as long as the connection manager lets a
/// request take.
///
/// # Errors
/// The downstream is too slow, or leaves.
pub(super) async fn read(
    exchange: &Exchange,
    mut body: RequestBody,
    limit: usize,
) -> Result<Read, Refusal> {
    let timeouts = &exchange.connection.http.manager.timeouts;
    let limits = Timeouts { max_stream: timeouts.max_stream_duration, ..Timeouts::default() };
    let meter = exchange.meter.clone();
    let clock = Clock::new(exchange.started, limits, timeouts.stream_idle, timeouts.request, meter);
    let mut data = BytesMut::new();
    let mut trailers = None;
    loop {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            reason = clock.run_out(None, &exchange.connection.timers) => return Err(too_slow(reason)),
        };
        match frame {
            None => return Ok(Read::Whole(Whole { data: data.freeze(), trailers })),
            Some(Err(error)) => {
                let reason = Reason::DownstreamTermination;
                let detail = format!("the request body broke off: {error}");
                return Err(Refusal::downstream(reason, StatusCode::BAD_REQUEST, detail));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(more) => {
                    data.extend_from_slice(&more);
                    if data.len() > limit {
                        return Ok(Read::TooLong(data.freeze(), body));
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
}

/// One body after another.
pub(super) fn chain(begin: RequestBody, rest: RequestBody) -> BoxBody {
    use futures_util::StreamExt as _;
    let frames = |body| http_body_util::BodyStream::new(body);
    Box::pin(StreamBody::new(frames(begin).chain(frames(rest))))
}

fn too_slow(reason: Reason) -> Refusal {
    let (status, side, detail) = match reason {
        Reason::DownstreamRequestTimeout => {
            (StatusCode::REQUEST_TIMEOUT, Side::Downstream, "request timeout")
        }
        Reason::MaxDuration => {
            (StatusCode::REQUEST_TIMEOUT, Side::Local, "max stream duration reached")
        }
        _ => (StatusCode::REQUEST_TIMEOUT, Side::Downstream, "stream timeout"),
    };
    let refusal = Refusal::downstream(reason, status, detail);
    Refusal { side, ..refusal }
}
