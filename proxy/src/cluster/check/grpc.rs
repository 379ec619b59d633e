//! A check by `grpc.health.v1.Health/Check`.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;

use super::state::{Failure, Finding};
use super::{AGENT, Kept, Probe, wire};
use crate::model::health_check::GrpcCheck;

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct Reply {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SERVING`
const SERVING: i32 = 1;
/// More than any answer to this question has.
const MOST: usize = 64 << 10;

/// One check.
pub(super) async fn check(
    probe: &Probe,
    config: &GrpcCheck,
    kept: Option<Kept>,
) -> (Finding, Option<Kept>) {
    let failed = (Finding::Failed(Failure::Network), None);
    let Ok(request) = request(probe, config) else { return failed };
    let Ok((response, kept)) = wire::send(probe, true, request, kept).await else { return failed };
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return failed };
        match frame.into_data() {
            Ok(data) if bytes.len() + data.len() <= MOST => bytes.put(data),
            Ok(_) => return (Finding::Failed(Failure::Active), None),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
    let well = head.status == StatusCode::OK
        && status.map(HeaderValue::as_bytes) == Some(b"0")
        && serving(&bytes);
    (if well { Finding::Healthy } else { Finding::Failed(Failure::Active) }, kept)
}

fn request(probe: &Probe, config: &GrpcCheck) -> Result<Request<Full<Bytes>>, http::Error> {
    let message = Question { service: config.service.clone() }.encode_to_vec();
    let mut body = BytesMut::with_capacity(5 + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    body.put_slice(&message);
    let mut request = Request::builder()
        .method("POST")
        .uri("/grpc.health.v1.Health/Check")
        .header(HOST, probe.host(&config.authority))
        .header(USER_AGENT, AGENT)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::new(body.freeze()))?;
    super::change(&config.metadata, request.headers_mut());
    Ok(request)
}

/// Whether this is exactly one message, and it says `SERVING`.
fn serving(bytes: &[u8]) -> bool {
    let Some((head, message)) = bytes.split_at_checked(5) else { return false };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    head[0] == 0
        && usize::try_from(length) == Ok(message.len())
        && Reply::decode(message).is_ok_and(|reply| reply.status == SERVING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_serving_is_well() {
        assert!(serving(&[0, 0, 0, 0, 2, 8, 1]));
        for bad in [
            &[][..],
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 8, 2],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 3, 8, 1],
            &[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1],
        ] {
            assert!(!serving(bad), "{bad:?}");
        }
    }
}
