//! Side by side with the real Envoy: the same bootstrap, the same requests, the same failures.
//!
//! [`case`] says what a case is, [`part`] what a theme of them shares, `cases/` are the tables, each
//! with a test of its own; [`world`] is the bootstrap that all share, [`observe`] sends a request and
//! writes down what happened, [`compare`] says what counts as different.

mod admin;
mod case;
mod cases;
mod compare;
mod examples;
mod health;
mod metrics;
mod observe;
mod part;
mod web;
mod world;

use std::sync::Arc;

use pillion_tests::proxy::{Kind, envoy};
use pillion_tests::venv::optional;

use case::{Case, Probe};
use metrics::Metrics;
use observe::Observed;
use part::Part;
use world::{Trust, World};

/// Names with this in them are run alone.
fn wanted(cases: Vec<Case>) -> Vec<Case> {
    let filter = std::env::var("PILLION_CASES").unwrap_or_default();
    cases.into_iter().filter(|case| case.name.contains(&filter)).collect()
}

/// Everything that one side did with the table, in its order, and the metrics that it ended with.
async fn play(
    kind: Kind,
    part: &Part,
    trust: &Arc<Trust>,
) -> anyhow::Result<(Vec<Observed>, Metrics)> {
    let world = World::start(kind, part, Arc::clone(trust)).await?;
    let mut all = Vec::new();
    for case in &part.cases {
        for (index, probe) in case.probes.iter().enumerate() {
            let name = case.probe_name(index);
            all.push(observe::observe(&world, &name, &probe.ask).await);
        }
    }
    let unlogged = |line: &str| line.ends_with("unlogged") || line == "no answer";
    let probes = part.cases.iter().flat_map(|case| &case.probes);
    let logged = probes.zip(&all).filter(|(probe, _)| !unlogged(probe.expected));
    let logged: Vec<String> = logged.map(|(_, observed)| observed.name.clone()).collect();
    world.attach_logs(&mut all, &logged).await;
    let metrics = world.metrics(part.metrics).await?;
    Ok((all, metrics))
}

/// What Envoy did other than the table says.
fn surprises(cases: &[Case], all: &[Observed]) -> Vec<String> {
    let probes = cases.iter().flat_map(|case| &case.probes);
    let check = |(probe, observed): (&Probe, &Observed)| {
        let found = observed.line();
        let name = &observed.name;
        (found != probe.expected)
            .then(|| format!("{name}: Envoy: expected `{}`, was `{found}`", probe.expected))
    };
    probes.zip(all).filter_map(check).collect()
}

/// Plays a part on both sides; every difference is named.
async fn same(mut part: Part) -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    part.cases = wanted(part.cases);
    let trust = Arc::new(Trust::new()?);
    let theirs = play(Kind::Envoy, &part, &trust);
    let ours = play(Kind::Pillion, &part, &trust);
    let ((theirs, their_metrics), (ours, our_metrics)) = tokio::try_join!(theirs, ours)?;
    let mut lines = surprises(&part.cases, &theirs);
    for (envoy, own) in theirs.iter().zip(&ours) {
        let differences = compare::differences(envoy, own, &part).into_iter();
        lines.extend(differences.map(|text| format!("{}: {text}", envoy.name)));
    }
    // A choice of cases moves only some of them.
    if std::env::var_os("PILLION_CASES").is_none() {
        lines.extend(metrics::differences(&their_metrics, &our_metrics, &part));
        if their_metrics.is_empty() && !part.metrics.is_empty() {
            lines.push("metrics: none of Envoy's moved".to_owned());
        }
    }
    assert!(lines.is_empty(), "{} in {} requests:\n{}", lines.len(), ours.len(), lines.join("\n"));
    Ok(())
}
