//! Side by side with the real Envoy: the same bootstrap, the same requests, the same failures.
//!
//! [`case`] says what a case is, `cases/` are the table, [`world`] is the bootstrap that they share,
//! [`observe`] sends a request and writes down what happened, [`compare`] says what counts as
//! different.

mod case;
mod cases;
mod compare;
mod observe;
mod world;

use std::sync::Arc;

use pillion_tests::proxy::{Kind, envoy};
use pillion_tests::venv::optional;

use case::{Case, Probe};
use observe::Observed;
use world::{Trust, World};

/// Names with this in them are run alone.
fn wanted(cases: Vec<Case>) -> Vec<Case> {
    let filter = std::env::var("PILLION_CASES").unwrap_or_default();
    cases.into_iter().filter(|case| case.name.contains(&filter)).collect()
}

/// Everything that one side did with the table, in its order.
async fn play(kind: Kind, cases: &[Case], trust: &Arc<Trust>) -> anyhow::Result<Vec<Observed>> {
    let world = World::start(kind, cases, Arc::clone(trust)).await?;
    let mut all = Vec::new();
    for case in cases {
        for (index, probe) in case.probes.iter().enumerate() {
            let name = case.probe_name(index);
            all.push(observe::observe(&world, &name, &probe.ask).await);
        }
    }
    let unlogged = |line: &str| line.ends_with("unlogged") || line == "no answer";
    let probes = cases.iter().flat_map(|case| &case.probes);
    let logged = probes.zip(&all).filter(|(probe, _)| !unlogged(probe.expected));
    let logged: Vec<String> = logged.map(|(_, observed)| observed.name.clone()).collect();
    world.attach_logs(&mut all, &logged).await;
    Ok(all)
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

#[tokio::test]
async fn pillion_does_what_envoy_does() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let cases = wanted(cases::all());
    let trust = Arc::new(Trust::new()?);
    let theirs = play(Kind::Envoy, &cases, &trust);
    let ours = play(Kind::Pillion, &cases, &trust);
    let (theirs, ours) = tokio::try_join!(theirs, ours)?;
    let mut lines = surprises(&cases, &theirs);
    for (envoy, own) in theirs.iter().zip(&ours) {
        let differences = compare::differences(envoy, own).into_iter();
        lines.extend(differences.map(|text| format!("{}: {text}", envoy.name)));
    }
    assert!(lines.is_empty(), "{} in {} requests:\n{}", lines.len(), ours.len(), lines.join("\n"));
    Ok(())
}
