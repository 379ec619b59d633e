use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nx-shop-version: v2\r\ncontent-length: 2\r\n\r\n{}";
const SICK: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\nno health";
const CLOSED: &str = "";

/// A server that answers its `n`th request with `script(n)`; `CLOSED` closes the connection instead.
async fn server(script: fn(usize) -> &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let requests = Arc::clone(&requests);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while stream.read_buf(&mut head).await.unwrap_or(0) > 0 {
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    assert!(String::from_utf8_lossy(&head).contains("host: web.default\r\n"));
                    head.clear();
                    match script(requests.fetch_add(1, Ordering::SeqCst)) {
                        CLOSED => return,
                        reply => stream.write_all(reply.as_bytes()).await.unwrap(),
                    }
                }
            });
        }
    });
    (address, connections)
}

fn plan(target: SocketAddr, requests: u64) -> LoadPlan {
    LoadPlan {
        target,
        host: "web.default".to_owned(),
        path: "/".to_owned(),
        concurrency: 1,
        rate: None,
        requests: Some(requests),
    }
}

async fn run(plan: LoadPlan) -> Tally {
    let mut load = Load::start(plan);
    timeout(Duration::from_secs(30), load.finished()).await.unwrap();
    load.total()
}

#[tokio::test]
async fn every_request_is_counted_once_and_connections_are_kept() {
    let (address, connections) = server(|_| OK).await;
    let tally = run(LoadPlan { concurrency: 4, ..plan(address, 103) }).await;
    assert_eq!((tally.done, tally.failed, tally.latency.len()), (103, 0, 103));
    assert_eq!(tally.versions, BTreeMap::from([("v2".to_owned(), 103)]));
    assert!(tally.latency_ms(50.0).unwrap() <= tally.latency_ms(99.0).unwrap());
    assert!(connections.load(Ordering::SeqCst) <= 4);
}

#[tokio::test]
async fn failures_have_reasons() {
    let (address, connections) = server(|n| if n % 2 == 0 { SICK } else { CLOSED }).await;
    let tally = run(plan(address, 6)).await;
    assert_eq!((tally.done, tally.failed), (6, 6));
    let reasons: Vec<_> = tally.reasons.iter().map(|(r, n)| (r.as_str(), *n)).collect();
    assert_eq!(reasons[0], ("HTTP 503: no health", 3));
    assert!(reasons[1].0.starts_with("no answer: "), "{reasons:?}");
    assert_eq!(reasons[1].1, 3);
    assert_eq!(connections.load(Ordering::SeqCst), 3, "a connection outlives a 503");
}

#[tokio::test]
async fn nobody_there_is_a_failure() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let tally = run(plan(gone, 2)).await;
    assert_eq!((tally.done, tally.failed), (2, 2));
    let reason = tally.reasons.keys().next().unwrap();
    assert!(reason.starts_with("cannot connect: "), "{reason}");
    assert!(probe(&plan(gone, 1)).await.is_err());
}

#[tokio::test]
async fn reasons_are_bounded() {
    let mut tally = Tally::default();
    for number in 0..100 {
        tally.record(&Err(format!("reason {number}")), Duration::ZERO);
    }
    assert_eq!(tally.reasons.len(), MAX_REASONS + 1);
    assert_eq!(tally.reasons["other"], 80);
}

#[tokio::test]
async fn an_open_load_is_due_by_the_clock_and_stops_when_told() {
    let (address, _) = server(|_| OK).await;
    let mut load = Load::start(LoadPlan { rate: Some(0.001), requests: None, ..plan(address, 0) });
    while load.total().done == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The second one is due in 1000 s.
    load.stop();
    load.finished().await;
    assert_eq!(load.total().done, 1);
    assert_eq!(load.take_window().done, 1);
    assert_eq!(load.take_window().done, 0);
}

#[test]
fn tallies_add_up() {
    let (mut sum, mut other) = (Tally::default(), Tally::default());
    sum.record(&Ok(Some("v1".to_owned())), Duration::from_millis(10));
    other.record(&Ok(Some("v1".to_owned())), Duration::from_millis(30));
    other.record(&Err("x".to_owned()), Duration::from_secs(1000));
    sum.add(&other);
    assert_eq!((sum.done, sum.failed, sum.versions["v1"]), (3, 1, 2));
    assert!((sum.latency_ms(50.0).unwrap() - 30.0).abs() < 0.1);
    assert!((sum.latency_ms(100.0).unwrap() - 60_000.0).abs() < 100.0, "cut at the longest");
    assert_eq!(Tally::default().latency_ms(50.0), None);
}
