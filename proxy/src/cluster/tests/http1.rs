use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};

use crate::cluster::testing::{
    Backend, Shop, assignment, at, config, endpoint, eventually, get, locality, ok,
};
use crate::cluster::{ResponseBody, SendOptions, set_worker};
use crate::http::body::{BodyError, RequestBody};
use crate::http::h1::spelling::Spelling;
use crate::http::meter::Meter;
use crate::model::cluster::Thresholds;
use crate::telemetry::reason::{Reason, Sent};

/// Reads one request head.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// What a server got, to be passed on.
fn forwarded(request: Request<hyper::body::Incoming>) -> Request<RequestBody> {
    request.map(|body| {
        let body = Box::pin(body.map_err(BodyError::from));
        RequestBody::Http1(body, Meter::new(std::time::Instant::now()))
    })
}

const EMPTY_OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn a_connection_serves_one_request_after_another() {
    let backend = Backend::http1(async |_| ok("hello")).await;
    let shop = Shop::one(config(), backend.address);
    for _ in 0..5 {
        assert_eq!(shop.get().await.unwrap(), (200, Bytes::from("hello")));
    }
    assert_eq!(backend.accepted(), 1);
    let stats = &shop.cluster().stats;
    assert_eq!((stats.upstream_cx_total.get(), stats.upstream_cx_active.get()), (1, 1));
    assert_eq!((stats.upstream_rq_total.get(), stats.upstream_rq_active.get()), (5, 0));
    assert_eq!(stats.upstream_rq_pending_total.get(), 1);
    assert!(stats.upstream_cx_rx_bytes_total.get() > 25);
}

#[tokio::test]
async fn workers_do_not_share_connections() {
    let backend = Backend::http1(async |_| ok("hello")).await;
    let shop = Shop::one(config(), backend.address);
    for worker in [0, 1, 0, 1] {
        set_worker(worker);
        shop.get().await.unwrap();
    }
    assert_eq!(backend.accepted(), 2);
}

#[tokio::test]
async fn an_answer_that_is_not_read_to_its_end_costs_the_connection() {
    let backend =
        Backend::http1(async |_| Response::new(Full::new(Bytes::from(vec![b'x'; 1 << 20])))).await;
    let shop = Shop::one(config(), backend.address);
    drop(shop.send(get("/")).await.unwrap());
    let cluster = shop.cluster();
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    assert_eq!(cluster.stats.upstream_rq_tx_reset.get(), 1);
    assert_eq!(shop.get().await.unwrap().1.len(), 1 << 20);
    assert_eq!(backend.accepted(), 2);
}

#[tokio::test]
async fn a_cancelled_request_costs_the_connection_and_nothing_else() {
    let backend = Backend::raw(async |mut stream| {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    let waited = tokio::time::timeout(Duration::from_millis(200), shop.send(get("/"))).await;
    assert!(waited.is_err());
    let cluster = shop.cluster();
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    assert_eq!(cluster.stats.upstream_rq_active.get(), 0);
    assert_eq!(cluster.stats.upstream_rq_tx_reset.get(), 1);
}

#[tokio::test]
async fn a_connection_that_the_endpoint_closed_while_idle_is_not_used() {
    let backend = Backend::raw(async |mut stream| {
        read_head(&mut stream).await;
        stream.write_all(EMPTY_OK).await.unwrap();
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    for _ in 0..20 {
        assert_eq!(shop.get().await.unwrap().0, 200);
        let cluster = shop.cluster();
        eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    }
    assert_eq!(backend.accepted(), 20);
    assert_eq!(shop.cluster().stats.upstream_cx_destroy_remote.get(), 20);
}

#[tokio::test]
async fn death_of_a_reused_connection_before_a_byte_of_the_answer_is_told_apart() {
    // Answers once, then reads a request and says nothing.
    let backend = Backend::raw(async |mut stream| {
        read_head(&mut stream).await;
        stream.write_all(EMPTY_OK).await.unwrap();
        read_head(&mut stream).await;
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    shop.get().await.unwrap();
    let error = shop.get().await.unwrap_err();
    assert_eq!(error.refusal.reason, Reason::ConnectionTermination);
    assert_eq!(error.refusal.sent, Sent::OnReusedConnection);
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn death_of_a_new_connection_or_in_the_middle_of_an_answer_may_be_anything() {
    let silent = Backend::raw(async |mut stream| {
        read_head(&mut stream).await;
    })
    .await;
    let error = Shop::one(config(), silent.address).get().await.unwrap_err();
    assert_eq!(error.refusal.reason, Reason::ConnectionTermination);
    assert_eq!(error.refusal.sent, Sent::Maybe);

    let broken = Backend::raw(async |mut stream| {
        read_head(&mut stream).await;
        stream.write_all(EMPTY_OK).await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200").await.unwrap();
    })
    .await;
    let shop = Shop::one(config(), broken.address);
    shop.get().await.unwrap();
    assert_eq!(shop.get().await.unwrap_err().refusal.sent, Sent::Maybe);
}

#[tokio::test]
async fn nonsense_is_a_protocol_error() {
    let backend = Backend::raw(async |mut stream| {
        read_head(&mut stream).await;
        stream.write_all(b"this is not HTTP\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    let error = shop.get().await.unwrap_err();
    assert_eq!(error.refusal.reason, Reason::UpstreamProtocolError);
    assert_eq!(error.refusal.status.as_u16(), 502);
    assert_eq!(shop.cluster().stats.upstream_cx_protocol_error.get(), 1);
}

#[tokio::test]
async fn a_refused_connection_gives_the_request_back() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let shop = Shop::one(config(), gone);
    let error = shop.get().await.unwrap_err();
    assert_eq!(error.refusal.reason, Reason::ConnectFailure);
    assert_eq!(error.refusal.sent, Sent::No);
    assert!(error.unsent);
    assert!(error.refusal.detail.contains(&gone.to_string()), "{}", error.refusal.detail);
    let stats = &shop.cluster().stats;
    assert_eq!(stats.upstream_cx_connect_fail.get(), 1);
    assert_eq!(stats.upstream_rq_pending_failure_eject.get(), 1);
    assert_eq!(stats.upstream_rq_pending_active.get(), 0);
    assert_eq!(
        shop.pick().counters().cx_connect_fail.load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

#[tokio::test]
async fn connections_and_the_line_are_limited() {
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let backend = Backend::http1(move |_| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            ok("done")
        }
    })
    .await;
    let limits =
        Thresholds { max_connections: 1, max_pending_requests: 1, ..Thresholds::default() };
    let mut config = config();
    config.breakers = [limits, Thresholds::default()];
    let shop = Arc::new(Shop::one(config, backend.address));
    let cluster = shop.cluster();
    let start = || {
        let shop = Arc::clone(&shop);
        tokio::spawn(async move { shop.get().await.map(|(status, _)| status) })
    };
    let first = start();
    eventually("sent", || cluster.stats.upstream_rq_total.get() == 1).await;
    let second = start();
    eventually("waiting", || cluster.stats.upstream_rq_pending_active.get() == 1).await;
    let third = start().await.unwrap().unwrap_err();
    assert_eq!(third.refusal.reason, Reason::Overflow);
    assert!(third.refusal.detail.contains("max_pending_requests"));
    assert_eq!(cluster.stats.upstream_rq_pending_overflow.get(), 1);
    assert!(cluster.stats.upstream_cx_overflow.get() >= 1);
    open.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap(), 200);
    assert_eq!(second.await.unwrap().unwrap(), 200);
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_share_few_connections() {
    let backend = Backend::http1(async |_| {
        tokio::time::sleep(Duration::from_millis(2)).await;
        ok("hello")
    })
    .await;
    let limits = Thresholds { max_connections: 7, ..Thresholds::default() };
    let mut config = config();
    config.breakers = [limits, Thresholds::default()];
    let shop = Arc::new(Shop::one(config, backend.address));
    let requests: Vec<_> = (0..200)
        .map(|_| {
            let shop = Arc::clone(&shop);
            tokio::spawn(async move { shop.get().await.unwrap().0 })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert!(backend.accepted() <= 7, "{}", backend.accepted());
    let stats = &shop.cluster().stats;
    assert_eq!(stats.upstream_rq_pending_active.get(), 0);
    assert_eq!(stats.upstream_rq_active.get(), 0);
}

#[tokio::test]
async fn a_connection_serves_no_more_requests_than_it_may() {
    let backend = Backend::http1(async |_| ok("hello")).await;
    let mut config = config();
    config.max_requests_per_connection = Some(2);
    let shop = Shop::one(config, backend.address);
    for _ in 0..6 {
        shop.get().await.unwrap();
    }
    assert_eq!(backend.accepted(), 3);
    assert_eq!(shop.cluster().stats.upstream_cx_max_requests.get(), 3);
}

#[tokio::test]
async fn idle_connections_are_closed_in_time_and_before_the_endpoint_does() {
    let backend = Backend::http1(async |_| ok("hello")).await;
    let mut short = config();
    short.idle_timeout = Some(Duration::from_millis(20));
    let shop = Shop::one(short, backend.address);
    shop.get().await.unwrap();
    let cluster = shop.cluster();
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    assert_eq!(cluster.stats.upstream_cx_idle_timeout.get(), 1);
    assert_eq!(cluster.stats.upstream_cx_destroy_local.get(), 1);

    // It says one second, so it is not trusted with anything after none.
    let hasty = Backend::raw(async |mut stream| {
        while read_head(&mut stream).await.is_some() {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nkeep-alive: timeout=1\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let shop = Shop::one(config(), hasty.address);
    shop.get().await.unwrap();
    shop.get().await.unwrap();
    assert_eq!(hasty.accepted(), 2);
}

#[tokio::test]
async fn trailers_of_a_chunked_answer_pass() {
    let backend = Backend::raw(async |mut stream| {
        while read_head(&mut stream).await.is_some() {
            let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    for _ in 0..2 {
        let mut request = get("/");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let body = shop.send(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(
            body.trailers(),
            Some(&HeaderMap::from_iter([("x-sum".parse().unwrap(), "5".parse().unwrap())]))
        );
        assert_eq!(body.to_bytes(), "hello");
    }
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn header_case_survives_from_http1_to_http1() {
    let (heads, mut seen) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream| {
        let heads = heads.clone();
        async move {
            heads.send(read_head(&mut stream).await.unwrap()).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-RePlY: 1\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    let head = b"GET / HTTP/1.1\r\nHost: shop.test\r\nX-MiXeD: 1\r\n\r\n";
    let head = crate::http::h1::head::request(Bytes::from_static(head)).unwrap();
    let response = shop.send(Request::from_parts(head, RequestBody::Empty)).await.unwrap();
    let spelling = response.extensions().get::<Spelling>().unwrap();
    let name = HeaderName::from_static("x-reply");
    assert_eq!(spelling.find(&name, 0), Some(&b"X-RePlY"[..]));
    let head = seen.recv().await.unwrap();
    assert!(head.contains("Host: shop.test\r\nX-MiXeD: 1\r\n"), "{head}");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_does_not_break_the_connection() {
    let backend = Backend::http1(async |_| ok("early")).await;
    let shop = Arc::new(Shop::one(config(), backend.address));
    // The body comes from another connection, in two parts.
    let (near, far) = tokio::io::duplex(1024);
    let serving = Arc::clone(&shop);
    tokio::spawn(async move {
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let shop = Arc::clone(&serving);
            async move { shop.send(forwarded(request)).await.map_err(|error| error.refusal) }
        });
        let _ = server::Builder::new().serve_connection(TokioIo::new(far), service).await;
    });
    let (mut sender, connection) = client::handshake(TokioIo::new(near)).await.unwrap();
    tokio::spawn(connection);
    for part in ["one", "two", "three"] {
        let request = Request::post("/").header("host", "a").body(Full::new(Bytes::from(part)));
        let response = sender.send_request(request.unwrap()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "early");
        sender.ready().await.unwrap();
    }
    eventually("idle", || shop.cluster().stats.upstream_rq_active.get() == 0).await;
}

#[tokio::test]
async fn two_endpoints_have_pools_of_their_own() {
    let a = Backend::http1(async |_| ok("a")).await;
    let b = Backend::http1(async |_| ok("b")).await;
    let both = vec![endpoint(a.address), endpoint(b.address)];
    let shop = Shop::new(config(), assignment(vec![locality(0, both)]));
    let cluster = shop.cluster();
    for endpoint in cluster.endpoints() {
        for _ in 0..3 {
            let response =
                cluster.send(&endpoint, &mut get("/"), SendOptions::default()).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
    }
    assert_eq!((a.accepted(), b.accepted()), (1, 1));
}
/// Every request under way pays for these.
#[tokio::test]
async fn what_a_request_keeps_in_memory_stays_small() {
    let shop = Shop::new(config(), assignment(vec![locality(0, vec![at(1)])]));
    let (cluster, endpoint) = (shop.cluster(), shop.pick());
    let mut request = get("/");
    let sending = cluster.send(&endpoint, &mut request, SendOptions::default());
    assert!(size_of_val(&sending) <= 1536, "{}", size_of_val(&sending));
    assert!(size_of::<ResponseBody>() <= 160, "{}", size_of::<ResponseBody>());
}
