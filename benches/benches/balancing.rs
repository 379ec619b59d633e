//! Which endpoint a request goes to, by each balancer.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, bail};
use criterion::{Criterion, Throughput};
use pillion_benches::config::{self, Kind};
use pillion_proxy::cluster::{Cluster, Clusters, PickContext};
use pillion_proxy::model::{Changes, Snapshot};
use pillion_proxy::telemetry::stats::Registry;
use pillion_proxy::xds::translate::Resource;
use serde_json::{Value, json};

use crate::compiled::compiled;

pub(crate) fn benches(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut group = criterion.benchmark_group("pick");
    group.throughput(Throughput::Elements(1));
    for (name, policy) in policies() {
        for count in [10, 1000] {
            let cluster = cluster(&policy, count)?;
            let mut random = 0_u64;
            group.bench_function(format!("{name}/{count}"), |bench| {
                bench.iter(|| {
                    // Another number for each pick; how good it is does not matter here.
                    random = random.wrapping_add(0x9E37_79B9_7F4A_7C15);
                    let hash = Some(random.rotate_left(17));
                    let context = PickContext { random, hash, ..PickContext::default() };
                    black_box(cluster.pick(&context).is_ok())
                });
            });
        }
    }
    group.finish();
    Ok(())
}

fn policies() -> Vec<(&'static str, Value)> {
    let old = |name: &str| json!({"lb_policy": name});
    let extension = |name: &str| {
        let message =
            format!("type.googleapis.com/envoy.extensions.load_balancing_policies.{name}");
        json!({"load_balancing_policy": {"policies": [
            {"typed_extension_config": {"name": "policy", "typed_config": {"@type": message}}},
        ]}})
    };
    vec![
        ("round_robin", old("ROUND_ROBIN")),
        ("least_request", old("LEAST_REQUEST")),
        ("random", old("RANDOM")),
        ("ring_hash", old("RING_HASH")),
        ("maglev", old("MAGLEV")),
        ("peak_ewma", extension("peak_ewma.v3alpha.PeakEwma")),
        ("pick_first", extension("pick_first.v3.PickFirst")),
        ("reported", extension("client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin")),
    ]
}

fn cluster(policy: &Value, count: usize) -> anyhow::Result<Arc<Cluster>> {
    let mut value = config::cluster(0);
    for (field, setting) in policy.as_object().into_iter().flatten() {
        value[field] = setting.clone();
    }
    let mut snapshot = Snapshot::default();
    let endpoints = config::endpoints(0, &config::addresses(0, count));
    match compiled(Kind::Cluster, &value)? {
        Resource::Cluster(cluster, _) => snapshot.clusters.insert_mut("c0".into(), cluster),
        other => bail!("no cluster: {other:?}"),
    }
    match compiled(Kind::Endpoints, &endpoints)? {
        Resource::Endpoints(_, endpoints) => {
            snapshot.assignments.insert_mut("c0".into(), endpoints);
        }
        other => bail!("no endpoints: {other:?}"),
    }
    let clusters = Clusters::new(&Registry::new(), 1);
    let changes = Changes::all(&snapshot);
    clusters.publish(snapshot, &changes);
    let cluster = Arc::clone(clusters.load().cluster("c0").context("no cluster")?);
    let context = PickContext { hash: Some(1), ..PickContext::default() };
    anyhow::ensure!(cluster.pick(&context).is_ok(), "nothing is picked");
    Ok(cluster)
}
