//! Results: a table for people, JSON for scripts.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::peer::Peer;
use crate::scenario::{Resident, Sample, Scenario};
use crate::workers::Workers;

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// On what.
    pub machine: String,
    /// By scenario and proxy, one sample a round.
    pub scenarios: BTreeMap<&'static str, BTreeMap<Peer, Vec<Sample>>>,
    /// Samples that others disturbed, however often they were taken.
    pub disturbed: usize,
    /// Memory by proxy.
    pub memory: BTreeMap<Peer, Resident>,
    /// Median latency without any proxy, in microseconds.
    pub direct_us: Option<f64>,
    /// Ours with one worker and with two.
    #[serde(skip_serializing_if = "Workers::is_empty")]
    pub workers: Workers,
}

/// The median of some numbers; 0 of none.
pub fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = numbers.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Cores, processor and kernel of this machine.
///
/// # Errors
/// When `/proc` is not as expected.
pub fn machine() -> anyhow::Result<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or_default().trim_start_matches([' ', '\t', ':']);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = info.matches("processor\t").count();
    Ok(format!("{cores} cores, {model}, Linux {}", kernel.trim()))
}

impl Report {
    /// Keeps a sample.
    pub fn add(&mut self, scenario: &'static str, peer: Peer, (sample, disturbed): (Sample, bool)) {
        self.scenarios.entry(scenario).or_default().entry(peer).or_default().push(sample);
        self.disturbed += usize::from(disturbed);
    }

    /// Each round's processor time as a share of Envoy's in the same round.
    pub fn ratios(&self, scenario: &str, peer: Peer) -> Vec<f64> {
        let Some(all) = self.scenarios.get(scenario) else { return Vec::new() };
        let (Some(envoy), Some(own)) = (all.get(&Peer::Envoy), all.get(&peer)) else {
            return Vec::new();
        };
        own.iter().zip(envoy).map(|(own, envoy)| own.cpu_us / envoy.cpu_us).collect()
    }

    /// The table of one scenario.
    pub fn table(&self, scenario: &Scenario) -> String {
        let mut text = format!("\n{}\n", scenario.title);
        let Some(all) = self.scenarios.get(scenario.name) else { return text };
        for (peer, samples) in all {
            let ratios = self.ratios(scenario.name, *peer);
            let rounds: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
            let cpu = median(samples.iter().map(|sample| sample.cpu_us));
            let rate = median(samples.iter().map(|sample| sample.per_second));
            let ratio = median(ratios.into_iter());
            text += &format!("  {peer:8} {cpu:8.1} µs/request  {rate:7.0}/s  {ratio:.2} of Envoy");
            if let (Peer::Pillion, Some((must, aim))) = (peer, scenario.limits) {
                let verdict = match ratio {
                    ratio if ratio <= aim => "meets the aim",
                    ratio if ratio <= must => "meets the must",
                    _ => "misses the must",
                };
                text += &format!("  {verdict} (must {must:.2}, aim {aim:.2})");
            }
            if let Some(p50) = samples.first().and_then(|sample| sample.p50_us) {
                let p99 = median(samples.iter().filter_map(|sample| sample.p99_us));
                let added = p50 - self.direct_us.unwrap_or_default();
                text += &format!("  p50 +{added:.0} µs, p99 {p99:.0} µs");
            }
            text += &format!("  [{}]\n", rounds.join(" "));
        }
        text
    }

    /// The table of memory.
    pub fn memory_table(&self) -> String {
        let mut text = "\nmemory (MiB), and the first mTLS request of a pair\n".to_owned();
        for (peer, one) in &self.memory {
            let clusters = one.clusters.map_or_else(|| "-".to_owned(), |mib| format!("{mib:.1}"));
            text += &format!(
                "  {peer:8} at rest {:6.1}  with 1000 connections {:6.1}  1000 clusters add {clusters:>6}  first {:.1} ms\n",
                one.idle, one.connections, one.first_ms
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_us: f64) -> (Sample, bool) {
        (Sample { cpu_us, per_second: 1.0, p50_us: None, p99_us: None }, false)
    }

    #[test]
    fn each_round_is_compared_with_envoy_in_the_same_round() {
        let mut report = Report::default();
        for (envoy, ours) in [(10.0, 4.0), (20.0, 10.0), (40.0, 10.0)] {
            report.add("h1", Peer::Envoy, sample(envoy));
            report.add("h1", Peer::Pillion, sample(ours));
        }
        assert_eq!(report.ratios("h1", Peer::Pillion), [0.4, 0.5, 0.25]);
        assert_eq!(median(report.ratios("h1", Peer::Pillion).into_iter()), 0.4);
        assert_eq!(report.ratios("h1", Peer::Nginx), [0.0; 0]);
    }
}
