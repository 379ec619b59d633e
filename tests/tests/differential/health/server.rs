//! A server that answers health checks by a script, one step a check, and then hangs; a step that
//! ends in `!` is never over. Whatever else it is asked it answers well.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Ends when it is dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    shared: Shared,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    index: usize,
    steps: Arc<Mutex<VecDeque<String>>>,
}

type Answer = Response<BoxBody<Bytes, std::convert::Infallible>>;

impl Server {
    /// `script`: words. `tcp` first: bytes are spoken.
    pub(super) async fn start(index: usize, script: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut steps: VecDeque<String> = script.split_whitespace().map(str::to_owned).collect();
        let tcp = steps.pop_front_if(|step| step == "tcp").is_some();
        let shared = Shared { index, steps: Arc::new(Mutex::new(steps)) };
        let kept = shared.clone();
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                open.spawn(async move {
                    if tcp { shared.bytes(stream).await } else { shared.http(stream).await }
                });
            }
        });
        Ok(Self { address, shared: kept, task })
    }

    /// Another script from now on.
    pub(super) fn set(&self, script: &str) {
        *self.shared.lock() = script.split_whitespace().map(str::to_owned).collect();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> String {
        let mut steps = self.lock();
        match steps.front().and_then(|step| step.strip_suffix('!')) {
            Some(ever) => ever.to_owned(),
            None => steps.pop_front().unwrap_or_else(|| "hang".to_owned()),
        }
    }

    /// `PING` is asked, and the step is what is answered.
    async fn bytes(&self, mut stream: TcpStream) {
        let mut asked = [0; 4];
        while stream.read_exact(&mut asked).await.is_ok() {
            match self.next().as_str() {
                "hang" => std::future::pending().await,
                "close" => return,
                text => {
                    if stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn http(&self, stream: TcpStream) {
        let mut start = [0; 3];
        let count = stream.peek(&mut start).await.unwrap_or(0);
        let shared = self.clone();
        let service = service_fn(move |request| {
            let shared = shared.clone();
            async move { shared.answer(request).await }
        });
        let io = TokioIo::new(stream);
        // How a connection ends is the proxy's affair.
        if count > 0 && start[0] == b'P' && start[1] == b'R' {
            drop(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
        } else {
            drop(http1::Builder::new().serve_connection(io, service).await);
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> anyhow::Result<Answer> {
        let path = request.uri().path().to_owned();
        let head = request.into_parts().0;
        let check = path == "/hc" || path.starts_with("/grpc.health.v1.");
        let step = if check { self.next() } else { self.request_words(&path) };
        match step.as_str() {
            "hang" => std::future::pending().await,
            "close" => anyhow::bail!("closed by the script"),
            "serving" => Ok(grpc(1)),
            "not-serving" => Ok(grpc(2)),
            "unimplemented" => Ok(Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "12")
                .body(Full::default().boxed())?),
            words => self.plain(words, &head.headers),
        }
    }

    /// `/fail`: the answer says that no more is wanted. `/err`: it is an error, `/err1` only from
    /// endpoint 1. `/bad-gateway`: 502.
    fn request_words(&self, path: &str) -> String {
        let mine = format!("/err{}", self.index);
        match path {
            "/fail" => "200,fail".to_owned(),
            "/bad-gateway" => "502".to_owned(),
            "/close" => "close".to_owned(),
            _ if path == "/err" || path == mine => "500".to_owned(),
            _ => "200".to_owned(),
        }
    }

    /// `200`, `503,degraded`, `200,fail`, `200,cluster=x`, `200,body=x`, `200,echo=header`
    fn plain(&self, words: &str, asked: &HeaderMap) -> anyhow::Result<Answer> {
        let mut words = words.split(',');
        let status: u16 = words.next().unwrap_or_default().parse()?;
        let mut builder = Response::builder().status(status).header("x-index", self.index);
        let mut body = Bytes::new();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match name {
                "degraded" => builder = builder.header("x-envoy-degraded", "true"),
                "fail" => builder = builder.header("x-envoy-immediate-health-check-fail", "true"),
                "cluster" => {
                    builder = builder.header("x-envoy-upstream-healthchecked-cluster", value);
                }
                "body" => body = Bytes::copy_from_slice(value.as_bytes()),
                "echo" => {
                    body = asked.get(value).map_or_else(
                        || Bytes::from_static(b"absent"),
                        |found| Bytes::copy_from_slice(found.as_bytes()),
                    );
                }
                "last" => builder = builder.header("connection", "close"),
                _ => anyhow::bail!("no such word: {word}"),
            }
        }
        Ok(builder.body(Full::new(body).boxed())?)
    }
}

fn grpc(status: u8) -> Answer {
    let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [Ok(Frame::data(message)), Ok(Frame::trailers(trailers))];
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames)).boxed();
    let mut answer = Response::new(body);
    let kind = http::HeaderValue::from_static("application/grpc");
    answer.headers_mut().insert("content-type", kind);
    answer
}
