//! What it costs to count.

use std::hint::black_box;
use std::sync::Arc;

use criterion::Criterion;
use pillion_proxy::telemetry::stats::{Registry, text};

pub(crate) fn benches(criterion: &mut Criterion) {
    let registry = Registry::new();
    let scope = registry.scope("cluster", Some(("envoy_cluster_name", Arc::from("shop"))));
    let (counter, gauge) = (scope.counter("upstream_rq_total"), scope.gauge("upstream_rq_active"));
    let histogram = scope.histogram("upstream_rq_time");
    let mut group = criterion.benchmark_group("metric");
    group.bench_function("counter", |bench| bench.iter(|| counter.inc()));
    group.bench_function("gauge_guard", |bench| bench.iter(|| drop(black_box(gauge.guard()))));
    let mut value = 0.0;
    group.bench_function("histogram", |bench| {
        bench.iter(|| {
            value = if value > 10_000.0 { 0.0 } else { value + 1.7 };
            histogram.record(value);
        });
    });
    group.bench_function("scrape_three", |bench| {
        bench.iter(|| text::prometheus(&registry, &text::Filter::default()).len());
    });
    group.finish();
}
