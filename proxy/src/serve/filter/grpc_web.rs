//! gRPC-Web for browsers: as gRPC towards the upstream (Envoy: gRPC-Web filter; gRPC: PROTOCOL-WEB).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;

use super::super::body::AnswerBody;
use super::super::exchange::Exchange;
use super::OnReply;
use super::grpc_stats::{Call, Known};
use super::whole::{self, Read};
use crate::http::body::{BodyError, RequestBody};
use crate::http::transform::{Change, Changed};
use crate::http::{grpc, target};
use crate::telemetry::reason::{Reason, Refusal};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const WEB: HeaderValue = HeaderValue::from_static("application/grpc-web+proto");
const TEXT: HeaderValue = HeaderValue::from_static("application/grpc-web-text+proto");
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// First byte of the frame that carries the trailers.
const TRAILERS: u8 = 0x80;
/// What a text of an answer that is no gRPC may have, to become `grpc-message`.
const LONGEST_MESSAGE: usize = 16 * 1024;
/// What is decoded at once, so that bad base64 can still be answered.
const AT_ONCE: usize = 1024 * 1024;

/// Turns a gRPC-Web request into a gRPC one, and notes that its answer goes the other way.
///
/// # Errors
/// The body is no base64 where it should be.
pub(super) async fn request(
    exchange: &mut Exchange,
    known: &Known,
    request: &mut Request<RequestBody>,
) -> Result<(), Refusal> {
    let headers = request.headers();
    let kind = |name| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let text_back = is_text(kind(ACCEPT));
    let text = match kind(CONTENT_TYPE) {
        b"application/grpc-web" | b"application/grpc-web+proto" => false,
        b"application/grpc-web-text" | b"application/grpc-web-text+proto" => true,
        _ => return Ok(()),
    };
    let call = known.web(exchange, target::path(request.uri()));
    let headers = request.headers_mut();
    exchange.notes.on_reply(OnReply::GrpcWeb(text_back, call));
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, GRPC);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.entry(ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
    if text {
        let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
        *request.body_mut() = decoded(exchange, body).await?;
    }
    Ok(())
}

fn is_text(kind: &[u8]) -> bool {
    kind == b"application/grpc-web-text" || kind == b"application/grpc-web-text+proto"
}

async fn decoded(exchange: &Exchange, body: RequestBody) -> Result<RequestBody, Refusal> {
    match whole::read(exchange, body, AT_ONCE).await? {
        Read::Whole(whole) => {
            let mut out = BytesMut::new();
            let mut base64 = Base64::default();
            let done = base64.data(&whole.data, false, &mut out);
            let done = done.and_then(|()| base64.end(None, &mut out));
            done.map_err(|error| {
                let reason = Reason::BadBase64;
                Refusal::downstream(reason, StatusCode::BAD_REQUEST, error.to_string())
            })?;
            let data = out.freeze();
            Ok(if data.is_empty() { RequestBody::Empty } else { RequestBody::Full(Some(data)) })
        }
        Read::TooLong(begin, rest) => {
            let begin = RequestBody::Full(Some(begin));
            let body = whole::chain(begin, rest);
            Ok(RequestBody::Boxed(Changed::boxed(body, Base64::default())))
        }
    }
}

/// Base64 to bytes; padding may stand between two messages.
#[derive(Debug, Default)]
struct Base64 {
    /// Fewer than four characters.
    begun: Vec<u8>,
}

impl Change for Base64 {
    fn data(&mut self, piece: &[u8], _more: bool, out: &mut BytesMut) -> Result<(), BodyError> {
        self.begun.extend_from_slice(piece);
        let whole = self.begun.len() / 4 * 4;
        for four in self.begun[..whole].chunks(4) {
            let mut three = [0_u8; 3];
            let made = STANDARD.decode_slice(four, &mut three);
            let made = made.map_err(|_| "Bad gRPC-web request, invalid base64 data.")?;
            out.extend_from_slice(&three[..made]);
        }
        self.begun.drain(..whole);
        Ok(())
    }

    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        _out: &mut BytesMut,
    ) -> Result<Option<HeaderMap>, BodyError> {
        if self.begun.is_empty() {
            Ok(trailers)
        } else {
            Err("Bad gRPC-web request, invalid base64 data.".into())
        }
    }
}

/// Turns the answer to such a request into gRPC-Web.
pub(super) async fn response(
    (text, call): (bool, Option<Call>),
    response: Response<AnswerBody>,
) -> Response<AnswerBody> {
    use http_body::Body as _;
    let (mut head, body) = response.into_parts();
    let empty = body.is_end_stream();
    let is_grpc = is_answer(&head, empty);
    let mut call = call;
    if let Some(status) = head.headers.get(STATUS)
        && let Some(call) = call.take()
    {
        call.end(status.to_str().unwrap_or(""));
    }
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_TYPE, if text { TEXT } else { WEB });
    if is_grpc {
        let body = AnswerBody::Boxed(Changed::boxed(body.boxed(), Web { text, call }));
        return Response::from_parts(head, if empty { AnswerBody::Empty } else { body });
    }
    if empty {
        return Response::from_parts(head, AnswerBody::Empty);
    }
    // Whoever answered did not mean to speak gRPC: what it says becomes the message.
    let said = begin_of(body, call).await;
    let status = match head.status {
        StatusCode::OK => 2,
        other => grpc::status_of(other),
    };
    head.headers.insert(MESSAGE, grpc::message(&String::from_utf8_lossy(&said)));
    head.headers.insert(STATUS, HeaderValue::from(u16::from(status)));
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    Response::from_parts(head, AnswerBody::Empty)
}

/// gRPC, or gRPC-Web already.
fn is_answer(head: &http::response::Parts, empty: bool) -> bool {
    if empty {
        return head.headers.contains_key(STATUS);
    }
    let kind = head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let web = kind == "application/grpc-web" || kind == "application/grpc-web+proto";
    head.status == StatusCode::OK && (grpc::is_grpc(&head.headers) || web)
}

async fn begin_of(mut body: AnswerBody, mut call: Option<Call>) -> Bytes {
    let mut said = BytesMut::new();
    while said.len() < LONGEST_MESSAGE
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Some(data) = frame.data_ref() {
            said.extend_from_slice(data);
        }
        let status = frame.trailers_ref().and_then(|trailers| trailers.get(STATUS));
        if let Some(status) = status
            && let Some(call) = call.take()
        {
            call.end(status.to_str().unwrap_or(""));
        }
    }
    said.truncate(LONGEST_MESSAGE);
    said.freeze()
}

/// gRPC to gRPC-Web: the trailers become a frame.
#[derive(Debug)]
struct Web {
    text: bool,
    /// Counts the call when its status is known.
    call: Option<Call>,
}

impl Web {
    fn put(&self, bytes: &[u8], out: &mut BytesMut) {
        if self.text {
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        } else {
            out.extend_from_slice(bytes);
        }
    }
}

impl Change for Web {
    fn data(&mut self, piece: &[u8], _more: bool, out: &mut BytesMut) -> Result<(), BodyError> {
        self.put(piece, out);
        Ok(())
    }

    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        out: &mut BytesMut,
    ) -> Result<Option<HeaderMap>, BodyError> {
        let Some(trailers) = trailers else { return Ok(None) };
        if let (Some(call), Some(status)) = (self.call.take(), trailers.get(STATUS)) {
            call.end(status.to_str().unwrap_or(""));
        }
        let mut lines = Vec::new();
        for (name, value) in &trailers {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.push(b':');
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        let length = u32::try_from(lines.len())?;
        let mut frame = vec![TRAILERS];
        frame.extend_from_slice(&length.to_be_bytes());
        frame.append(&mut lines);
        self.put(&frame, out);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_comes_in_any_pieces_and_may_be_padded_between() {
        let mut base64 = Base64::default();
        let mut out = BytesMut::new();
        for piece in ["AAAAA", "AVoZW", "xsbw==", "AAAA"] {
            base64.data(piece.as_bytes(), true, &mut out).unwrap();
        }
        assert!(base64.end(None, &mut out).is_ok());
        assert_eq!(&out[..], b"\0\0\0\0\x05hello\0\0\0");
        assert!(base64.data(b"!!!!", true, &mut out).is_err());
    }

    #[test]
    fn trailers_become_the_last_frame() {
        let trailers = HeaderMap::from_iter([
            (STATUS, HeaderValue::from_static("0")),
            (MESSAGE, HeaderValue::from_static("ok")),
        ]);
        let mut out = BytesMut::new();
        assert_eq!(Web { text: false, call: None }.end(Some(trailers), &mut out).unwrap(), None);
        assert_eq!(&out[..], b"\x80\0\0\0\x20grpc-status:0\r\ngrpc-message:ok\r\n");
    }
}
