//! Servers that say what they got, and that misbehave when they are asked to.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::script::{End, Played, Script};

/// The name of the case that a request belongs to.
pub const CASE: HeaderName = HeaderName::from_static("x-case");
/// What the backend shall do: see [`Script`].
pub const DO: HeaderName = HeaderName::from_static("x-do");
/// The backend that answered.
pub const ENDPOINT: HeaderName = HeaderName::from_static("x-endpoint");

/// What a backend speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1
    Http1,
    /// HTTP/2 without an upgrade.
    Http2,
    /// Bytes: it says its name, and then echoes.
    Tcp,
    /// Something that is no HTTP.
    Garbage,
}

/// How many requests the backends of one side saw, by case.
pub type Ledger = Arc<Mutex<BTreeMap<String, u32>>>;

/// A server on a loopback port. It ends when this is dropped.
#[derive(Debug)]
pub struct Backend {
    /// Its name in answers.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    ledger: Ledger,
    connections: Arc<Mutex<u32>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    name: String,
    speaks: Speaks,
    tls: Option<Arc<ServerConfig>>,
    /// Of this connection.
    sni: Option<String>,
    ledger: Ledger,
}

impl Backend {
    /// One that counts for itself.
    ///
    /// # Errors
    /// When the kernel has no port.
    pub async fn start(name: &str, speaks: Speaks) -> std::io::Result<Self> {
        Self::with(name, speaks, None, Ledger::default()).await
    }

    /// One of several that count together, with TLS if there is a configuration.
    ///
    /// # Errors
    /// When the kernel has no port.
    pub async fn with(
        name: &str,
        speaks: Speaks,
        tls: Option<Arc<ServerConfig>>,
        ledger: Ledger,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let connections = Arc::new(Mutex::new(0));
        let shared =
            Shared { name: name.to_owned(), speaks, tls, sni: None, ledger: Arc::clone(&ledger) };
        let task = tokio::spawn(accept(listener, shared, Arc::clone(&connections)));
        Ok(Self { name: name.to_owned(), address, ledger, connections, task })
    }

    /// How many requests of this case arrived.
    pub fn seen(&self, case: &str) -> u32 {
        lock(&self.ledger).get(case).copied().unwrap_or(0)
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> u32 {
        *lock(&self.connections)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Shared, connections: Arc<Mutex<u32>>) {
    // Ends with the listener, and everything that it accepted.
    let mut open = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        *lock(&connections) += 1;
        open.spawn(connection(stream, shared.clone()));
        while open.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, shared: Shared) {
    let Ok(stream) = stream.into_std() else { return };
    // A second handle to the socket, to make its close a reset.
    let Ok(handle) = stream.try_clone() else { return };
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let handle = Arc::new(Mutex::new(Some(handle)));
    match &shared.tls {
        Some(tls) => {
            if let Ok(stream) = TlsAcceptor::from(Arc::clone(tls)).accept(stream).await {
                let sni = stream.get_ref().1.server_name().map(str::to_owned);
                speak(stream, Shared { sni, ..shared }, handle).await;
            }
        }
        None => speak(stream, shared, handle).await,
    }
}

type Handle = Arc<Mutex<Option<std::net::TcpStream>>>;

async fn speak<S>(mut stream: S, shared: Shared, handle: Handle)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let speaks = shared.speaks;
    if speaks != Speaks::Http1 {
        // Only needed there, and the socket closes only when both handles do.
        lock(&handle).take();
    }
    let service = service_fn(move |request| answer(request, shared.clone(), handle.clone()));
    // How a connection ended is seen on its other side.
    match speaks {
        Speaks::Http1 => {
            let mut server = http1::Builder::new();
            server.preserve_header_case(true).timer(TokioTimer::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
        Speaks::Http2 => {
            let server = http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        }
        Speaks::Tcp => {
            let _ = echo(&mut stream).await;
        }
        Speaks::Garbage => {
            // After the request: else it is chance whether the proxy sends one at all.
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"220 mail.test ESMTP\r\n").await;
            let _ = stream.shutdown().await;
        }
    }
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> std::io::Result<()> {
    stream.write_all(b"hello\n").await?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..count]).await?;
    }
}

/// No answer; on HTTP/2 a reset with this code.
fn refusal(code: h2::Reason) -> h2::Error {
    code.into()
}

async fn answer(
    request: Request<Incoming>,
    shared: Shared,
    handle: Handle,
) -> Result<Response<Played>, h2::Error> {
    let text =
        |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let case = text(CASE).unwrap_or_default().to_owned();
    let script = Script::parse(text(DO).unwrap_or_default());
    let count = {
        let mut ledger = lock(&shared.ledger);
        let count = ledger.entry(case).or_insert(0);
        *count += 1;
        *count
    };
    let script = match script {
        Ok(script) if script.times.is_some_and(|times| count > times) => Script::default(),
        Ok(script) => script,
        Err(error) => {
            let mut response = Response::new(Played::whole(format!("{error:#}")));
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
            return Ok(response);
        }
    };
    tokio::time::sleep(script.delay).await;
    match script.end {
        End::Reset if shared.speaks == Speaks::Http1 => {
            if let Some(socket) = lock(&handle).take() {
                // A close with unsent time of zero is a reset.
                let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
            }
            return Err(refusal(h2::Reason::INTERNAL_ERROR));
        }
        End::Reset => return Err(refusal(h2::Reason::INTERNAL_ERROR)),
        End::Refuse => return Err(refusal(h2::Reason::REFUSED_STREAM)),
        End::Close => {
            lock(&handle).take();
            return Err(refusal(h2::Reason::NO_ERROR));
        }
        End::Hang => std::future::pending().await,
        End::Whole | End::Partial => {}
    };
    Ok(respond(request, &shared, &script, count).await)
}

async fn respond(
    request: Request<Incoming>,
    shared: &Shared,
    script: &Script,
    count: u32,
) -> Response<Played> {
    let (head, body) = request.into_parts();
    let (trailers, body) = match body.collect().await {
        Ok(body) => (body.trailers().cloned(), body.to_bytes()),
        Err(_) => (None, Bytes::from_static(b"the request's body was cut")),
    };
    let grpc = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let data = match script.size {
        Some(size) => Bytes::from(vec![b'x'; size]),
        None if grpc => body,
        None => {
            let echo = json!({
                "method": head.method.as_str(),
                "target": head.uri.path_and_query().map(http::uri::PathAndQuery::as_str),
                "authority": head.uri.authority().map(http::uri::Authority::as_str),
                "version": format!("{:?}", head.version),
                "sni": shared.sni,
                "headers": pairs(&head.headers),
                "body": String::from_utf8_lossy(&body),
                "trailers": trailers.as_ref().map(pairs),
            });
            Bytes::from(echo.to_string())
        }
    };
    let length = data.len();
    let mut response = Response::new(played(script, grpc, data));
    if head.method == Method::HEAD {
        *response.body_mut() = Played::default();
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Some(status) = script.status.and_then(|status| StatusCode::from_u16(status).ok()) {
        *response.status_mut() = status;
    }
    let map = response.headers_mut();
    let kind = if grpc { "application/grpc" } else { "application/json" };
    map.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    map.insert("x-attempt", HeaderValue::from(count));
    if let Ok(name) = HeaderValue::from_str(&shared.name) {
        map.insert(ENDPOINT, name);
    }
    if let Some(code) = script.grpc {
        map.insert("grpc-status", HeaderValue::from(code));
    }
    for (name, value) in &script.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            if name == CONTENT_TYPE {
                map.insert(name, value);
            } else {
                map.append(name, value);
            }
        }
    }
    response
}

fn played(script: &Script, grpc: bool, data: Bytes) -> Played {
    if script.grpc.is_some() {
        return Played::empty();
    }
    let trailers = |name: &'static str, value: HeaderValue| {
        HeaderMap::from_iter([(HeaderName::from_static(name), value)])
    };
    if script.end == End::Partial {
        return Played::chunked(data).and_fail();
    }
    if grpc {
        let status = HeaderValue::from(script.grpc_trailer.unwrap_or(0));
        return Played::chunked(data).and_trailers(trailers("grpc-status", status));
    }
    if script.trailers {
        let end = trailers("x-trailer", HeaderValue::from_static("end"));
        return Played::chunked(data).and_trailers(end);
    }
    if script.chunked { Played::chunked(data) } else { Played::whole(data) }
}

fn pairs(headers: &HeaderMap) -> Vec<[String; 2]> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| [name.to_string(), text(value)]).collect()
}
