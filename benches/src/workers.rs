//! Whether a second worker makes requests dearer: ours alone, with one worker and with two, on the same cores.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::peer::{BOTH_CORES, ONE_CORE, Peer, Workshop};
use crate::report::median;
use crate::scenario::{self, ALL};

/// Which of the scenarios are played.
const SCENARIOS: [&str; 3] = ["h1", "h2-h2", "pair-h2"];
/// How much dearer a request may be with two.
const LIMIT: f64 = 1.10;

/// Processor time of a request in microseconds, round by round.
#[derive(Debug, Default, Serialize)]
pub struct Workers(BTreeMap<&'static str, BTreeMap<&'static str, Rounds>>);

#[derive(Debug, Default, Serialize)]
struct Rounds {
    one: Vec<f64>,
    two: Vec<f64>,
}

impl Workers {
    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Measures over several rounds.
    ///
    /// # Errors
    /// When the proxy does not start, or a request fails.
    pub async fn measure(
        workshop: &mut Workshop,
        rounds: usize,
        length: Duration,
    ) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for scenario in ALL.iter().filter(|scenario| SCENARIOS.contains(&scenario.name)) {
            // On one core, only what the workers do to each other's work; on both, also what cores do to each other's caches, and
            // the load's.
            for (name, cores) in [("one core", ONE_CORE), ("both cores", BOTH_CORES)] {
                let rounds_of = all.0.entry(scenario.name).or_default().entry(name).or_default();
                for round in 0..rounds {
                    for workers in [1, 2] {
                        workshop.set_workers(workers, cores);
                        let cost = scenario::cost(workshop, Peer::Pillion, scenario, length).await;
                        let cost = cost.with_context(|| format!("{}, {round}", scenario.name))?;
                        let to = if workers == 1 { &mut rounds_of.one } else { &mut rounds_of.two };
                        to.push(cost);
                    }
                }
            }
        }
        workshop.set_workers(1, ONE_CORE);
        Ok(all)
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = "\nprocessor time of a request with one worker and with two\n".to_owned();
        for (scenario, by_cores) in &self.0 {
            for (cores, rounds) in by_cores {
                let (one, two) =
                    (median(rounds.one.iter().copied()), median(rounds.two.iter().copied()));
                let share = median(rounds.two.iter().zip(&rounds.one).map(|(two, one)| two / one));
                let verdict = if share <= LIMIT { "meets" } else { "misses" };
                text += &format!(
                    "  {scenario:8} {cores:10} {one:7.1} µs  {two:7.1} µs  {share:.2} {verdict} the limit of {LIMIT:.2}\n"
                );
            }
        }
        text
    }
}
