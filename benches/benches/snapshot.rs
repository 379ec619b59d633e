//! What one changed endpoint costs a proxy that has many clusters: from the resource that was accepted to requests that
//! see it.

use std::sync::Arc;

use anyhow::bail;
use criterion::Criterion;
use pillion_benches::config::{self, Kind};
use pillion_proxy::cluster::Clusters;
use pillion_proxy::telemetry::stats::Registry;
use pillion_proxy::xds::store::Store;
use pillion_proxy::xds::translate::Resource;

use crate::compiled::compiled;

pub(crate) fn benches(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut group = criterion.benchmark_group("snapshot");
    for count in [10, 1000, 10_000] {
        let (mut store, clusters) = filled(count)?;
        let changed = [endpoints(0, 1)?, endpoints(0, 2)?];
        let mut turn = 0;
        group.bench_function(format!("one_endpoint/{count}"), |bench| {
            bench.iter(|| {
                turn = (turn + 1) % changed.len();
                store.accept(changed[turn].clone());
                match store.assemble() {
                    Some((snapshot, changes)) => clusters.publish(snapshot, &changes),
                    None => unreachable!("another assignment is a change"),
                }
            });
        });
        let live = clusters.load();
        group.bench_function(format!("read/{count}"), |bench| {
            bench.iter(|| clusters.load().cluster("c0").map(Arc::as_ptr));
        });
        drop(live);
    }
    group.finish();
    Ok(())
}

fn filled(count: usize) -> anyhow::Result<(Store, Arc<Clusters>)> {
    let mut store = Store::default();
    for number in 0..count {
        store.accept(compiled(Kind::Cluster, &config::cluster(number))?);
        store.accept(endpoints(number, 0)?);
    }
    let clusters = Clusters::new(&Registry::new(), 1);
    match store.assemble() {
        Some((snapshot, changes)) => clusters.publish(snapshot, &changes),
        None => bail!("nothing is ready"),
    }
    Ok((store, clusters))
}

/// Ten of them, the last of which depends on `version`.
fn endpoints(cluster: usize, version: usize) -> anyhow::Result<Resource> {
    let mut addresses = config::addresses(cluster, 10);
    addresses.extend(config::addresses(cluster, 20 + version).pop());
    compiled(Kind::Endpoints, &config::endpoints(cluster, &addresses))
}
