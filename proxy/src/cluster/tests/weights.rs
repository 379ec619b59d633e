//! What endpoints weigh: by their reports, and while they are new.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::cluster::balance::orca::Report;
use crate::cluster::testing::{Shop, assignment, at, but, config, locality};
use crate::cluster::{PickContext, clock, learn};
use crate::model::balancing::{Balancer, Balancing, PeakEwma, Reported, SlowStart};
use crate::model::cluster::{Cluster, Discovery};
use crate::model::endpoint::{Endpoint, Health};
use crate::model::{Changes, Name, Snapshot};

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

#[tokio::test]
async fn reports_become_weights() {
    let reported = Reported {
        blackout: Duration::ZERO,
        expiration: Duration::from_secs(60),
        update: Duration::from_secs(3600),
        penalty: 1.0,
        metrics: Vec::new(),
    };
    let shop = Shop::new(
        Cluster { balancer: Balancer::Reported(reported.into()), ..config() },
        assignment(vec![locality(0, vec![at(1), at(2), at(3)])]),
    );
    let cluster = shop.cluster();
    assert_eq!(share(&picks(&shop, 300), 1), 100);
    let load = |utilization: &str| -> HeaderMap {
        let text = format!("TEXT rps_fractional=100,application_utilization={utilization}");
        [("endpoint-load-metrics".parse().unwrap(), text.parse().unwrap())].into_iter().collect()
    };
    let endpoints = cluster.endpoints();
    for (endpoint, utilization) in endpoints.iter().zip(["0.1", "0.3"]) {
        learn::reported(&cluster.config.balancer, endpoint, &load(utilization));
    }
    assert!(Report::read(&load("0.1")).is_some());
    cluster.refresh();
    // 1000 and 333; who says nothing gets what is in the middle, 667.
    let hits = picks(&shop, 6000);
    for (port, expected) in [(1, 3000), (2, 1000), (3, 2000)] {
        assert!(share(&hits, port).abs_diff(expected) < 30, "{hits:?}");
    }
}

#[tokio::test]
async fn a_new_endpoint_gets_less() {
    let window = Duration::from_secs(100_000);
    let slow_start = Some(SlowStart { window, aggression: 1.0, min_weight: 0.25 });
    let balancing = Balancing { slow_start, ..Balancing::default() };
    let config = || Cluster { balancing: balancing.clone(), ..config() };
    let shop = Shop::new(config(), assignment(vec![locality(0, vec![at(1)])]));
    let cluster = shop.cluster();
    for endpoint in cluster.endpoints() {
        endpoint.host.age(window);
    }
    shop.publish(config(), assignment(vec![locality(0, vec![at(1), at(2)])]));
    let hits = picks(&shop, 1000);
    assert!(share(&hits, 1).abs_diff(800) < 5 && share(&hits, 2).abs_diff(200) < 5, "{hits:?}");
}

#[tokio::test]
async fn slow_endpoints_are_left_for_quick_ones() {
    let decay = Duration::from_secs(1000);
    let ewma = PeakEwma { decay, default_rtt: Duration::from_millis(10) };
    let shop = Shop::new(
        Cluster { balancer: Balancer::PeakEwma(ewma), ..config() },
        assignment(vec![locality(0, vec![at(1), at(2)])]),
    );
    let cluster = shop.cluster();
    let [slow, quick] = [0, 1].map(|index| cluster.endpoints()[index].clone());
    let sent = clock::now();
    std::thread::sleep(Duration::from_millis(5));
    learn::answered(&cluster.config.balancer, &slow, &HeaderMap::new(), sent);
    learn::answered(&cluster.config.balancer, &quick, &HeaderMap::new(), clock::now());
    assert_eq!(share(&picks(&shop, 100), 2), 100);
}

#[tokio::test]
async fn an_aggregate_goes_to_its_clusters_in_order() {
    let shop = Shop::new(config(), assignment(vec![locality(0, vec![at(1)])]));
    let publish = |first: Health| {
        let mut snapshot = Snapshot::default();
        let mut add = |name: &str, discovery: Discovery, endpoints: Vec<Endpoint>| {
            let name = Name::from(name);
            let stat_name = Name::clone(&name);
            let made = Cluster { name: Name::clone(&name), stat_name, discovery, ..config() };
            snapshot.clusters.insert_mut(Name::clone(&name), Arc::new(made));
            let endpoints = assignment(vec![locality(0, endpoints)]);
            snapshot.assignments.insert_mut(name, Arc::new(endpoints));
        };
        let names = ["gone", "one", "two", "both"].map(Name::from).to_vec();
        add("both", Discovery::Aggregate(names), vec![]);
        add("one", Discovery::Static, vec![but(at(1), |traits| traits.health = first)]);
        add("two", Discovery::Static, vec![at(2)]);
        let changes = Changes::all(&snapshot);
        shop.clusters.publish(snapshot, &changes);
    };
    let to = || {
        let live = shop.clusters.load();
        let leaf = live.leaf(live.cluster("both").unwrap(), fastrand::u64(..));
        let context = PickContext { random: fastrand::u64(..), ..PickContext::default() };
        leaf.pick(&context).map(|endpoint| endpoint.address.to_string())
    };
    publish(Health::Healthy);
    assert!((0..50).all(|_| to().unwrap() == "127.0.0.1:1"));
    publish(Health::Unhealthy);
    assert!((0..50).all(|_| to().unwrap() == "127.0.0.1:2"));
    publish(Health::Healthy);
    assert!((0..50).all(|_| to().unwrap() == "127.0.0.1:1"));
}
