//! What is left to say when the load is over.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use super::load::Tally;
use super::scrape::{Counters, percent};

/// The outcome of a demo, as `--output json` prints it. Percentages are 0 to 100, and `null` where nothing was
/// counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Requests sent to the front and answered, or failed.
    pub(crate) requests: u64,
    /// Those without a 2xx answer.
    pub(crate) failed: u64,
    pub(crate) success_percent: Option<f64>,
    /// Share of all requests between sidecars that came on a connection with a verified peer identity.
    pub(crate) mtls_percent: Option<f64>,
    pub(crate) requests_per_second: f64,
    pub(crate) seconds: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) per_service: Vec<ServiceSummary>,
    /// Answers by the version of the catalog behind them.
    pub(crate) version_split: BTreeMap<String, u64>,
    /// Why requests failed, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Processes that ended without having been asked to, and were started again.
    pub(crate) restarts: u32,
}

/// What the sidecars of one group of instances counted on their inbound side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ServiceSummary {
    pub(crate) name: String,
    pub(crate) instances: usize,
    pub(crate) requests: u64,
    /// Answers other than 5xx.
    pub(crate) success_percent: Option<f64>,
    pub(crate) mtls_percent: Option<f64>,
    /// Read between the bounds of a histogram's buckets.
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

impl ServiceSummary {
    pub(crate) fn new(name: &str, instances: usize, counters: &Counters) -> Self {
        Self {
            name: name.to_owned(),
            instances,
            requests: counters.requests,
            success_percent: counters.success_percent(),
            mtls_percent: counters.mtls_percent(),
            p50_ms: counters.latency_ms(50.0),
            p99_ms: counters.latency_ms(99.0),
        }
    }
}

impl Summary {
    /// `services` are the groups with their counters; `seconds` how long the load ran.
    pub(crate) fn new(
        tally: &Tally,
        services: &[(&str, usize, Counters)],
        seconds: f64,
        restarts: u32,
    ) -> Self {
        let mut all = Counters::default();
        for (_, _, counters) in services {
            all.add(counters);
        }
        Self {
            requests: tally.done,
            failed: tally.failed,
            success_percent: percent(tally.done - tally.failed, tally.done),
            mtls_percent: all.mtls_percent(),
            requests_per_second: if seconds > 0.0 { tally.done as f64 / seconds } else { 0.0 },
            seconds,
            p50_ms: tally.latency_ms(50.0),
            p99_ms: tally.latency_ms(99.0),
            per_service: services
                .iter()
                .map(|(name, instances, counters)| ServiceSummary::new(name, *instances, counters))
                .collect(),
            version_split: tally.versions.clone(),
            failures: tally.reasons.clone(),
            restarts,
        }
    }

    /// Whether all that was asked for was done well; whoever asked for nothing definite has nothing to complain of.
    pub(crate) fn is_good(&self, asked: Option<u64>) -> bool {
        asked.is_none_or(|asked| self.requests == asked && self.failed == 0)
    }

    /// For people: a few lines and a table.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a String takes everything");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "{} requests in {:.1} s ({:.0}/s), {} failed, {} success, {} mTLS, p50 {}, p99 {}",
            self.requests,
            self.seconds,
            self.requests_per_second,
            self.failed,
            share(self.success_percent),
            share(self.mtls_percent),
            millis(self.p50_ms),
            millis(self.p99_ms),
        )?;
        writeln!(out)?;
        writeln!(
            out,
            "{:<12} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10}",
            "service", "instances", "requests", "success", "mTLS", "p50", "p99"
        )?;
        for service in &self.per_service {
            writeln!(
                out,
                "{:<12} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10}",
                service.name,
                service.instances,
                service.requests,
                share(service.success_percent),
                share(service.mtls_percent),
                millis(service.p50_ms),
                millis(service.p99_ms),
            )?;
        }
        let answers: u64 = self.version_split.values().sum();
        if answers > 0 {
            writeln!(out)?;
            write!(out, "catalog:")?;
            for (version, count) in &self.version_split {
                write!(out, "  {version} {count} ({})", share(percent(*count, answers)))?;
            }
            writeln!(out)?;
        }
        if self.restarts > 0 {
            writeln!(out, "processes started again: {}", self.restarts)?;
        }
        for (reason, count) in &self.failures {
            writeln!(out, "failed {count} times: {reason}")?;
        }
        Ok(())
    }
}

/// A percentage, never rounded up to 100.
pub(crate) fn share(percent: Option<f64>) -> String {
    match percent {
        None => "-".to_owned(),
        Some(percent) if percent >= 100.0 => "100 %".to_owned(),
        Some(percent) => format!("{:.2} %", (percent * 100.0).floor() / 100.0),
    }
}

/// A latency with three digits.
pub(crate) fn millis(millis: Option<f64>) -> String {
    match millis {
        None => "-".to_owned(),
        Some(millis) if millis < 9.995 => format!("{millis:.2} ms"),
        Some(millis) if millis < 99.95 => format!("{millis:.1} ms"),
        Some(millis) => format!("{millis:.0} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Summary {
        let mut tally = Tally { done: 1000, failed: 1, ..Tally::default() };
        tally.latency.record_n(8_000, 990).unwrap();
        tally.latency.record_n(40_000, 10).unwrap();
        tally.versions = BTreeMap::from([("v1".to_owned(), 899), ("v2".to_owned(), 100)]);
        tally.reasons = BTreeMap::from([("HTTP 503: no healthy upstream".to_owned(), 1)]);
        let counters = |requests, mtls| Counters {
            requests,
            server_errors: 0,
            mtls: Some(mtls),
            latency: BTreeMap::from([(1_000, requests)]),
        };
        let services = [("web", 2, counters(1000, 1000)), ("cart", 2, counters(1000, 999))];
        Summary::new(&tally, &services, 4.0, 3)
    }

    #[test]
    fn scripts_find_the_promised_fields() {
        let json = serde_json::to_value(example()).unwrap();
        assert_eq!(json["requests"], 1000);
        assert_eq!(json["failed"], 1);
        assert_eq!(json["success_percent"], 99.9);
        assert_eq!(json["mtls_percent"], 99.95);
        assert_eq!(json["requests_per_second"], 250.0);
        assert_eq!(json["version_split"], serde_json::json!({ "v1": 899, "v2": 100 }));
        assert_eq!(json["per_service"][1]["name"], "cart");
        assert_eq!(json["per_service"][1]["mtls_percent"], 99.9);
        assert_eq!(json["per_service"][0]["p50_ms"], 0.5);
        assert!((json["p50_ms"].as_f64().unwrap() - 8.0).abs() < 0.1);
        let nothing = Summary::new(&Tally::default(), &[], 0.0, 0);
        assert_eq!(serde_json::to_value(nothing).unwrap()["mtls_percent"], serde_json::Value::Null);
    }

    #[test]
    fn people_get_a_table() {
        let text = example().to_text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(
            "1000 requests in 4.0 s (250/s), 1 failed, 99.90 % success, 99.95 % mTLS"
        ));
        assert_eq!(
            lines[4],
            "cart                 2      1000     100 %   99.90 %    0.50 ms    0.99 ms"
        );
        assert!(text.contains("catalog:  v1 899 (89.98 %)  v2 100 (10.01 %)"), "{text}");
        assert!(text.contains("processes started again: 3"));
        assert!(text.ends_with("failed 1 times: HTTP 503: no healthy upstream\n"));
    }

    #[test]
    fn one_failed_or_missing_request_is_one_too_many() {
        let summary = Summary { failed: 0, ..example() };
        assert!(summary.is_good(Some(1000)));
        assert!(!summary.is_good(Some(1001)), "one was not sent");
        assert!(!example().is_good(Some(1000)), "one failed");
        assert!(example().is_good(None));
    }

    #[test]
    fn almost_all_is_not_all() {
        assert_eq!(share(Some(99.9999)), "99.99 %");
        assert_eq!(share(Some(100.0)), "100 %");
        assert_eq!(
            [millis(Some(0.25)), millis(Some(12.34)), millis(Some(1234.5))],
            ["0.25 ms", "12.3 ms", "1234 ms"]
        );
    }
}
