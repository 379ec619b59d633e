//! Bodies, tunnels and silence on HTTP/2 connections to endpoints.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason as Code, RecvStream};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::cluster::testing::{Backend, Shop, config, data, eventually, ok, pieces, post};
use crate::http::body::RequestBody;
use crate::http::upgraded;
use crate::model::cluster::{Cluster, Protocol};
use crate::telemetry::reason::{Reason, Sent};

fn http2() -> Cluster {
    Cluster { protocol: Protocol::Http2, ..config() }
}

/// An endpoint that takes so many bytes at a time, and handles each stream by itself.
async fn streams<F, Fut>(window: u32, handle: F) -> Backend
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Backend::raw(move |stream: TcpStream| async move {
        let builder = h2::server::Builder::new().initial_window_size(window).clone();
        let mut connection = builder.handshake(stream).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(handle(request, respond));
        }
    })
    .await
}

/// Reads a body to its end.
async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        all.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok(all)
}

#[tokio::test]
async fn an_early_answer_does_not_end_the_request() {
    let backend = streams(65_535, |mut request, mut respond| async move {
        let mut answer = respond.send_response(Response::new(()), false).unwrap();
        let all = read(request.body_mut()).await.unwrap();
        answer.send_data(all.into(), true).unwrap();
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    let (sender, body) = pieces();
    sender.send(data("one")).unwrap();
    let response = shop.send(post(body)).await.unwrap();
    // Nobody reads the answer yet.
    sender.send(data("two")).unwrap();
    drop(sender);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "onetwo");
}

#[tokio::test]
async fn a_large_body_goes_through_a_small_window() {
    let backend = streams(1000, |mut request, mut respond| async move {
        let length = read(request.body_mut()).await.unwrap().len();
        let answer = Response::builder().header("x-length", length).body(()).unwrap();
        respond.send_response(answer, true).unwrap();
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    let body = RequestBody::Full(Some(Bytes::from(vec![7; 300_000])));
    let response = shop.send(post(body)).await.unwrap();
    assert_eq!(response.headers()["x-length"], "300000");
}

#[tokio::test]
async fn a_request_that_breaks_off_resets_its_stream() {
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |stream: TcpStream| {
        let heard = heard.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((mut request, respond))) = connection.accept().await {
                let heard = heard.clone();
                tokio::spawn(async move {
                    let ended = read(request.body_mut()).await;
                    heard.send(ended.unwrap_err().reason()).unwrap();
                    drop(respond);
                });
            }
        }
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    let (sender, body) = pieces();
    sender.send(data("one")).unwrap();
    sender.send(Err(io::Error::other("the client left").into())).unwrap();
    let refusal = shop.send(post(body)).await.unwrap_err().refusal;
    assert_eq!((refusal.reason, refusal.sent), (Reason::DownstreamTermination, Sent::Maybe));
    assert_eq!(hearing.recv().await.unwrap(), Some(Code::INTERNAL_ERROR));
}

#[tokio::test]
async fn an_endpoint_that_wants_no_more_of_a_request_is_heard() {
    let backend = streams(65_535, |_, mut respond| async move {
        respond.send_response(Response::builder().status(413).body(()).unwrap(), true).unwrap();
        // What is not written yet would be forgotten.
        tokio::time::sleep(Duration::from_millis(20)).await;
        respond.send_reset(Code::NO_ERROR);
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    let (sender, body) = pieces();
    sender.send(data("one")).unwrap();
    let response = shop.send(post(body)).await.unwrap();
    assert_eq!(response.status(), 413);
    response.into_body().collect().await.unwrap();
    // The rest is wanted by nobody.
    eventually("let go", || sender.is_closed()).await;
}

#[tokio::test]
async fn headers_that_http2_forbids_do_not_fail_a_request() {
    let backend = streams(65_535, |request, mut respond| async move {
        let kept = request.headers().contains_key("te");
        let answer = Response::builder().header("x-te", kept.to_string()).body(()).unwrap();
        respond.send_response(answer, true).unwrap();
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    let mut request = post(RequestBody::Empty);
    for (name, value) in [("keep-alive", "timeout=5"), ("transfer-encoding", "chunked")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request.headers_mut().insert("te", "trailers, deflate".parse().unwrap());
    assert_eq!(shop.send(request).await.unwrap().headers()["x-te"], "true");
}

#[tokio::test]
async fn connect_opens_a_tunnel() {
    let backend = streams(1000, |mut request, mut respond| async move {
        let mut answer = respond.send_response(Response::new(()), false).unwrap();
        let all = read(request.body_mut()).await.unwrap();
        answer.send_data(all.into(), true).unwrap();
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    let mut request = Request::builder().method(Method::CONNECT).uri("shop.test:80");
    request = request.version(http::Version::HTTP_2);
    let mut response = shop.send(request.body(RequestBody::Empty).unwrap()).await.unwrap();
    assert!(response.body().connection().version() == http::Version::HTTP_2);
    let on = upgraded::take(response.extensions_mut()).unwrap();
    let mut tunnel = on.await.unwrap();
    let sent = vec![7; 100_000];
    tunnel.write_all(&sent).await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut back = Vec::new();
    tunnel.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, sent);
}

#[tokio::test]
async fn an_endpoint_that_answers_no_ping_is_given_up() {
    let backend = Backend::raw(async |mut stream: TcpStream| {
        // SETTINGS, and nothing else.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut room = [0; 1024];
        while stream.read(&mut room).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let mut config = http2();
    config.http2.keepalive_interval = Some(Duration::from_millis(20));
    config.http2.keepalive_timeout = Some(Duration::from_millis(20));
    let shop = Shop::one(config, backend.address);
    let refusal = shop.get().await.unwrap_err().refusal;
    assert_eq!((refusal.reason, refusal.sent), (Reason::ConnectionTermination, Sent::Maybe));
    assert!(refusal.to_string().contains("PING"), "{refusal}");
}

#[tokio::test]
async fn an_endpoint_that_answers_pings_is_kept() {
    let backend = Backend::http2(async |_| ok("hello")).await;
    let mut config = http2();
    config.http2.keepalive_interval = Some(Duration::from_millis(10));
    // Less than the whole takes: an answer that nobody notices ends the connection.
    config.http2.keepalive_timeout = Some(Duration::from_millis(200));
    let shop = Shop::one(config, backend.address);
    for _ in 0..3 {
        assert_eq!(shop.get().await.unwrap().0, 200);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(backend.accepted(), 1);
}
