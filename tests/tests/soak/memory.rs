//! Resident memory of sidecars over time.

use std::fmt;
use std::fs;

use anyhow::{Context, ensure};
use pillion_tests::mesh::Sidecar;

/// Samples of several processes.
pub(super) struct Memory {
    processes: Vec<(&'static str, i32, Vec<u64>)>,
}

/// How much the second half may have more than the first, in percent.
const GROWTH: u64 = 5;

impl Memory {
    pub(super) fn of(sidecars: &[(&'static str, &Sidecar)]) -> Self {
        let one =
            |(name, sidecar): &(&'static str, &Sidecar)| (*name, sidecar.process.id(), Vec::new());
        Self { processes: sidecars.iter().map(one).collect() }
    }

    /// Reads how much each has now.
    pub(super) fn sample(&mut self) -> anyhow::Result<()> {
        for (name, pid, samples) in &mut self.processes {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))
                .with_context(|| format!("the {name} is gone"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let number = line.and_then(|line| line.split_whitespace().next());
            samples.push(number.context("no VmRSS")?.parse()?);
        }
        Ok(())
    }

    /// That the second half has no more than the first.
    pub(super) fn is_flat(&self) -> anyhow::Result<()> {
        for (name, _, samples) in &self.processes {
            let (first, second) = halves(samples);
            let limit = first * (100 + GROWTH) / 100;
            ensure!(second <= limit, "the {name} grew from {first} to {second} KiB");
        }
        Ok(())
    }
}

/// The median of each half, in KiB.
fn halves(samples: &[u64]) -> (u64, u64) {
    let (first, second) = samples.split_at(samples.len() / 2);
    let median = |half: &[u64]| {
        let mut sorted = half.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    };
    (median(first), median(second))
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, _, samples) in &self.processes {
            let (first, second) = halves(samples);
            let most = samples.iter().max().copied().unwrap_or_default();
            writeln!(
                f,
                "{name}: {first} KiB in the first half, {second} in the second, {most} at most"
            )?;
        }
        Ok(())
    }
}
