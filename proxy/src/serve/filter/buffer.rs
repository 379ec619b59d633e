//! Requests that go on when they are complete (Envoy: buffer filter).

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, Request, StatusCode};

use super::super::exchange::Exchange;
use super::whole::{self, Read};
use crate::http::body::RequestBody;
use crate::telemetry::reason::{Reason, Refusal};

/// Read the whole body, up to `most` bytes, before anybody else sees the request.
///
/// # Errors
/// The body is longer (413), or does not come.
pub(super) async fn fill(
    exchange: &Exchange,
    most: u32,
    request: &mut Request<RequestBody>,
) -> Result<(), Refusal> {
    if matches!(request.body(), RequestBody::Empty | RequestBody::Full(_)) {
        return Ok(());
    }
    let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
    match whole::read(exchange, body, most as usize).await? {
        Read::TooLong(..) => Err(Refusal::downstream(
            Reason::RequestTooLarge,
            StatusCode::PAYLOAD_TOO_LARGE,
            "Payload Too Large",
        )),
        Read::Whole(whole) => {
            // Its length is known now (Envoy adds it where it was missing).
            let length = HeaderValue::from(whole.data.len());
            request.headers_mut().entry(CONTENT_LENGTH).or_insert(length);
            request.headers_mut().remove(TRANSFER_ENCODING);
            *request.body_mut() = whole.into();
            Ok(())
        }
    }
}
