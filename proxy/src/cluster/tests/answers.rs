//! What endpoints may answer over HTTP/1, and what follows for their connections.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use crate::cluster::testing::{Backend, Shop, config, data, eventually, get, ok, pieces, post};
use crate::cluster::{SendOptions, pool};
use crate::http::body::RequestBody;
use crate::http::upgraded;
use crate::telemetry::reason::{Reason, Sent};

/// Reads one request head. None: the client closed.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Answers every request with these bytes; closes after the first one if `once`.
async fn says(answer: &'static [u8], once: bool) -> Backend {
    Backend::raw(move |mut stream| async move {
        while read_head(&mut stream).await.is_some() {
            stream.write_all(answer).await.unwrap();
            if once {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_early_answer_does_not_end_the_request() {
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream| {
        let heard = heard.clone();
        async move {
            while read_head(&mut stream).await.is_some() {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly";
                stream.write_all(answer).await.unwrap();
                let mut body = [0; 6];
                stream.read_exact(&mut body).await.unwrap();
                heard.send(body).unwrap();
            }
        }
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    for _ in 0..2 {
        let (sender, body) = pieces();
        let mut request = post(body);
        request.headers_mut().insert("content-length", "6".parse().unwrap());
        sender.send(data("one")).unwrap();
        let response = shop.send(request).await.unwrap();
        // Nobody reads the answer yet.
        sender.send(data("two")).unwrap();
        drop(sender);
        assert_eq!(&hearing.recv().await.unwrap(), b"onetwo");
        assert_eq!(response.body().size_hint().exact(), Some(5));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "early");
    }
    let cluster = shop.cluster();
    eventually("free", || cluster.stats.upstream_rq_active.get() == 0).await;
    assert_eq!((backend.accepted(), cluster.stats.upstream_cx_destroy.get()), (1, 0));
}

#[tokio::test]
async fn an_early_answer_without_a_body_does_not_end_the_request_either() {
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let backend = Backend::raw(move |mut stream| {
        let heard = heard.clone();
        async move {
            while read_head(&mut stream).await.is_some() {
                stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                let mut body = [0; 6];
                stream.read_exact(&mut body).await.unwrap();
                heard.send(body).unwrap();
            }
        }
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    for _ in 0..2 {
        let (sender, body) = pieces();
        let mut request = post(body);
        request.headers_mut().insert("content-length", "6".parse().unwrap());
        drop(shop.send(request).await.unwrap());
        sender.send(data("onetwo")).unwrap();
        assert_eq!(&hearing.recv().await.unwrap(), b"onetwo");
        drop(sender);
        let cluster = shop.cluster();
        eventually("free", || cluster.stats.upstream_rq_active.get() == 0).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn bytes_go_both_ways_at_once() {
    let backend = Backend::raw(async |mut stream| {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        // Chunks back as they came.
        let mut room = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut room).await {
            stream.write_all(&room[..read]).await.unwrap();
        }
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    let (sender, body) = pieces();
    let mut answer = shop.send(post(body)).await.unwrap().into_body();
    for text in ["a", "bc", "def"] {
        sender.send(data(text)).unwrap();
        let frame = answer.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    drop(sender);
    assert!(answer.frame().await.is_none());
}

#[tokio::test]
async fn a_request_that_breaks_off_breaks_its_early_answer() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nearly";
    let backend = says(answer, false).await;
    let shop = Shop::one(config(), backend.address);
    let (sender, body) = pieces();
    let mut answer = shop.send(post(body)).await.unwrap().into_body();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "early");
    sender.send(Err("the client has left".into())).unwrap();
    assert!(answer.frame().await.unwrap().is_err());
    let cluster = shop.cluster();
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
}

#[tokio::test]
async fn a_length_without_a_body_takes_nothing_from_the_next_request() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let backend = says(answer, false).await;
    let shop = Shop::one(config(), backend.address);
    let mut request = post(RequestBody::Empty);
    request.headers_mut().insert("content-length", "7".parse().unwrap());
    let failed = shop.send(request).await.unwrap_err();
    assert_eq!(failed.refusal.reason, Reason::DownstreamTermination);
    let cluster = shop.cluster();
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    let mut request = post(RequestBody::Empty);
    request.headers_mut().insert("content-length", "0".parse().unwrap());
    assert_eq!(shop.send(request).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_early_answer_that_nobody_wants_costs_the_connection() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nearly";
    let backend = says(answer, false).await;
    let shop = Shop::one(config(), backend.address);
    let (_sender, body) = pieces();
    drop(shop.send(post(body)).await.unwrap());
    let cluster = shop.cluster();
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    assert_eq!(cluster.stats.upstream_rq_tx_reset.get(), 1);
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let backend = Backend::http1(async |request| {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        http::Response::new(http_body_util::Full::new(body))
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    let all: Bytes = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
    for _ in 0..2 {
        let whole = RequestBody::Full(Some(all.clone()));
        let back = shop.send(post(whole)).await.unwrap().into_body().collect().await.unwrap();
        assert!(back.to_bytes() == all);
        let (sender, body) = pieces();
        for at in (0..all.len()).step_by(70_000) {
            let piece = all.slice(at..all.len().min(at + 70_000));
            sender.send(Ok(Frame::data(piece))).unwrap();
        }
        drop(sender);
        let back = shop.send(post(body)).await.unwrap().into_body().collect().await.unwrap();
        assert!(back.to_bytes() == all);
    }
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_closes_before_the_first_byte_is_another_ones_affair() {
    let close = Arc::new(Notify::new());
    let closing = Arc::clone(&close);
    let backend = Backend::raw(move |mut stream| {
        let close = Arc::clone(&closing);
        async move {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            close.notified().await;
        }
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    shop.get().await.unwrap();
    let (cluster, endpoint) = (shop.cluster(), shop.pick());
    let job = cluster.job(&endpoint, SendOptions::default());
    let mut lease = pool::acquire(&job).await.unwrap();
    close.notify_one();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut request = post(RequestBody::Full(Some(Bytes::from_static(b"whole"))));
    let failure =
        lease.send(&mut request, pool::TakeHead { again: false, tls: false }).await.unwrap_err();
    assert!(failure.unsent && failure.reused, "{failure:?}");
    drop(lease);
    // It is whole, so that it goes to the next one.
    assert_eq!(shop.send(request).await.unwrap().status(), 200);
    assert_eq!(cluster.stats.upstream_rq_retry.get(), 0);
    assert_eq!(backend.accepted(), 2);
}

#[tokio::test]
async fn connections_that_are_closed_together_are_all_forgotten() {
    let (close, closing) = tokio::sync::watch::channel(false);
    let backend = Backend::raw(move |mut stream| {
        let mut closing = closing.clone();
        async move {
            read_head(&mut stream).await;
            // All of them at once, so that each needs a connection.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            closing.wait_for(|close| *close).await.unwrap();
        }
    })
    .await;
    let shop = Arc::new(Shop::one(config(), backend.address));
    let all = (0..30).map(|_| {
        let shop = Arc::clone(&shop);
        tokio::spawn(async move { shop.get().await.unwrap().0 })
    });
    for one in all.collect::<Vec<_>>() {
        assert_eq!(one.await.unwrap(), 200);
    }
    let cluster = shop.cluster();
    assert_eq!(cluster.stats.upstream_cx_active.get(), 30);
    close.send(true).unwrap();
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    assert_eq!(cluster.stats.upstream_cx_destroy_remote.get(), 30);
    assert_eq!(shop.get().await.unwrap().0, 200);
}

#[tokio::test]
async fn an_answer_in_small_pieces_is_the_same() {
    let text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
        3;x=y\r\nabc\r\n00a\r\n0123456789\r\n0\r\nx-end: 1\r\n\r\n";
    let backend = Backend::raw(async |mut stream| {
        stream.set_nodelay(true).unwrap();
        while read_head(&mut stream).await.is_some() {
            for piece in text.chunks(3) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    for _ in 0..3 {
        let body = shop.send(get("/")).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["x-end"], "1");
        assert_eq!(body.to_bytes(), "abc0123456789");
    }
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn what_goes_on_until_the_end_ends_the_connection() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\n\r\nall of it"[..],
        b"HTTP/1.0 200 OK\r\n\r\nall of it",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it",
    ] {
        let backend = says(answer, true).await;
        let shop = Shop::one(config(), backend.address);
        for _ in 0..2 {
            assert_eq!(shop.get().await.unwrap(), (200, Bytes::from("all of it")));
        }
        assert_eq!(backend.accepted(), 2);
    }
}

#[tokio::test]
async fn who_says_so_closes_and_who_does_not_stays() {
    let cases: [(&'static [u8], bool); 6] = [
        (b"HTTP/1.1 200 OK\r\nconnection: x, Close\r\ncontent-length: 2\r\n\r\nok", false),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
        (b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 2\r\n\r\nok", true),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok", true),
        // More than was promised: nobody knows what the rest is.
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP", false),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
    ];
    for (answer, stays) in cases {
        let backend = says(answer, false).await;
        let shop = Shop::one(config(), backend.address);
        for _ in 0..2 {
            assert_eq!(shop.get().await.unwrap(), (200, Bytes::from("ok")));
        }
        let accepted = if stays { 1 } else { 2 };
        assert_eq!(backend.accepted(), accepted, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn interim_answers_are_for_nobody() {
    let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let backend = says(answer, false).await;
    let shop = Shop::one(config(), backend.address);
    for _ in 0..2 {
        let response = shop.send(get("/")).await.unwrap();
        assert!(response.status() == 200 && !response.headers().contains_key("link"));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
    }
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn answers_without_a_body_have_none_whatever_they_say() {
    let cases: [(Method, &'static [u8]); 4] = [
        (Method::HEAD, b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n"),
        (Method::HEAD, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
        (Method::GET, b"HTTP/1.1 204 No Content\r\n\r\n"),
        (Method::GET, b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"),
    ];
    for (method, answer) in cases {
        let backend = says(answer, false).await;
        let shop = Shop::one(config(), backend.address);
        for _ in 0..2 {
            let mut request = get("/");
            *request.method_mut() = method.clone();
            let response = shop.send(request).await.unwrap();
            assert!(response.body().is_end_stream());
            let length = response.headers().get("content-length").is_some();
            assert_eq!(length, answer.windows(3).any(|part| part == b": 7"));
        }
        assert_eq!(backend.accepted(), 1);
    }
}

#[tokio::test]
async fn a_connection_may_go_on_as_something_else() {
    let backend = Backend::raw(async |mut stream| {
        read_head(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nearly ";
        stream.write_all(answer).await.unwrap();
        let mut room = [0; 4];
        stream.read_exact(&mut room).await.unwrap();
        stream.write_all(&room).await.unwrap();
    })
    .await;
    let shop = Shop::one(config(), backend.address);
    let mut response = shop.send(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut stream = upgraded::take(response.extensions_mut()).unwrap().await.unwrap();
    stream.write_all(b"late").await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "early late");
    let cluster = shop.cluster();
    assert_eq!(cluster.stats.upstream_cx_active.get(), 1);
    drop(stream);
    response.body_mut().release();
    assert_eq!(cluster.stats.upstream_cx_active.get(), 0);
    assert_eq!(cluster.stats.upstream_rq_tx_reset.get(), 0);
}

#[tokio::test]
async fn answers_that_may_mean_two_things_are_refused() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let backend = says(answer, false).await;
        let shop = Shop::one(config(), backend.address);
        let error = shop.get().await.unwrap_err();
        assert_eq!(error.refusal.reason, Reason::UpstreamProtocolError, "{answer:?}");
        assert_eq!((error.refusal.status.as_u16(), error.refusal.sent), (502, Sent::Maybe));
        let cluster = shop.cluster();
        assert_eq!(cluster.stats.upstream_cx_protocol_error.get(), 1);
        eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_from_half_of_one() {
    let cases: [(&'static [u8], Reason); 5] = [
        (b"220 mail.test ESMTP\r\n", Reason::UpstreamProtocolError),
        (b"HTTP/2.0 200 OK\r\n", Reason::UpstreamProtocolError),
        (b"HTTP/1.1 200 OK\r\nno header\r\nserv", Reason::UpstreamProtocolError),
        (b"HTTP/1.1 200 OK\r\nserv", Reason::ConnectionTermination),
        (b"HTTP/1", Reason::ConnectionTermination),
    ];
    for (answer, reason) in cases {
        let backend = says(answer, true).await;
        let error = Shop::one(config(), backend.address).get().await.unwrap_err();
        assert_eq!((error.refusal.reason, error.refusal.sent), (reason, Sent::Maybe));
    }
    // Some speak before they are asked.
    let backend = Backend::raw(async |mut stream| {
        stream.write_all(b"220 mail.test ESMTP\r\n").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let error = Shop::one(config(), backend.address).get().await.unwrap_err();
    assert_eq!(error.refusal.reason, Reason::UpstreamProtocolError);
}

#[tokio::test]
async fn heads_are_limited() {
    let lines = move |count: usize| {
        let mut head = String::from("HTTP/1.1 200 OK\r\n");
        for number in 0..count {
            head.push_str(&format!("x-{number}: {}\r\n", "y".repeat(4500)));
        }
        head.push_str("content-length: 0\r\n\r\n");
        head
    };
    for (count, fine) in [(10, true), (99, false), (101, false)] {
        let backend = Backend::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(lines(count).as_bytes()).await;
        })
        .await;
        let shop = Shop::one(config(), backend.address);
        match shop.get().await {
            Ok((status, _)) => assert!(fine && status == 200),
            Err(error) => assert!(!fine && error.refusal.status == 502, "{error:?}"),
        }
    }
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_told_from_one_that_has_ended() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let backend = says(answer, true).await;
        let shop = Shop::one(config(), backend.address);
        let mut body = shop.send(get("/")).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        let error = body.frame().await.unwrap().unwrap_err();
        let error = error.downcast::<std::io::Error>().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(shop.cluster().stats.upstream_rq_rx_reset.get(), 1);
    }
}

#[tokio::test]
async fn a_request_that_is_not_what_it_promised_is_the_clients_fault() {
    for text in ["short", "longer than it promised"] {
        let backend = Backend::http1(async |_| ok("never")).await;
        let shop = Shop::one(config(), backend.address);
        let (sender, body) = pieces();
        let mut request = post(body);
        request.headers_mut().insert("content-length", "7".parse().unwrap());
        sender.send(data(text)).unwrap();
        drop(sender);
        let outcome = shop.send(request).await;
        // The endpoint may have answered before that was known.
        if let Err(error) = outcome {
            assert_eq!(error.refusal.reason, Reason::DownstreamTermination);
        }
        let cluster = shop.cluster();
        eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    }
}

#[tokio::test]
async fn a_request_whose_body_fails_at_once_is_not_sent_again() {
    let backend = Backend::http1(async |_| ok("hello")).await;
    let shop = Shop::one(config(), backend.address);
    shop.get().await.unwrap();
    let (sender, body) = pieces();
    sender.send(Err("the client has left".into())).unwrap();
    drop(sender);
    let error = shop.send(post(body)).await.unwrap_err();
    assert_eq!(error.refusal.reason, Reason::DownstreamTermination);
    assert!(!error.unsent);
    assert_eq!(backend.accepted(), 1);
}

#[tokio::test]
async fn an_endpoint_that_is_closed_under_an_answer_breaks_it() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    let backend = says(answer, false).await;
    let mut config = config();
    config.close_on_health_failure = true;
    let shop = Shop::one(config, backend.address);
    let mut body = shop.send(get("/")).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    shop.pick().host.pools().for_each(pool::Pool::close);
    assert!(body.frame().await.unwrap().is_err());
    let stats = &shop.cluster().stats;
    eventually("closed", || stats.upstream_cx_active.get() == 0).await;
    assert_eq!(stats.upstream_cx_destroy_local.get(), 1);
}
