//! Answers, and what an app carries from a request to the requests that it makes for it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use serde_json::{Value, json};
use tonic::body::Body;

/// Which version of the catalog stands behind an answer.
pub(crate) const SHOP_VERSION: HeaderName = HeaderName::from_static("x-shop-version");
/// Which instance gave an answer.
pub(crate) const SHOP_INSTANCE: HeaderName = HeaderName::from_static("x-shop-instance");

/// W3C trace context, the mesh's request id, and both forms of B3.
const TRACE_HEADERS: [HeaderName; 8] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("b3"),
    HeaderName::from_static("x-b3-traceid"),
    HeaderName::from_static("x-b3-spanid"),
    HeaderName::from_static("x-b3-parentspanid"),
    HeaderName::from_static("x-b3-sampled"),
];

/// A request body of the shop is a few lines of JSON.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The trace headers of one request: the whole of what an app does for tracing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Carried(HeaderMap);

impl Carried {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut carried = HeaderMap::new();
        for name in &TRACE_HEADERS {
            for value in headers.get_all(name) {
                carried.append(name, value.clone());
            }
        }
        Self(carried)
    }

    pub(crate) fn copy_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.append(name, value.clone());
        }
    }
}

/// An answer in JSON with a line feed at its end, for people with curl.
pub(crate) fn json_reply(status: StatusCode, value: &Value) -> Response<Body> {
    let mut reply = Response::new(Body::new(Full::new(Bytes::from(format!("{value}\n")))));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

pub(crate) fn error_reply(status: StatusCode, error: &str) -> Response<Body> {
    json_reply(status, &json!({ "error": error }))
}

pub(crate) fn no_such_page(path: &str) -> Response<Body> {
    error_reply(StatusCode::NOT_FOUND, &format!("no such page: {path}"))
}

/// The JSON body of a request, or the answer that says what is wrong with it.
pub(crate) async fn json_body<T, B>(request: Request<B>) -> Result<T, Response<Body>>
where
    T: serde::de::DeserializeOwned,
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|error| error_reply(StatusCode::BAD_REQUEST, &format!("body: {error}")))?;
    serde_json::from_slice(&body.to_bytes())
        .map_err(|error| error_reply(StatusCode::BAD_REQUEST, &format!("body: {error}")))
}
