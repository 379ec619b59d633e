//! The load that endpoints report with their answers (ORCA), and the weights that follow from it
//! (gRFC A51 and A58, Envoy's `client_side_weighted_round_robin`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::HeaderMap;
use prost::Message;
use serde::Deserialize;

use crate::model::balancing::Reported;

const BINARY: &str = "endpoint-load-metrics-bin";
const TEXT: &str = "endpoint-load-metrics";

/// `xds.data.orca.v3.OrcaLoadReport`, as far as weights depend on it.
#[derive(Clone, PartialEq, Message, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    #[prost(double, tag = "1")]
    #[serde(alias = "cpuUtilization")]
    pub(crate) cpu_utilization: f64,
    #[prost(double, tag = "2")]
    #[serde(alias = "memUtilization")]
    pub(crate) mem_utilization: f64,
    #[prost(map = "string, double", tag = "5")]
    pub(crate) utilization: HashMap<String, f64>,
    #[prost(double, tag = "6")]
    #[serde(alias = "rpsFractional")]
    pub(crate) rps_fractional: f64,
    #[prost(double, tag = "7")]
    pub(crate) eps: f64,
    #[prost(map = "string, double", tag = "8")]
    #[serde(alias = "namedMetrics")]
    pub(crate) named_metrics: HashMap<String, f64>,
    #[prost(double, tag = "9")]
    #[serde(alias = "applicationUtilization")]
    pub(crate) application_utilization: f64,
}

impl Report {
    /// What headers or trailers report. None: nothing that can be read.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        if let Some(value) = headers.get(BINARY) {
            return Self::binary(value.to_str().ok()?);
        }
        let value = headers.get(TEXT)?.to_str().ok()?;
        let (format, rest) = value.split_once(' ')?;
        match format {
            "BIN" => Self::binary(rest),
            "JSON" => serde_json::from_str(rest).ok(),
            "TEXT" => Self::text(rest),
            _ => None,
        }
    }

    fn binary(value: &str) -> Option<Self> {
        let bytes = STANDARD.decode(value).or_else(|_| STANDARD_NO_PAD.decode(value)).ok()?;
        Self::decode(&*bytes).ok()
    }

    /// `cpu_utilization=0.3, named_metrics.queue=7`
    fn text(value: &str) -> Option<Self> {
        let mut report = Self::default();
        for pair in value.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (name, number) = pair.split_once('=').or_else(|| pair.split_once(':'))?;
            let number: f64 = number.trim().parse().ok()?;
            match name.trim() {
                "cpu_utilization" => report.cpu_utilization = number,
                "mem_utilization" => report.mem_utilization = number,
                "application_utilization" => report.application_utilization = number,
                "rps_fractional" => report.rps_fractional = number,
                "eps" => report.eps = number,
                name => match name.split_once('.') {
                    Some(("named_metrics", name)) => {
                        report.named_metrics.insert(name.to_owned(), number);
                    }
                    Some(("utilization", name)) => {
                        report.utilization.insert(name.to_owned(), number);
                    }
                    // What weights do not depend on, such as `request_cost.*`.
                    _ => {}
                },
            }
        }
        Some(report)
    }

    /// Requests a second for each unit of utilization. None: the report says nothing.
    fn weight(&self, config: &Reported) -> Option<f64> {
        let rate = self.rps_fractional;
        if rate.is_nan() || rate <= 0.0 {
            return None;
        }
        let utilization = self.utilization(config) + config.penalty * self.eps / rate;
        let weight = (rate / utilization).min(f64::from(u32::MAX));
        (utilization > 0.0 && weight > 0.0).then_some(weight)
    }

    fn utilization(&self, config: &Reported) -> f64 {
        if self.application_utilization > 0.0 {
            return self.application_utilization;
        }
        let named = config.metrics.iter().filter_map(|name| self.metric(name)).fold(0.0, f64::max);
        if named > 0.0 { named } else { self.cpu_utilization }
    }

    /// `named_metrics.queue`, `utilization.disk`, `cpu_utilization`; `utilization.*` is the greatest.
    fn metric(&self, name: &str) -> Option<f64> {
        let of = |map: &HashMap<String, f64>, name: &str| match name {
            "*" => map.values().copied().reduce(f64::max),
            name => map.get(name).copied(),
        };
        match name.split_once('.') {
            Some(("named_metrics", name)) => of(&self.named_metrics, name),
            Some(("utilization", name)) => of(&self.utilization, name),
            _ => match name {
                "cpu_utilization" => Some(self.cpu_utilization),
                "mem_utilization" => Some(self.mem_utilization),
                "application_utilization" => Some(self.application_utilization),
                _ => None,
            },
        }
    }
}

/// The weight of one endpoint by its reports. Times are since some moment that is always the same.
#[derive(Debug)]
pub(crate) struct Weight {
    /// Bits of the weight (`f64`).
    weight: AtomicU64,
    /// Nanoseconds. `NEVER`: there is no weight.
    since: AtomicU64,
    renewed: AtomicU64,
}

const NEVER: u64 = u64::MAX;

impl Default for Weight {
    fn default() -> Self {
        let never = || AtomicU64::new(NEVER);
        Self { weight: AtomicU64::new(0), since: never(), renewed: never() }
    }
}

impl Weight {
    /// A report came.
    pub(crate) fn report(&self, report: &Report, now: Duration, config: &Reported) {
        let Some(weight) = report.weight(config) else { return };
        let now = now.as_nanos() as u64;
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
        self.renewed.store(now, Ordering::Relaxed);
        // Only the first one says since when.
        let _ = self.since.compare_exchange(NEVER, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The weight, if it counts now.
    pub(crate) fn get(&self, now: Duration, config: &Reported) -> Option<f64> {
        let now = now.as_nanos() as u64;
        let since = self.since.load(Ordering::Relaxed);
        if since == NEVER {
            return None;
        }
        let age = |at: u64| Duration::from_nanos(now.saturating_sub(at));
        if age(self.renewed.load(Ordering::Relaxed)) >= config.expiration {
            self.since.store(NEVER, Ordering::Relaxed);
            return None;
        }
        if age(since) < config.blackout {
            return None;
        }
        Some(f64::from_bits(self.weight.load(Ordering::Relaxed)))
    }
}

/// What endpoints without a weight of their own get: the median of the others. None: nobody has
/// one, and the configured weights count.
pub(crate) fn median(weights: &mut [f64]) -> Option<f64> {
    weights.sort_unstable_by(f64::total_cmp);
    let middle = weights.len() / 2;
    match (weights.get(middle.wrapping_sub(1)), weights.get(middle)) {
        (Some(low), Some(high)) if weights.len().is_multiple_of(2) => Some((low + high) / 2.0),
        (_, high) => high.copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Reported {
        Reported {
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            update: Duration::from_secs(1),
            penalty: 1.0,
            metrics: vec!["named_metrics.queue".to_owned()],
        }
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        [(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn every_form_says_the_same() {
        let text = "TEXT rps_fractional=100, eps=10,cpu_utilization=0.4,named_metrics.queue=0.8";
        let report = Report::read(&headers(TEXT, text)).unwrap();
        assert_eq!(report.named_metrics["queue"], 0.8);
        let json = r#"JSON {"rps_fractional": 100, "eps": 10, "cpu_utilization": 0.4,
            "namedMetrics": {"queue": 0.8}}"#
            .replace('\n', " ");
        assert_eq!(Report::read(&headers(TEXT, &json)), Some(report.clone()));
        let bytes = STANDARD.encode(report.encode_to_vec());
        assert_eq!(Report::read(&headers(BINARY, &bytes)), Some(report.clone()));
        assert_eq!(Report::read(&headers(TEXT, &format!("BIN {bytes}"))), Some(report.clone()));
        for bad in ["", "rps_fractional=1", "TEXT rps_fractional=much", "JSON {", "BIN !"] {
            assert_eq!(Report::read(&headers(TEXT, bad)), None, "{bad}");
        }
        // 100 / (0.8 + 10 / 100)
        assert!((report.weight(&config()).unwrap() - 111.111).abs() < 0.01);
    }

    #[test]
    fn the_application_knows_best() {
        let report = |text: &str| Report::text(text).unwrap().weight(&config());
        assert_eq!(
            report("rps_fractional=10,application_utilization=0.5,cpu_utilization=1"),
            Some(20.0)
        );
        assert_eq!(report("rps_fractional=10,cpu_utilization=0.5"), Some(20.0));
        assert_eq!(report("cpu_utilization=0.5"), None);
        assert_eq!(report("rps_fractional=10"), None);
    }

    #[test]
    fn a_weight_counts_after_the_blackout_until_it_expires() {
        let (weight, config) = (Weight::default(), config());
        let at = Duration::from_secs;
        assert_eq!(weight.get(at(1), &config), None);
        let report = Report::text("rps_fractional=10,cpu_utilization=0.5").unwrap();
        weight.report(&report, at(5), &config);
        assert_eq!(weight.get(at(14), &config), None);
        assert_eq!(weight.get(at(15), &config), Some(20.0));
        assert_eq!(weight.get(at(185), &config), None);
        // It begins anew.
        weight.report(&report, at(190), &config);
        assert_eq!(weight.get(at(191), &config), None);
        assert_eq!(weight.get(at(200), &config), Some(20.0));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0]), Some(3.0));
        assert_eq!(median(&mut [3.0, 1.0]), Some(2.0));
        assert_eq!(median(&mut [9.0, 1.0, 3.0]), Some(3.0));
    }
}
