use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tower::Service;

use crate::cluster::SendOptions;
use crate::cluster::grpc::Channel;
use crate::cluster::testing::{Backend, Shop, config, eventually, get, ok};
use crate::model::cluster::{Cluster, Protocol, Thresholds};
use crate::telemetry::reason::{Reason, Sent};

fn http2() -> Cluster {
    let mut config = config();
    config.protocol = Protocol::Http2;
    config
}

#[tokio::test]
async fn requests_share_one_connection() {
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let backend = Backend::http2(move |request: Request<hyper::body::Incoming>| {
        let gate = Arc::clone(&gate);
        async move {
            assert_eq!(request.uri().authority().unwrap(), "shop.test");
            assert!(!request.headers().contains_key("host"));
            gate.acquire().await.unwrap().forget();
            ok("hello")
        }
    })
    .await;
    let shop = Arc::new(Shop::one(http2(), backend.address));
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let shop = Arc::clone(&shop);
            tokio::spawn(async move { shop.get().await.unwrap().0 })
        })
        .collect();
    let cluster = shop.cluster();
    eventually("all under way", || cluster.stats.upstream_rq_total.get() == 20).await;
    assert_eq!(cluster.stats.upstream_rq_active.get(), 20);
    open.add_permits(20);
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(backend.accepted(), 1);
    assert_eq!(cluster.stats.upstream_cx_http2_total.get(), 1);
}

#[tokio::test]
async fn streams_above_the_limit_get_another_connection_or_wait() {
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let backend = Backend::http2(move |_| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            ok("hello")
        }
    })
    .await;
    let mut config = http2();
    config.http2.max_concurrent_streams = Some(2);
    config.breakers =
        [Thresholds { max_connections: 2, ..Thresholds::default() }, Thresholds::default()];
    let shop = Arc::new(Shop::one(config, backend.address));
    let cluster = shop.cluster();
    let requests: Vec<_> = (0..6)
        .map(|_| {
            let shop = Arc::clone(&shop);
            tokio::spawn(async move { shop.get().await.unwrap().0 })
        })
        .collect();
    eventually("four sent", || cluster.stats.upstream_rq_total.get() == 4).await;
    assert_eq!(cluster.stats.upstream_rq_pending_active.get(), 2);
    open.add_permits(6);
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(backend.accepted(), 2);
}

/// An endpoint that handles streams one by one.
async fn streams<F>(stream: TcpStream, mut handle: F)
where
    F: FnMut(usize, h2::server::SendResponse<Bytes>) + Send,
{
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut number = 0;
    while let Some(Ok((_, respond))) = connection.accept().await {
        handle(number, respond);
        number += 1;
    }
}

#[tokio::test]
async fn a_refused_stream_was_not_processed_and_a_reset_one_may_have_been() {
    let backend = Backend::raw(|stream| {
        streams(stream, |number, mut respond| match number {
            0 => respond.send_reset(h2::Reason::REFUSED_STREAM),
            1 => respond.send_reset(h2::Reason::INTERNAL_ERROR),
            _ => drop(respond.send_response(Response::new(()), true).unwrap()),
        })
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    let refused = shop.get().await.unwrap_err().refusal;
    assert_eq!((refused.reason, refused.sent), (Reason::RefusedStream, Sent::No));
    let reset = shop.get().await.unwrap_err().refusal;
    assert_eq!((reset.reason, reset.sent), (Reason::RemoteReset, Sent::Maybe));
    // The connection is none the worse for it.
    assert_eq!(shop.get().await.unwrap().0, 200);
    assert_eq!(backend.accepted(), 1);
    assert_eq!(shop.cluster().stats.upstream_rq_rx_reset.get(), 2);
}

#[tokio::test]
async fn goaway_beyond_the_last_stream_means_not_processed() {
    let backend = Backend::raw(async |mut stream| {
        // Preface and SETTINGS of the client, then its first HEADERS: type 1 in the frame header.
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        loop {
            let mut header = [0; 9];
            stream.read_exact(&mut header).await.unwrap();
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.unwrap();
            if header[3] == 1 {
                break;
            }
        }
        // GOAWAY: last stream 0, NO_ERROR.
        stream.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    let refusal = shop.get().await.unwrap_err().refusal;
    assert_eq!((refusal.reason, refusal.sent), (Reason::RefusedStream, Sent::No));
}

#[tokio::test]
async fn after_a_graceful_goaway_others_go_elsewhere_and_nothing_is_lost() {
    let backend = Backend::raw(async |stream| {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let response = Response::new(());
            respond.send_response(response, true).unwrap();
            connection.graceful_shutdown();
        }
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    for _ in 0..20 {
        assert_eq!(shop.get().await.unwrap().0, 200);
    }
    assert!(backend.accepted() >= 2);
}

#[tokio::test]
async fn trailers_pass_and_the_place_of_the_stream_is_free_afterwards() {
    let backend = Backend::raw(|stream| {
        streams(stream, |_, mut respond| {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from("hello"), false).unwrap();
            let trailers =
                HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
            body.send_trailers(trailers).unwrap();
        })
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    let body = shop.send(get("/")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "hello");
    assert_eq!(shop.cluster().stats.upstream_rq_active.get(), 0);
}

#[tokio::test]
async fn a_dropped_answer_resets_the_stream_and_keeps_the_connection() {
    let backend = Backend::http2(async |request: Request<hyper::body::Incoming>| {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        ok("hello")
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    shop.get().await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(100), shop.send(get("/hang"))).await;
    assert!(waited.is_err());
    assert_eq!(shop.cluster().stats.upstream_rq_tx_reset.get(), 1);
    assert_eq!(shop.get().await.unwrap().0, 200);
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn idle_connections_with_streams_are_closed_too() {
    let backend = Backend::http2(async |_| ok("hello")).await;
    let mut config = http2();
    config.idle_timeout = Some(Duration::from_millis(20));
    let shop = Shop::one(config, backend.address);
    shop.get().await.unwrap();
    let cluster = shop.cluster();
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    assert_eq!(cluster.stats.upstream_cx_idle_timeout.get(), 1);
}

#[tokio::test]
async fn the_downstreams_protocol_is_spoken_where_that_is_configured() {
    let one = Backend::http1(async |_| ok("1")).await;
    let downstream = || Cluster { protocol: Protocol::Downstream, ..config() };
    let shop = Shop::one(downstream(), one.address);
    assert_eq!(shop.get().await.unwrap().1, "1");
    let two = Backend::http2(async |_| ok("2")).await;
    let shop = Shop::one(downstream(), two.address);
    let options = SendOptions { downstream_h2: true, ..SendOptions::default() };
    let response = shop.cluster().send(&shop.pick(), &mut get("/"), options).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "2");
}

#[tokio::test]
async fn a_grpc_channel_goes_over_a_cluster() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let backend = Backend::http2(move |request: Request<hyper::body::Incoming>| {
        let count = Arc::clone(&count);
        async move {
            assert_eq!(request.uri().path(), "/pillion.v1.Test/Call");
            assert_eq!(request.uri().authority().unwrap(), "control-plane");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            count.fetch_add(body.len(), Ordering::Relaxed);
            ok("answer")
        }
    })
    .await;
    let shop = Shop::one(http2(), backend.address);
    let clusters = Arc::clone(&shop.clusters);
    let mut channel = Channel::new(clusters, "shop".into(), Some("control-plane"));
    let body = tonic::body::Body::new(http_body_util::Full::new(Bytes::from("question")));
    let request = Request::post("/pillion.v1.Test/Call").body(body).unwrap();
    let response = channel.call(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "answer");
    assert_eq!(seen.load(Ordering::Relaxed), 8);

    let mut nowhere = Channel::new(Arc::clone(&shop.clusters), "absent".into(), None);
    let request = Request::post("/a/b").body(tonic::body::Body::empty()).unwrap();
    let status = nowhere.call(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(status.message().contains("absent"));
}
