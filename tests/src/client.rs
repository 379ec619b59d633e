//! A client for one request, over HTTP/1.1 or HTTP/2, with or without TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{HOST, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::script::Played;
use crate::wait::LIMIT;

/// A request.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Host or authority.
    pub host: String,
    /// Headers, beside the host.
    pub headers: Vec<(String, String)>,
    /// Content.
    pub body: Vec<u8>,
    /// Content without its length.
    pub chunked: bool,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// Over HTTP/2.
    pub http2: bool,
    /// Over TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// Whom it asks for in TLS.
    pub server_name: String,
}

impl Ask {
    /// A request with this method, for a host that is still to be said.
    pub fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            host: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
            chunked: false,
            trailers: Vec::new(),
            http2: false,
            tls: None,
            server_name: "localhost".to_owned(),
        }
    }
}

/// What came back.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Names in lower case, in the order of their arrival.
    pub headers: Vec<(String, String)>,
    /// Content.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// It ended in the middle.
    pub cut: bool,
}

impl Answer {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends `ask` to `address` on a connection of its own.
///
/// # Errors
/// When there was no answer at all.
pub async fn send(address: SocketAddr, ask: &Ask) -> anyhow::Result<Answer> {
    timeout(LIMIT, Box::pin(exchange(address, ask))).await.context("no answer in time")?
}

async fn exchange(address: SocketAddr, ask: &Ask) -> anyhow::Result<Answer> {
    let stream = TcpStream::connect(address).await.context("connect")?;
    match &ask.tls {
        None => speak(stream, ask).await,
        Some(config) => {
            let name = ServerName::try_from(ask.server_name.clone()).context("a DNS name")?;
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = connector.connect(name, stream).await.context("TLS handshake")?;
            speak(stream, ask).await
        }
    }
}

async fn speak<S>(stream: S, ask: &Ask) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = request(ask)?;
    let io = TokioIo::new(stream);
    // The connection is driven until the answer is read, and dropped then.
    let mut driver = tokio::task::JoinSet::new();
    let response = if ask.http2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        driver.spawn(async move { drop(connection.await) });
        sender.send_request(request).await.context("request")?
    } else {
        let (mut sender, connection) = http1::handshake(io).await?;
        driver.spawn(async move { drop(connection.await) });
        sender.send_request(request).await.context("request")?
    };
    let (head, mut body) = response.into_parts();
    let mut answer =
        Answer { status: head.status.as_u16(), headers: pairs(&head.headers), ..Answer::default() };
    while let Some(frame) = body.frame().await {
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => answer.body.extend_from_slice(&data),
            Ok(Err(frame)) => {
                if let Ok(trailers) = frame.into_trailers() {
                    answer.trailers = pairs(&trailers);
                }
            }
            Err(_) => {
                answer.cut = true;
                break;
            }
        }
    }
    Ok(answer)
}

fn request(ask: &Ask) -> anyhow::Result<Request<Played>> {
    let body = Bytes::from(ask.body.clone());
    let mut body = match (body.is_empty(), ask.chunked) {
        (true, false) => Played::empty(),
        (_, true) => Played::chunked(body),
        (false, false) => Played::whole(body),
    };
    if !ask.trailers.is_empty() {
        body = body.and_trailers(map(&ask.trailers)?);
    }
    let mut request = Request::new(body);
    *request.method_mut() = ask.method.clone();
    *request.headers_mut() = map(&ask.headers)?;
    if ask.http2 {
        let scheme = if ask.tls.is_some() { "https" } else { "http" };
        *request.uri_mut() = format!("{scheme}://{}{}", ask.host, ask.path).parse()?;
        *request.version_mut() = Version::HTTP_2;
    } else {
        *request.uri_mut() = ask.path.parse::<Uri>()?;
        request.headers_mut().insert(HOST, HeaderValue::from_str(&ask.host)?);
    }
    Ok(request)
}

fn map(pairs: &[(String, String)]) -> anyhow::Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(name.parse::<HeaderName>()?, HeaderValue::from_str(value)?);
    }
    Ok(map)
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// One HTTP/1.1 `GET`, for admin endpoints.
///
/// # Errors
/// When there is no answer within two seconds: a process that starts is asked again.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let ask = Ask { host: address.to_string(), ..Ask::new(Method::GET, path) };
    timeout(Duration::from_secs(2), Box::pin(exchange(address, &ask))).await?
}
