//! Answers that go past this program's memory.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use http::Response;
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::testing::{Backend, Shop, config, eventually, get};
use crate::http::straight::Straight;
use crate::net::splice::Pipe;
use crate::net::testing::tcp_pair;

fn answer() -> Bytes {
    (0..1_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

#[tokio::test]
async fn what_is_left_in_the_socket_goes_through_a_pipe_and_gives_the_connection_back() {
    let backend = Backend::http1(async |_| Response::new(Full::new(answer()))).await;
    let shop = Shop::one(config(), backend.address);
    let mut pipe = Pipe::take().unwrap();
    for _ in 0..3 {
        let mut body = shop.send(get("/")).await.unwrap().into_body();
        let (mut near, mut far) = tcp_pair().await;
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            far.read_to_end(&mut all).await.map(|_| all)
        });
        // What came with the head has been read already.
        while body.straight() == 0 {
            let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            near.write_all(frame.unwrap().unwrap().data_ref().unwrap()).await.unwrap();
        }
        let left = body.straight();
        assert!(left > 500_000, "only {left} were left in the socket");
        assert_eq!(body.received() + left, 1_000_000);
        while !body.is_end_stream() {
            assert!(poll_fn(|cx| body.poll_straight(cx, &mut pipe)).await.unwrap() > 0);
            while !pipe.is_empty() {
                poll_fn(|cx| pipe.poll_drain(&mut near, cx)).await.unwrap();
            }
        }
        assert_eq!((body.received(), body.straight()), (1_000_000, 0));
        drop((body, near));
        assert!(reading.await.unwrap().unwrap() == answer());
    }
    assert_eq!(backend.accepted(), 1);
    assert!(shop.cluster().stats.upstream_cx_rx_bytes_total.get() > 3_000_000);
}

#[tokio::test]
async fn one_that_breaks_off_costs_the_connection() {
    let backend = Backend::raw(async |mut stream| {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    let mut body = shop.send(get("/")).await.unwrap().into_body();
    assert_eq!(body.straight(), 1_000_000);
    let mut pipe = Pipe::take().unwrap();
    assert_eq!(poll_fn(|cx| body.poll_straight(cx, &mut pipe)).await.unwrap(), 0);
    body.collect().await.unwrap_err();
    let cluster = shop.cluster();
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    assert_eq!(cluster.stats.upstream_rq_rx_reset.get(), 1);
}
