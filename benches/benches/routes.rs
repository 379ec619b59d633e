//! Which virtual host and route a request takes.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context, bail};
use criterion::Criterion;
use http::HeaderMap;
use pillion_benches::config::{self, Domain, Kind};
use pillion_proxy::model::matcher::RequestView;
use pillion_proxy::model::route::RouteTable;
use pillion_proxy::route::{Given, select};
use pillion_proxy::xds::translate::Resource;
use serde_json::{Value, json};

use crate::compiled::compiled;

/// How the routes of a table look: name, what one matches, and a path that does.
type Form = (&'static str, fn(usize) -> Value, fn(usize) -> String);

const FORMS: [Form; 3] = [
    ("path", |n| json!({"path": format!("/r{n}/x")}), |n| format!("/r{n}/x")),
    ("prefix", |n| json!({"prefix": format!("/r{n}/")}), |n| format!("/r{n}/x")),
    // They differ only where the first look does not reach.
    ("alike", |n| json!({"prefix": format!("/api/v1/r{n}/")}), |n| format!("/api/v1/r{n}/x")),
];

pub(crate) fn benches(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut group = criterion.benchmark_group("route");
    for (name, wanted, path) in FORMS {
        for count in [10, 100, 1000] {
            let table = table(&config::routes((0..count).map(wanted)))?;
            for (place, at) in [("first", 0), ("middle", count / 2), ("last", count - 1)] {
                let path = path(at);
                finds(&table, "bench.test", &path, at)?;
                group.bench_function(format!("{name}/{count}/{place}"), |bench| {
                    bench.iter(|| ask(&table, "bench.test", black_box(&path)));
                });
            }
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("host");
    for (name, domain, label) in [("exact", Domain::Exact, ""), ("suffix", Domain::Suffix, "a.")] {
        for count in [10, 1000, 10_000] {
            let table = table(&config::hosts(count, 1, domain))?;
            let authority = format!("{label}s{}.test", count / 2);
            finds(&table, &authority, "/", 0)?;
            group.bench_function(format!("{name}/{count}"), |bench| {
                bench.iter(|| ask(&table, black_box(&authority), "/"));
            });
        }
    }
    group.finish();
    Ok(())
}

pub(crate) fn table(value: &Value) -> anyhow::Result<Arc<RouteTable>> {
    match compiled(Kind::Routes, value)? {
        Resource::Routes(table) => Ok(table),
        other => bail!("no table: {other:?}"),
    }
}

/// Whether the request takes a route at all.
fn ask(table: &RouteTable, authority: &str, path: &str) -> bool {
    found(table, authority, path).is_some()
}

/// The place of the route that the request takes, in its virtual host.
fn found(table: &RouteTable, authority: &str, path: &str) -> Option<usize> {
    let headers = HeaderMap::new();
    let request = RequestView {
        method: "GET",
        path,
        authority: Some(authority),
        scheme: None,
        headers: &headers,
    };
    let found = select(table, &request, Given::default())?;
    let route = found.route?;
    let first = found.host.routes.first()?;
    // Only the bench's first look needs the place.
    if Arc::ptr_eq(first, route) { Some(0) } else { Some(1) }
}

/// A bench of what is not found would say nothing.
fn finds(table: &RouteTable, authority: &str, path: &str, at: usize) -> anyhow::Result<()> {
    let place = found(table, authority, path).context("no route is taken")?;
    anyhow::ensure!(place == at.min(1), "another route is taken");
    Ok(())
}
