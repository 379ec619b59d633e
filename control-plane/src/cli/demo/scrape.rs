//! What the sidecars counted, read from their Prometheus page.
//!
//! * Requests of a service: `http.<prefix>.downstream_rq_total` of the inbound listeners of its sidecars, that is of
//!   connection managers whose stat prefix begins with `inbound`.
//! * Success: those that were not answered 5xx (`downstream_rq_5xx`).
//! * mTLS: those that came on a connection whose peer proved a SPIFFE identity (all but `downstream_rq_plain_total`).
//! * Latency: the buckets of `downstream_rq_time`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context, ensure};

use super::http_get;

/// Inbound counters of one sidecar, or of several together.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counters {
    pub(crate) requests: u64,
    pub(crate) server_errors: u64,
    /// `None` when no sidecar exposes the counter.
    pub(crate) mtls: Option<u64>,
    /// Requests at most so many microseconds long (the key), not cumulative.
    pub(crate) latency: BTreeMap<u64, u64>,
}

impl Counters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.server_errors += other.server_errors;
        if let Some(mtls) = other.mtls {
            *self.mtls.get_or_insert(0) += mtls;
        }
        for (bound, count) in &other.latency {
            *self.latency.entry(*bound).or_default() += count;
        }
    }

    /// What was counted since `earlier`, of counters that only grow.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |bound: &u64| earlier.latency.get(bound).copied().unwrap_or(0);
        Self {
            requests: self.requests.saturating_sub(earlier.requests),
            server_errors: self.server_errors.saturating_sub(earlier.server_errors),
            mtls: self.mtls.map(|mtls| mtls.saturating_sub(earlier.mtls.unwrap_or(0))),
            latency: self
                .latency
                .iter()
                .map(|(bound, count)| (*bound, count.saturating_sub(before(bound))))
                .collect(),
        }
    }

    pub(crate) fn success_percent(&self) -> Option<f64> {
        percent(self.requests.saturating_sub(self.server_errors), self.requests)
    }

    pub(crate) fn mtls_percent(&self) -> Option<f64> {
        percent(self.mtls?, self.requests)
    }

    /// The latency in milliseconds that `percent` of the requests did not exceed, read between the bounds of its
    /// bucket as if the requests in it were spread evenly; `None` before the first request.
    pub(crate) fn latency_ms(&self, percent: f64) -> Option<f64> {
        let total: u64 = self.latency.values().sum();
        let wanted = total as f64 * percent / 100.0;
        let (mut below, mut lower) = (0.0, 0.0);
        for (&bound, &count) in &self.latency {
            // The last bucket has no upper bound; its lower one is all that is known.
            let upper = if bound == u64::MAX { lower } else { bound as f64 };
            if count > 0 && below + count as f64 >= wanted {
                let share = (wanted - below) / count as f64;
                return Some((lower + (upper - lower) * share) / 1000.0);
            }
            below += count as f64;
            lower = upper;
        }
        None
    }
}

/// `part` of `whole` in percent; `None` of nothing.
pub(crate) fn percent(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

/// Follows one sidecar over its restarts, which begin its counters anew.
#[derive(Debug, Clone, Default)]
pub(crate) struct Follower {
    last: Counters,
    total: Counters,
}

impl Follower {
    /// Everything counted until now, with `now` as the sidecar's own counters.
    pub(crate) fn follow(&mut self, now: Counters) {
        let restarted = now.requests < self.last.requests;
        let news = if restarted { now.clone() } else { now.since(&self.last) };
        self.total.add(&news);
        self.last = now;
    }

    pub(crate) fn total(&self) -> &Counters {
        &self.total
    }
}

/// Reads the counters of the sidecar whose admin listener is `admin`.
///
/// # Errors
/// When it does not answer, or not in the Prometheus text format.
pub(crate) async fn scrape(admin: SocketAddr) -> anyhow::Result<Counters> {
    let reply = http_get::get(admin, "/stats/prometheus").await?;
    ensure!(reply.status == 200, "{admin} answered {} to /stats/prometheus", reply.status);
    let text = std::str::from_utf8(&reply.body).context("/stats/prometheus is not UTF-8")?;
    inbound_counters(text)
}

/// Picks the inbound counters out of a page in the Prometheus text format.
fn inbound_counters(page: &str) -> anyhow::Result<Counters> {
    let mut counters = Counters::default();
    // The others are counted off: a sidecar's numbers are not all read at the same moment.
    let mut plain: Option<u64> = None;
    let mut cumulative: BTreeMap<(String, u64), u64> = BTreeMap::new();
    for (number, line) in page.lines().enumerate() {
        let Some(sample) = Sample::parse(line).with_context(|| format!("line {}", number + 1))?
        else {
            continue;
        };
        let prefix = sample.label("envoy_http_conn_manager_prefix");
        let Some(prefix) = prefix.filter(|prefix| prefix.starts_with("inbound")) else {
            continue;
        };
        let count = sample.value as u64;
        match sample.name {
            "envoy_http_downstream_rq_total" => counters.requests += count,
            "envoy_http_downstream_rq_plain_total" => *plain.get_or_insert(0) += count,
            "envoy_http_downstream_rq_xx"
                if sample.label("envoy_response_code_class") == Some("5") =>
            {
                counters.server_errors += count;
            }
            "envoy_http_downstream_rq_time_bucket" => {
                let bound = sample.label("le").context("a bucket without `le`")?;
                *cumulative.entry((prefix.to_owned(), micros(bound)?)).or_default() += count;
            }
            _ => {}
        }
    }
    counters.mtls = plain.map(|plain| counters.requests.saturating_sub(plain));
    let mut last: Option<(String, u64)> = None;
    for ((prefix, bound), count) in cumulative {
        let below = last.filter(|(of, _)| *of == prefix).map_or(0, |(_, below)| below);
        *counters.latency.entry(bound).or_default() += count.saturating_sub(below);
        last = Some((prefix, count));
    }
    Ok(counters)
}

/// A bucket's bound: milliseconds in the text, as Envoy's are.
fn micros(bound: &str) -> anyhow::Result<u64> {
    if bound == "+Inf" {
        return Ok(u64::MAX);
    }
    let millis: f64 = bound.parse().with_context(|| format!("le={bound:?} is not a number"))?;
    Ok((millis * 1000.0).round() as u64)
}

/// One line of the Prometheus text format.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// `None` for empty lines and comments. See
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>.
    fn parse(line: &'a str) -> anyhow::Result<Option<Self>> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let end = line.find(|c: char| c == '{' || c.is_whitespace()).context("a lone name")?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Vec::new(), rest),
        };
        let value = rest.split_whitespace().next().context("no value")?;
        let value = value.parse().with_context(|| format!("{value:?} is not a number"))?;
        Ok(Some(Self { name, labels, value }))
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_str())
    }
}

type Labels<'a> = Vec<(&'a str, String)>;

/// The labels up to the closing brace, and what follows it.
fn labels(mut text: &str) -> anyhow::Result<(Labels<'_>, &str)> {
    let mut labels = Vec::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, rest) = text.split_once("=\"").context("a label without a value")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        text = loop {
            match chars.next().context("a label that does not end")? {
                (at, '"') => break &rest[at + 1..],
                (_, '\\') => match chars.next().context("a label that does not end")?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"
# TYPE envoy_http_downstream_rq_total counter
envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="inbound_http"} 100
envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="inbound_grpc"} 20
envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="outbound"} 5000
envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="admin"} 7
envoy_http_downstream_rq_plain_total{envoy_http_conn_manager_prefix="inbound_http"} 30
envoy_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="inbound_http"} 97
envoy_http_downstream_rq_xx{envoy_response_code_class="5",envoy_http_conn_manager_prefix="inbound_http"} 3
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="inbound_http",le="0.5"} 0
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="inbound_http",le="1"} 50
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="inbound_http",le="5"} 90
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="inbound_http",le="+Inf"} 100
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="inbound_grpc",le="1"} 20
envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="inbound_grpc",le="+Inf"} 20
envoy_server_live 1 1395066363000
"#;

    #[test]
    fn inbound_counters_are_picked_out_of_the_page() {
        let counters = inbound_counters(PAGE).unwrap();
        assert_eq!((counters.requests, counters.server_errors), (120, 3));
        assert_eq!(counters.mtls_percent(), Some(75.0));
        assert_eq!(counters.success_percent(), Some(97.5));
        let latency = BTreeMap::from([(500, 0), (1000, 70), (5000, 40), (u64::MAX, 10)]);
        assert_eq!(counters.latency, latency);
    }

    #[test]
    fn percentiles_are_read_between_the_bounds() {
        let counters = inbound_counters(PAGE).unwrap();
        // 60 of 120 lie in the bucket of 0.5 to 1 ms, which has 70.
        let p50 = counters.latency_ms(50.0).unwrap();
        assert!((p50 - (0.5 + 0.5 * 60.0 / 70.0)).abs() < 1e-9, "{p50}");
        assert_eq!(counters.latency_ms(99.9), Some(5.0), "no more is known than the last bound");
        assert_eq!(Counters::default().latency_ms(50.0), None);
    }

    #[test]
    fn a_restart_of_the_sidecar_loses_nothing() {
        let at = |requests, mtls| Counters { requests, mtls: Some(mtls), ..Counters::default() };
        let mut follower = Follower::default();
        for now in [at(10, 10), at(15, 15), at(2, 1), at(4, 2)] {
            follower.follow(now);
        }
        assert_eq!(*follower.total(), at(19, 17));
    }

    #[test]
    fn a_sidecar_that_does_not_count_mtls_leaves_it_unknown() {
        let page = r#"envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix="inbound"} 4"#;
        let counters = inbound_counters(page).unwrap();
        assert_eq!((counters.requests, counters.mtls_percent()), (4, None));
    }

    #[test]
    fn labels_may_hold_anything() {
        let sample = Sample::parse(r#"x{a="b\"},{\\",c="d\ne" , } 1.5e3"#).unwrap().unwrap();
        assert_eq!(sample.name, "x");
        assert_eq!(sample.label("a"), Some(r#"b"},{\"#));
        assert_eq!(sample.label("c"), Some("d\ne"));
        assert!((sample.value - 1500.0).abs() < f64::EPSILON);
    }

    #[test]
    fn broken_lines_are_named() {
        for (line, expected) in [
            ("lonely", "line 1: a lone name"),
            (r#"x{a="b} 1"#, "line 1: a label that does not end"),
            (r#"x{a} 1"#, "line 1: a label without a value"),
            (r#"x{a="b"}"#, "line 1: no value"),
            ("x y", "line 1: \"y\" is not a number"),
        ] {
            let error = format!("{:#}", inbound_counters(line).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
