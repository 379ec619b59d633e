//! A server that takes whatever telemetry is sent to it: gRPC calls and streams over HTTP/2, and
//! plain posts. What they mean is up to the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Path of the request.
    pub path: String,
    /// Headers of the request.
    pub headers: HeaderMap,
    /// The message itself, without its frame.
    pub bytes: Bytes,
}

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    messages: Arc<Mutex<Vec<Message>>>,
    task: JoinHandle<()>,
}

impl Collector {
    /// On a port of its own.
    ///
    /// # Errors
    /// When the kernel has no port.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let messages = Arc::default();
        let task = tokio::spawn(accept(listener, Arc::clone(&messages)));
        Ok(Self { address, messages, task })
    }

    /// Everything so far, of requests whose path ends so.
    pub fn messages(&self, path: &str) -> Vec<Message> {
        let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.iter().filter(|message| message.path.ends_with(path)).cloned().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, messages: Arc<Mutex<Vec<Message>>>) {
    let mut open = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let messages = Arc::clone(&messages);
        open.spawn(async move {
            let service = service_fn(move |request| take(request, Arc::clone(&messages)));
            let mut first = [0; 3];
            let h2 = stream.peek(&mut first).await.is_ok() && &first == b"PRI";
            let io = TokioIo::new(stream);
            // A client that goes away is no failure of the server.
            let _ = if h2 {
                http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
            } else {
                http1::Builder::new().serve_connection(io, service).await
            };
        });
        while open.try_join_next().is_some() {}
    }
}

type Reply =
    StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, hyper::Error>>>>;

async fn take(
    request: Request<Incoming>,
    messages: Arc<Mutex<Vec<Message>>>,
) -> Result<Response<Reply>, hyper::Error> {
    let (head, mut body) = request.into_parts();
    let kind = head.headers.get("content-type").cloned();
    let grpc = kind.as_ref().is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let keep = |bytes: Bytes| {
        let message =
            Message { path: head.uri.path().to_owned(), headers: head.headers.clone(), bytes };
        messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    };
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        buffer.extend_from_slice(&data);
        // Messages of a stream are there before it ends.
        while grpc && buffer.len() >= 5 {
            let length = usize::try_from((&buffer[1..5]).get_u32()).unwrap_or(usize::MAX);
            if buffer.len() - 5 < length {
                break;
            }
            buffer.advance(5);
            keep(buffer.split_to(length).freeze());
        }
    }
    if !grpc {
        keep(buffer.freeze());
        return Ok(Response::new(StreamBody::new(futures_util::stream::iter(Vec::new()))));
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames =
        vec![Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 0]))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
