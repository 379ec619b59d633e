//! The server's end of HTTP/1 (RFC 9112): one connection, one task.
//!
//! The task reads a head, has the guard look at it, serves the exchange and writes its answer. The
//! body of a request reads from the connection itself ([`incoming`]), whoever polls it: there is no
//! channel, and no task beside this one. While an exchange is under way, the connection is watched
//! for its end, so that nothing goes on for a client that has left; what comes in advance is kept
//! up to a limit.

mod close;
mod head;
mod incoming;
mod reply;
mod shared;
mod turn;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use self::head::Reader;
use self::reply::Then;
use self::shared::Shared;
use self::turn::Turn;
use super::exchange::Arrived;
use super::lifetime::Graceful;
use crate::http::body::BodyError;
use crate::http::guard::Rules;
use crate::http::straight::Straight;
use crate::model::http::HttpManager;
use crate::net::splice::Drain;

/// How connections are served.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    rules: Rules,
    /// How long a head may take from its first byte.
    patience: Option<Duration>,
    /// Names in answers begin with capitals, if nothing tells how they were spelled.
    title_case: bool,
}

impl Settings {
    /// Those of a connection manager.
    pub(super) fn new(manager: &HttpManager) -> Self {
        Self {
            rules: Rules {
                max_head: manager.limits.max_request_headers_kb as usize * 1024,
                max_lines: manager.limits.max_headers_count as usize,
                accept_http_10: manager.accept_http_10,
                allow_chunked_length: manager.allow_chunked_length,
            },
            patience: manager.timeouts.request_headers,
            title_case: manager.title_case_headers,
        }
    }
}

/// A connection that is being served.
pub(super) struct Serving<T, F> {
    /// In a box: it is moved about, and as large as an exchange.
    work: Pin<Box<F>>,
    shared: Arc<Shared<T>>,
}

/// Serve the requests of a connection, one after the other.
pub(super) fn serve<T, A, W, B>(
    io: T,
    settings: Settings,
    answer: A,
) -> Serving<T, impl Future<Output = io::Result<()>>>
where
    T: AsyncRead + AsyncWrite + Drain + Send + Unpin + 'static,
    A: Fn(Request<Arrived>) -> W,
    W: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = BodyError> + Straight + Unpin,
{
    let shared = Arc::new(Shared::new(io));
    Serving { work: Box::pin(run(Arc::clone(&shared), settings, answer)), shared }
}

async fn run<T, A, W, B>(shared: Arc<Shared<T>>, settings: Settings, answer: A) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Drain + Send + Unpin + 'static,
    A: Fn(Request<Arrived>) -> W,
    W: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = BodyError> + Straight + Unpin,
{
    let mut reader = Reader::new(settings);
    loop {
        let Some(next) = poll_fn(|cx| reader.poll(&shared, cx)).await? else {
            return close::close(&shared, false).await;
        };
        let (request, turn) = Turn::begin(&shared, next, &settings.rules);
        let answer = answered(&shared, answer(request), turn.is_refused()).await?;
        match reply::write(&shared, answer, turn, settings.title_case).await? {
            Then::Next => shared.finish_turn(),
            Then::Close { unread } => return close::close(&shared, unread).await,
            Then::Granted => return Ok(()),
        }
    }
}

/// The answer to a request, unless its client leaves before that.
async fn answered<T: AsyncRead + AsyncWrite + Unpin, B>(
    shared: &Shared<T>,
    work: impl Future<Output = Response<B>>,
    refused: bool,
) -> io::Result<Response<B>> {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(answer) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(answer));
        }
        // What follows a head that is none is nothing to be read.
        if refused {
            return Poll::Pending;
        }
        shared.poll_left(cx).map(Err)
    })
    .await
}

impl<T, F: Future<Output = io::Result<()>>> Future for Serving<T, F> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.work.as_mut().poll(cx)
    }
}

impl<T, F: Future<Output = io::Result<()>>> Graceful for Serving<T, F> {
    fn finish(self: Pin<&mut Self>) {
        self.shared.finish();
    }
}

impl<T, F> Drop for Serving<T, F> {
    fn drop(&mut self) {
        // Before what is under way, so that it is known what was cut off.
        self.shared.cut();
    }
}

#[cfg(test)]
mod tests;
