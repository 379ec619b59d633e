use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::testing::{Shop, assignment, at, but, config, locality, outliers};
use crate::cluster::{Outcome, PickContext};
use crate::model::balancing::{Balancer, Balancing, LocalityRouting};
use crate::model::cluster::{Cluster, Discovery, OutlierDetection, SuccessRate};
use crate::model::endpoint::{DropOverload, Endpoint, Health, LocalityEndpoints};
use crate::telemetry::reason::Reason;

/// Picks by address.
fn picks(shop: &Shop, count: usize) -> HashMap<String, usize> {
    let mut hits = HashMap::new();
    for _ in 0..count {
        *hits.entry(shop.pick().address.to_string()).or_default() += 1;
    }
    hits
}

fn share(hits: &HashMap<String, usize>, port: u16) -> usize {
    hits.get(&format!("127.0.0.1:{port}")).copied().unwrap_or(0)
}

/// `cluster.shop.outlier_detection.<name>`
fn metric(shop: &Shop, name: &str) -> i64 {
    let full = format!("cluster.shop.outlier_detection.{name}");
    shop.registry.value(&full).unwrap_or_else(|| panic!("no metric {full}"))
}

fn with(health: Health, port: u16) -> Endpoint {
    but(at(port), |traits| traits.health = health)
}

#[tokio::test]
async fn weights_are_shares() {
    let endpoints = vec![at(1), but(at(2), |traits| traits.weight = 3)];
    let shop = Shop::new(config(), assignment(vec![locality(0, endpoints)]));
    let hits = picks(&shop, 400);
    assert_eq!((share(&hits, 1), share(&hits, 2)), (100, 300));
}

#[tokio::test]
async fn the_unhealthy_are_left_out_and_priorities_spill_over() {
    let first = vec![at(1), with(Health::Unhealthy, 2)];
    let localities = vec![locality(0, first), locality(1, vec![at(3)])];
    let shop = Shop::new(config(), assignment(localities));
    let hits = picks(&shop, 10_000);
    assert_eq!(share(&hits, 2), 0);
    // One of two is 50 %, times 1.4 is 70 %.
    assert!((6_700..7_300).contains(&share(&hits, 1)), "{hits:?}");
}

#[tokio::test]
async fn too_few_healthy_ones_are_panic() {
    let endpoints = vec![
        at(1),
        with(Health::Unhealthy, 2),
        with(Health::Unhealthy, 3),
        with(Health::Draining, 4),
    ];
    let shop = Shop::new(config(), assignment(vec![locality(0, endpoints.clone())]));
    let hits = picks(&shop, 300);
    assert_eq!([1, 2, 3, 4].map(|port| share(&hits, port)), [100, 100, 100, 0]);
    assert_eq!(shop.cluster().stats.lb_healthy_panic.get(), 300);
    let calm = Cluster { panic_threshold: 0, ..config() };
    let shop = Shop::new(calm, assignment(vec![locality(0, endpoints)]));
    assert_eq!(share(&picks(&shop, 100), 1), 100);
}

#[tokio::test]
async fn nobody_is_a_refusal_that_says_so() {
    let shop = Shop::new(config(), assignment(vec![]));
    let refusal = shop.cluster().pick(&PickContext::default()).unwrap_err();
    assert_eq!((refusal.reason, refusal.status.as_u16()), (Reason::NoHealthyUpstream, 503));
    assert!(refusal.detail.contains("shop"), "{}", refusal.detail);
    assert_eq!(shop.cluster().stats.upstream_cx_none_healthy.get(), 1);
}

#[tokio::test]
async fn localities_share_by_weight_where_that_is_on() {
    let heavy = LocalityEndpoints { weight: Some(3), ..locality(0, vec![at(1), at(2)]) };
    let light = LocalityEndpoints { weight: Some(1), ..locality(0, vec![at(3)]) };
    let both = || assignment(vec![heavy.clone(), light.clone()]);
    let weighted = Balancing { locality: LocalityRouting::Weighted, ..Balancing::default() };
    let shop = Shop::new(Cluster { balancing: weighted, ..config() }, both());
    let hits = picks(&shop, 400);
    assert_eq!([1, 2, 3].map(|port| share(&hits, port)), [150, 150, 100]);
    let shop = Shop::new(config(), both());
    assert_eq!(share(&picks(&shop, 300), 3), 100);
}

#[tokio::test]
async fn load_is_shed_by_category() {
    let mut assignment = assignment(vec![locality(0, vec![at(1)])]);
    assignment.drop_overloads =
        vec![DropOverload { category: "brownout".into(), parts_per_million: 250_000 }];
    let shop = Shop::new(config(), assignment);
    let cluster = shop.cluster();
    let dropped = (0..10_000)
        .filter(|_| {
            let context = PickContext { random: fastrand::u64(..), ..PickContext::default() };
            cluster.pick(&context).is_err_and(|refusal| refusal.reason == Reason::DropOverload)
        })
        .count();
    assert!((2_300..2_700).contains(&dropped), "{dropped}");
    assert_eq!(cluster.stats.upstream_rq_drop_overload.get(), dropped as u64);
}

#[tokio::test]
async fn a_retry_avoids_those_that_were_tried() {
    for balancer in [
        Balancer::RoundRobin,
        Balancer::least_request(),
        Balancer::Random,
        Balancer::ring_hash(),
        Balancer::maglev(),
    ] {
        let endpoints = (1..=10).map(at).collect();
        let shop = Shop::new(
            Cluster { balancer: balancer.clone(), ..config() },
            assignment(vec![locality(0, endpoints)]),
        );
        let cluster = shop.cluster();
        let mut again = 0;
        for round in 0..200 {
            let first = cluster
                .pick(&PickContext { random: round, hash: Some(round), ..PickContext::default() })
                .unwrap();
            let avoid = [first];
            let second = cluster
                .pick(&PickContext {
                    random: fastrand::u64(..),
                    hash: Some(round),
                    avoid: &avoid,
                    attempts: 5,
                    ..PickContext::default()
                })
                .unwrap();
            again += usize::from(second.is_same(&avoid[0]));
        }
        assert!(again < 20, "{balancer:?}: {again}");
    }
}

#[tokio::test]
async fn a_hash_always_goes_to_the_same_place() {
    for balancer in [Balancer::ring_hash(), Balancer::maglev()] {
        let endpoints = (1..=10).map(at).collect();
        let config = Cluster { balancer, ..config() };
        let shop = Shop::new(config, assignment(vec![locality(0, endpoints)]));
        let place = |hash| {
            let context = PickContext {
                hash: Some(hash),
                random: fastrand::u64(..),
                ..PickContext::default()
            };
            shop.cluster().pick(&context).unwrap().address.clone()
        };
        for hash in 0..100 {
            assert_eq!(place(hash * 7919), place(hash * 7919));
        }
    }
}

#[tokio::test]
async fn failing_endpoints_are_left_out_and_come_back() {
    let endpoints = (1..=4).map(at).collect();
    let shop = Shop::new(
        Cluster { outliers: Some(outliers().into()), ..config() },
        assignment(vec![locality(0, endpoints)]),
    );
    let cluster = shop.cluster();
    let bad = cluster.endpoints()[0].clone();
    for _ in 0..2 {
        cluster.record(&bad, Outcome::Status(500));
    }
    cluster.record(&bad, Outcome::Status(200));
    assert!(!bad.is_ejected());
    for _ in 0..2 {
        cluster.record(&bad, Outcome::Status(500));
    }
    cluster.record(&bad, Outcome::LocalFailure(Reason::ConnectFailure));
    assert!(bad.is_ejected());
    assert_eq!(share(&picks(&shop, 300), 1), 0);
    assert_eq!(metric(&shop, "ejections_active"), 1);
    assert_eq!(metric(&shop, "ejections_enforced_consecutive_5xx"), 1);
    assert_eq!(cluster.stats.membership_healthy.get(), 3);

    cluster.sweep(Instant::now() + Duration::from_secs(29));
    assert!(bad.is_ejected());
    cluster.sweep(Instant::now() + Duration::from_secs(31));
    assert!(!bad.is_ejected());
    assert_eq!(share(&picks(&shop, 400), 1), 100);
    assert_eq!(metric(&shop, "ejections_active"), 0);
    assert_eq!(shop.clusters.load().view()[0].endpoints[0].ejections, 1);
}

#[tokio::test]
async fn whoever_succeeds_much_less_often_is_left_out() {
    let outliers = OutlierDetection {
        consecutive_5xx: 0,
        success_rate: SuccessRate { minimum_hosts: 5, request_volume: 10, stdev_factor: 1900 },
        ..outliers()
    };
    let shop = Shop::new(
        Cluster { outliers: Some(outliers.into()), ..config() },
        assignment(vec![locality(0, (1..=5).map(at).collect())]),
    );
    let cluster = shop.cluster();
    let endpoints = cluster.endpoints();
    for endpoint in &endpoints {
        for number in 0..10 {
            let fails = endpoint.is_same(&endpoints[2]) && number % 2 == 0;
            cluster.record(endpoint, Outcome::Status(if fails { 500 } else { 200 }));
        }
    }
    cluster.sweep(Instant::now());
    let out: Vec<bool> = endpoints.iter().map(|endpoint| endpoint.is_ejected()).collect();
    assert_eq!(out, [false, false, true, false, false]);
    assert_eq!(metric(&shop, "ejections_enforced_success_rate"), 1);
    let view = &shop.clusters.load().view()[0];
    assert_eq!(view.averages[0], Some((90.0, 52.0)));
    assert_eq!(view.endpoints[2].rates, [Some(50.0), None]);
    // The next interval had no requests: nothing is known, and nobody is left out.
    cluster.sweep(Instant::now());
    assert_eq!(metric(&shop, "ejections_detected_success_rate"), 1);
    assert_eq!(shop.clusters.load().view()[0].averages, [None, None]);
}

#[tokio::test]
async fn not_too_many_are_left_out() {
    let endpoints = (1..=4).map(at).collect();
    let shop = Shop::new(
        Cluster { outliers: Some(outliers().into()), ..config() },
        assignment(vec![locality(0, endpoints)]),
    );
    let cluster = shop.cluster();
    for endpoint in cluster.endpoints() {
        for _ in 0..3 {
            cluster.record(&endpoint, Outcome::Status(503));
        }
    }
    assert_eq!(cluster.endpoints().iter().filter(|endpoint| endpoint.is_ejected()).count(), 2);
    assert_eq!(metric(&shop, "ejections_overflow"), 2);
}

#[tokio::test]
async fn redirected_connections_go_where_they_were_going() {
    let shop =
        Shop::new(Cluster { discovery: Discovery::OriginalDst, ..config() }, assignment(vec![]));
    let cluster = shop.cluster();
    let to = |port: u16| {
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let context = PickContext { original_dst: Some(address), ..PickContext::default() };
        cluster.pick(&context).unwrap()
    };
    let first = to(1000);
    assert_eq!(first.address_text(), "127.0.0.1:1000");
    assert!(Arc::ptr_eq(&first, &to(1000)));
    assert!(!first.is_same(&to(1001)));
    assert_eq!(cluster.endpoints().len(), 2);
    cluster.forget_unused();
    assert_eq!(cluster.endpoints().len(), 0);
    assert!(cluster.pick(&PickContext::default()).is_err());
}
