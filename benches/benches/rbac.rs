//! Whether three rules let a request pass.

use std::hint::black_box;

use anyhow::{Context, ensure};
use criterion::Criterion;
use http::{HeaderMap, HeaderValue};
use pillion_proxy::model::filter::FilterKind;
use pillion_proxy::model::matcher::RequestView;
use pillion_proxy::model::rbac::Rbac;
use pillion_proxy::policy::rbac::{Subject, decide};

use crate::compiled::manager;

pub(crate) fn benches(criterion: &mut Criterion) -> anyhow::Result<()> {
    let rules = rules()?;
    let mut headers = HeaderMap::new();
    for (name, value) in [("accept", "*/*"), ("user-agent", "curl"), ("x-request-id", "1")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let mut group = criterion.benchmark_group("rbac");
    for (name, path, allowed) in
        [("allowed", "/catalog/items/1", true), ("denied", "/admin/x", false)]
    {
        let view = RequestView {
            method: "GET",
            path,
            authority: Some("shop"),
            scheme: None,
            headers: &headers,
        };
        let subject = Subject { request: Some(view), ..Subject::default() };
        ensure!(decide(&rules, &subject).allowed == allowed, "{path}: not as expected");
        group.bench_function(name, |bench| {
            bench.iter(|| decide(black_box(&rules), &subject).allowed);
        });
    }
    group.finish();
    Ok(())
}

fn rules() -> anyhow::Result<Rbac> {
    let manager = manager()?;
    let rules = manager.filters.iter().find_map(|filter| match &filter.kind {
        FilterKind::Rbac(rbac) => rbac.rules.clone(),
        _ => None,
    });
    rules.context("no RBAC")
}
