//! A server that answers what a function says.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::part::Server;

/// Says what is answered, with trailers where there are any.
pub(crate) type Answer = fn(Request<Bytes>) -> BoxFuture<'static, (Response<Bytes>, HeaderMap)>;

/// A server on a port of its own, which speaks HTTP/2 (without an upgrade) or HTTP/1.1.
pub(crate) async fn serve(http2: bool, answer: Answer) -> anyhow::Result<Server> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, http2, answer));
        }
    });
    Ok(Server { address, _keep: Box::new(Ends(task)) })
}

struct Ends(tokio::task::JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connection(stream: TcpStream, http2: bool, answer: Answer) {
    let service = service_fn(move |request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let (response, trailers) = answer(Request::from_parts(head, body)).await;
        let with_trailers = |body: Bytes| -> BoxBody<Bytes, Infallible> {
            let full = Full::new(body);
            if trailers.is_empty() {
                full.boxed()
            } else {
                full.with_trailers(async move { Some(Ok(trailers)) }).boxed()
            }
        };
        Ok::<_, Infallible>(response.map(with_trailers))
    });
    let io = TokioIo::new(stream);
    // A peer that leaves is no failure of the test's.
    let _ = if http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        http1::Builder::new().serve_connection(io, service).await
    };
}
