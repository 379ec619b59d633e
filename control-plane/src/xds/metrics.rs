//! What the xDS server counts.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::snapshot::ResourceType;

/// Upper bounds of the push time histogram, in seconds.
const BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Counters of all streams since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    responses: [AtomicU64; ResourceType::ALL.len()],
    resources: [AtomicU64; ResourceType::ALL.len()],
    acks: [AtomicU64; ResourceType::ALL.len()],
    nacks: [AtomicU64; ResourceType::ALL.len()],
    refused_resources: AtomicU64,
    streams: AtomicU64,
    push_buckets: [AtomicU64; BOUNDS.len() + 1],
    push_microseconds: AtomicU64,
}

impl Metrics {
    /// A response with this many resources was sent.
    pub(super) fn response(&self, kind: ResourceType, resources: usize) {
        add(&self.responses[kind as usize], 1);
        add(&self.resources[kind as usize], resources as u64);
    }

    pub(super) fn ack(&self, kind: ResourceType) {
        add(&self.acks[kind as usize], 1);
    }

    pub(super) fn nack(&self, kind: ResourceType) {
        add(&self.nacks[kind as usize], 1);
    }

    /// The control plane itself refused resources before it sent them.
    pub(super) fn refused(&self, resources: usize) {
        add(&self.refused_resources, resources as u64);
    }

    pub(super) fn stream(&self) {
        add(&self.streams, 1);
    }

    /// A change reached a stream this long after it was published.
    pub(super) fn push(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        add(&self.push_buckets[bucket], 1);
        add(&self.push_microseconds, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many responses clients refused.
    #[must_use]
    pub fn nacks(&self) -> u64 {
        self.nacks.iter().map(get).sum()
    }

    /// How many responses were sent.
    #[must_use]
    pub fn responses(&self) -> u64 {
        self.responses.iter().map(get).sum()
    }

    /// Writes everything in Prometheus' text format.
    pub fn write(&self, out: &mut String) {
        family(out, "pillion_xds_responses_total", "Responses sent", &self.responses);
        family(out, "pillion_xds_resources_total", "Resources sent", &self.resources);
        family(out, "pillion_xds_acks_total", "Responses that clients accepted", &self.acks);
        family(out, "pillion_xds_nacks_total", "Responses that clients refused", &self.nacks);
        let scalar = [
            (
                "pillion_xds_refused_resources_total",
                "Resources held back because they would be refused",
                &self.refused_resources,
            ),
            ("pillion_xds_streams_total", "Streams opened", &self.streams),
        ];
        for (name, help, value) in scalar {
            put(out, format_args!("# HELP {name} {help}.\n# TYPE {name} counter\n"));
            put(out, format_args!("{name} {}\n", get(value)));
        }
        self.write_push(out);
    }

    fn write_push(&self, out: &mut String) {
        let name = "pillion_xds_push_seconds";
        put(out, format_args!("# HELP {name} From a change to its first response on a stream.\n"));
        put(out, format_args!("# TYPE {name} histogram\n"));
        let mut sum = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.push_buckets) {
            sum += get(bucket);
            put(out, format_args!("{name}_bucket{{le=\"{bound}\"}} {sum}\n"));
        }
        sum += get(&self.push_buckets[BOUNDS.len()]);
        put(out, format_args!("{name}_bucket{{le=\"+Inf\"}} {sum}\n"));
        let seconds = Duration::from_micros(get(&self.push_microseconds)).as_secs_f64();
        put(out, format_args!("{name}_sum {seconds}\n{name}_count {sum}\n"));
    }
}

fn family(out: &mut String, name: &str, help: &str, values: &[AtomicU64]) {
    put(out, format_args!("# HELP {name} {help}.\n# TYPE {name} counter\n"));
    for kind in ResourceType::ALL {
        let value = get(&values[kind as usize]);
        put(out, format_args!("{name}{{type=\"{}\"}} {value}\n", kind.short()));
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(text);
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_family_and_cumulative_buckets() {
        let metrics = Metrics::default();
        metrics.response(ResourceType::Cluster, 3);
        metrics.nack(ResourceType::Route);
        metrics.push(Duration::from_millis(2));
        metrics.push(Duration::from_secs(60));
        let mut text = String::new();
        metrics.write(&mut text);
        for line in [
            "pillion_xds_responses_total{type=\"cds\"} 1",
            "pillion_xds_resources_total{type=\"cds\"} 3",
            "pillion_xds_nacks_total{type=\"rds\"} 1",
            "pillion_xds_push_seconds_bucket{le=\"0.001\"} 0",
            "pillion_xds_push_seconds_bucket{le=\"0.0025\"} 1",
            "pillion_xds_push_seconds_bucket{le=\"+Inf\"} 2",
            "pillion_xds_push_seconds_count 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert_eq!((metrics.nacks(), metrics.responses()), (1, 1));
    }
}
