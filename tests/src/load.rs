//! Load: requests one after another until they are told to stop, and what became of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use anyhow::ensure;
use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::wait::{self, LIMIT};

/// How requests travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// HTTP/1.1, each on a connection of its own.
    Anew,
    /// HTTP/1.1, on one connection until an answer says that it ends.
    KeepAlive,
    /// HTTP/2, on one connection until it says that it ends.
    Http2,
}

/// Clients at work. They end when this is dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    clients: JoinSet<Vec<String>>,
}

impl Load {
    /// One client of each style asks `address` for `/` of `host`.
    pub fn start(address: SocketAddr, host: &str, styles: &[Style]) -> Self {
        let mut load =
            Self { stop: Arc::default(), answered: Arc::default(), clients: JoinSet::new() };
        for style in styles {
            load.add(address, host, *style);
        }
        load
    }

    /// One client more.
    pub fn add(&mut self, address: SocketAddr, host: &str, style: Style) {
        let (stop, answered) = (Arc::clone(&self.stop), Arc::clone(&self.answered));
        let mut client = Client { address, host: host.to_owned(), style, open: None };
        self.clients.spawn(async move {
            let mut bad = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match timeout(LIMIT, client.ask()).await {
                    Ok(Ok(StatusCode::OK)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                    Ok(Ok(status)) => bad.push(format!("{style:?}: {status}")),
                    Ok(Err(error)) => bad.push(format!("{style:?}: {error:#}")),
                    Err(_) => bad.push(format!("{style:?}: no answer in time")),
                }
            }
            bad
        });
    }

    /// Waits until `more` answers have come from now on.
    ///
    /// # Errors
    /// After [`wait::LIMIT`].
    pub async fn goes_on(&self, more: u32) -> anyhow::Result<()> {
        let enough = self.answered.load(Ordering::Relaxed) + more;
        let come = || async { (self.answered.load(Ordering::Relaxed) >= enough).then_some(()) };
        wait::until("the load goes on", come).await
    }

    /// Stops, and returns how many good answers there were.
    ///
    /// # Errors
    /// When anything but a good answer came, or none.
    pub async fn end(mut self) -> anyhow::Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        let mut bad = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            bad.extend(client?);
        }
        let good = self.answered.load(Ordering::Relaxed);
        ensure!(bad.is_empty(), "{} failed, {good} did not: {bad:#?}", bad.len());
        ensure!(good > 0, "there was no load");
        Ok(good)
    }
}

struct Client {
    address: SocketAddr,
    host: String,
    style: Style,
    open: Option<Open>,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

struct Open {
    sender: Sender,
    _driver: JoinSet<()>,
}

impl Client {
    async fn ask(&mut self) -> anyhow::Result<StatusCode> {
        loop {
            let mut open = match self.open.take() {
                Some(open) => open,
                None => self.connect().await?,
            };
            let mut request = Request::new(Empty::new());
            let sent = match &mut open.sender {
                Sender::Http1(sender) => {
                    request.headers_mut().insert(HOST, self.host.parse()?);
                    sender.try_send_request(request).await
                }
                Sender::Http2(sender) => {
                    *request.uri_mut() = format!("http://{}/", self.host).parse()?;
                    *request.version_mut() = Version::HTTP_2;
                    sender.try_send_request(request).await
                }
            };
            let response = match sent {
                Ok(response) => response,
                // HTTP/2 says which requests it never took: those are for the next connection. With
                // HTTP/1 nobody can know, so it counts as failed.
                Err(mut error) => match (self.style, error.take_message()) {
                    (Style::Http2, Some(_)) => continue,
                    _ => return Err(error.into_error().into()),
                },
            };
            let last = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
            let status = response.status();
            response.into_body().collect().await?;
            if self.style != Style::Anew && !last {
                self.open = Some(open);
            }
            return Ok(status);
        }
    }

    async fn connect(&self) -> anyhow::Result<Open> {
        let io = TokioIo::new(TcpStream::connect(self.address).await?);
        let mut driver = JoinSet::new();
        let sender = if self.style == Style::Http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            driver.spawn(async move { drop(connection.await) });
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await?;
            driver.spawn(async move { drop(connection.await) });
            Sender::Http1(sender)
        };
        Ok(Open { sender, _driver: driver })
    }
}
