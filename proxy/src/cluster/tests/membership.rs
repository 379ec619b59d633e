use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::testing::{
    Backend, Shop, assignment, at, but, config, endpoint, eventually, get, locality, ok, outliers,
};
use crate::cluster::{Behalf, Outcome, SendOptions};
use crate::model::balancing::Balancer;
use crate::model::cluster::{Cluster, Discovery, Dns, DnsFamily, Thresholds};
use crate::model::endpoint::{Assignment, Endpoint, Target};
use crate::model::{Changes, Snapshot};
use crate::telemetry::reason::Reason;

fn only(address: SocketAddr) -> Assignment {
    assignment(vec![locality(0, vec![endpoint(address)])])
}

#[tokio::test]
async fn what_did_not_change_goes_on_living() {
    let backend = Backend::http1(async |_| ok("hello")).await;
    let shop = Shop::one(config(), backend.address);
    shop.get().await.unwrap();
    let before = shop.cluster();

    // The same again: not even a new cluster.
    shop.publish(config(), only(backend.address));
    assert!(Arc::ptr_eq(&before, &shop.cluster()));
    shop.get().await.unwrap();

    // Other limits: a new cluster, with the old connections and counters.
    let limits = Thresholds { max_requests: 7, ..Thresholds::default() };
    let limited = Cluster { breakers: [limits, Thresholds::default()], ..config() };
    shop.publish(limited, only(backend.address));
    assert!(!Arc::ptr_eq(&before, &shop.cluster()));
    shop.get().await.unwrap();

    // A new neighbour and another weight.
    let endpoints = vec![but(endpoint(backend.address), |traits| traits.weight = 5)];
    shop.publish(config(), assignment(vec![locality(0, endpoints), locality(1, vec![at(1)])]));
    shop.get().await.unwrap();
    assert_eq!(backend.accepted(), 1);
    assert_eq!(shop.cluster().stats.upstream_rq_total.get(), 4);
    assert_eq!(shop.pick().counters().rq_total.load(Ordering::Relaxed), 4);

    // Connections are made differently now.
    let slower = Cluster { connect_timeout: Duration::from_secs(6), ..config() };
    shop.publish(slower, only(backend.address));
    shop.get().await.unwrap();
    assert_eq!(backend.accepted(), 2);
}

#[tokio::test]
async fn a_removed_endpoint_finishes_its_requests_and_closes() {
    let (release, held) = tokio::sync::oneshot::channel::<()>();
    let held = Arc::new(tokio::sync::Mutex::new(Some(held)));
    let backend = Backend::http1(move |_| {
        let held = Arc::clone(&held);
        async move {
            if let Some(held) = held.lock().await.take() {
                held.await.unwrap();
            }
            ok("done")
        }
    })
    .await;
    let shop = Arc::new(Shop::one(config(), backend.address));
    let under_way = tokio::spawn({
        let shop = Arc::clone(&shop);
        async move { shop.get().await }
    });
    let cluster = shop.cluster();
    eventually("sent", || cluster.stats.upstream_rq_total.get() == 1).await;
    shop.publish(config(), assignment(vec![]));
    assert!(cluster.endpoints().is_empty());
    release.send(()).unwrap();
    assert_eq!(under_way.await.unwrap().unwrap().0, 200);
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
}

#[tokio::test]
async fn a_removed_cluster_is_gone_for_new_requests_only() {
    let backend = Backend::http1(async |_| ok("hello")).await;
    let shop = Shop::one(config(), backend.address);
    let held = shop.clusters.load();
    let changes = Changes { clusters: vec!["shop".into()], ..Changes::default() };
    shop.clusters.publish(Snapshot::default(), &changes);
    assert!(shop.clusters.load().cluster("shop").is_none());
    let cluster = held.cluster("shop").unwrap();
    let endpoint = cluster.endpoints().remove(0);
    let response = cluster.send(&endpoint, &mut get("/"), SendOptions::default()).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn metrics_of_a_removed_cluster_can_be_swept() {
    let shop = Shop::one(config(), SocketAddr::from(([127, 0, 0, 1], 1)));
    shop.registry.sweep();
    assert_eq!(shop.registry.value("cluster.shop.membership_total"), Some(1));
    let changes = Changes { clusters: vec!["shop".into()], ..Changes::default() };
    shop.clusters.publish(Snapshot::default(), &changes);
    shop.registry.sweep();
    assert_eq!(shop.registry.value("cluster.shop.membership_total"), None);
}

#[tokio::test]
async fn connections_to_an_ejected_endpoint_are_closed_where_that_is_on() {
    let backend = Backend::http1(async |_| ok("hello")).await;
    let config =
        Cluster { close_on_health_failure: true, outliers: Some(outliers().into()), ..config() };
    let shop = Shop::one(config, backend.address);
    shop.get().await.unwrap();
    let cluster = shop.cluster();
    for _ in 0..3 {
        cluster.record(&cluster.endpoints()[0], Outcome::Status(500));
    }
    eventually("closed", || cluster.stats.upstream_cx_active.get() == 0).await;
    // Panic: there is nobody else, so it is asked again, on a new connection.
    shop.get().await.unwrap();
    assert_eq!(backend.accepted(), 2);
}

#[tokio::test]
async fn endpoints_that_are_only_looked_at_stay_small() {
    let balancer = Balancer::least_request();
    let config = Cluster { outliers: Some(outliers().into()), balancer, ..config() };
    let shop = Shop::new(config, assignment(vec![locality(0, vec![at(1), at(2)])]));
    let cluster = shop.cluster();
    cluster.sweep(Instant::now());
    assert_eq!(cluster.view().endpoints.len(), 2);
    let picked = shop.pick();
    assert!(cluster.endpoints().iter().all(|endpoint| endpoint.host.if_used().is_none()));
    cluster.record(&picked, Outcome::Status(200));
    let used = cluster.endpoints().iter().filter(|one| one.host.if_used().is_some()).count();
    assert_eq!(used, 1);
}

#[tokio::test]
async fn names_are_resolved() {
    let backend = Backend::http1(async |_| ok("hello")).await;
    let dns = Dns { family: DnsFamily::V4Only, ..Dns::default() };
    for (discovery, host) in [
        (Discovery::StrictDns(dns.clone()), "localhost"),
        (Discovery::LogicalDns(dns), "127.0.0.1"),
    ] {
        let target = Target::Dns(host.into(), backend.address.port());
        let named = Endpoint { address: target, ..at(1) };
        let shop = Shop::new(
            Cluster { discovery, ..config() },
            assignment(vec![locality(0, vec![named])]),
        );
        assert!(!shop.clusters.load().is_resolved());
        tokio::time::timeout(Duration::from_secs(20), shop.clusters.resolved()).await.unwrap();
        assert_eq!(shop.pick().hostname(), host);
        assert_eq!(shop.get().await.unwrap().0, 200);
        assert_eq!(shop.cluster().stats.update_success.get(), 1);
    }
}

#[tokio::test]
async fn opaque_connections_are_counted_and_limited() {
    let backend = Backend::raw(async |mut stream| {
        let mut byte = [0];
        while stream.read_exact(&mut byte).await.is_ok() {
            stream.write_all(&byte).await.unwrap();
        }
    })
    .await;
    let limits = Thresholds { max_connections: 1, ..Thresholds::default() };
    let shop = Shop::one(
        Cluster { breakers: [limits, Thresholds::default()], ..config() },
        backend.address,
    );
    let cluster = shop.cluster();
    let (mut io, permit) = cluster.connect(&shop.pick(), Behalf::default()).await.unwrap();
    io.write_all(b"x").await.unwrap();
    assert_eq!(io.read_u8().await.unwrap(), b'x');
    assert_eq!(cluster.stats.upstream_cx_active.get(), 1);
    let refusal = cluster.connect(&shop.pick(), Behalf::default()).await.unwrap_err();
    assert_eq!(refusal.reason, Reason::Overflow);
    drop((io, permit));
    assert_eq!(cluster.stats.upstream_cx_active.get(), 0);
    assert!(cluster.connect(&shop.pick(), Behalf::default()).await.is_ok());
}
