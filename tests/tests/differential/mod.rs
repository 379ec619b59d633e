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

use pillion_tests::proxy::{Kind, envoy};
use pillion_tests::venv::optional;

use case::Case;
use observe::Observed;
use world::World;

/// Names with this in them are run alone.
fn wanted(cases: Vec<Case>) -> Vec<Case> {
    let filter = std::env::var("PILLION_CASES").unwrap_or_default();
    cases.into_iter().filter(|case| case.name.contains(&filter)).collect()
}

/// Everything that one side did with the table, in its order.
async fn play(kind: Kind, cases: &[Case]) -> anyhow::Result<Vec<Observed>> {
    let world = World::start(kind, cases).await?;
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

/// What `kind` did other than the table says.
fn surprises(cases: &[Case], all: &[Observed]) -> Vec<String> {
    let probes = cases.iter().flat_map(|case| &case.probes);
    let check = |(probe, observed): (&case::Probe, &Observed)| {
        let found = observed.line();
        (found != probe.expected).then(|| {
            format!(
                "{}: expected `{}`, was `{found}`\n    {observed:?}",
                observed.name, probe.expected
            )
        })
    };
    probes.zip(all).filter_map(check).collect()
}

#[tokio::test]
async fn envoy_does_what_the_table_says() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let cases = wanted(cases::all());
    let all = play(Kind::Envoy, &cases).await?;
    let surprises = surprises(&cases, &all);
    assert!(
        surprises.is_empty(),
        "{} of {}:\n{}",
        surprises.len(),
        all.len(),
        surprises.join("\n")
    );
    Ok(())
}

#[tokio::test]
async fn pillion_does_what_envoy_does() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let cases = wanted(cases::all());
    let (theirs, ours) =
        tokio::try_join!(play(Kind::Envoy, &cases), play(Kind::Pillion, &cases))?;
    let pairs = theirs.iter().zip(&ours);
    let differences: Vec<String> = pairs
        .flat_map(|(envoy, own)| {
            let name = &envoy.name;
            compare::differences(envoy, own).into_iter().map(move |text| format!("{name}: {text}"))
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{} differences in {} requests:\n{}",
        differences.len(),
        ours.len(),
        differences.join("\n")
    );
    Ok(())
}
