//! Connections of the admin interface.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::commands;
use super::source::Source;
use crate::net::{Acceptor, Io};

/// How long a request head may take, or a connection may idle. Longer than scrapes are apart.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// How long answers under way may take when the server ends.
const LINGER: Duration = Duration::from_secs(2);

/// Answer on this socket until `shutdown` is ready, then let requests under way end, for two
/// seconds at most. It binds nothing itself. Runs on the runtime that polls it.
///
/// # Errors
/// When the socket cannot be used with the runtime, or breaks.
pub async fn serve(
    mut acceptor: Acceptor,
    source: Arc<dyn Source>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    let ending = CancellationToken::new();
    let result = loop {
        tokio::select! {
            () = &mut shutdown => break Ok(()),
            Some(_) = connections.join_next() => {}
            accepted = acceptor.accept() => match accepted {
                Ok((io, _)) => {
                    connections.spawn(connection(io, source.clone(), ending.clone()));
                }
                Err(error) => break Err(error),
            },
        }
    };
    drop(acceptor);
    ending.cancel();
    // Whoever is not done by then is cut off when the set is dropped.
    let _ = timeout(LINGER, async { while connections.join_next().await.is_some() {} }).await;
    result
}

async fn connection(io: Io, source: Arc<dyn Source>, ending: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let source = source.clone();
        async move { Ok::<_, Infallible>(respond(&*source, &request)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the admin interface ended early");
    }
}

fn respond(
    source: &dyn Source,
    request: &Request<Incoming>,
) -> Response<http_body_util::Full<bytes::Bytes>> {
    commands::answer(source, request.method(), request.uri(), request.headers()).into_response()
}
