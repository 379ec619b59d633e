//! Metrics as text: Envoy's flat form, its JSON, and the Prometheus exposition format (0.0.4).

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use regex::Regex;
use serde_json::{Value as Json, json};

use super::{BOUNDS, Entry, Label, Registry, Summary, Value};

/// Percentiles that Envoy shows of a histogram.
const PERCENTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// A metric and its flat name.
pub type Metric = (String, Entry);

/// What kind a metric is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution.
    Histogram,
}

/// Which metrics are wanted. The default is all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those whose flat name has a match of it anywhere.
    pub name: Option<Regex>,
    /// Only those that are not zero (or have observations).
    pub used_only: bool,
    /// Only those of this kind.
    pub kind: Option<Kind>,
}

impl Kind {
    /// The kind of a value.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Counter(_) => Self::Counter,
            Value::Gauge(_) => Self::Gauge,
            Value::Histogram(_) => Self::Histogram,
        }
    }

    fn as_prometheus(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Filter {
    fn accepts(&self, (name, entry): &Metric) -> bool {
        let used = || match &entry.value {
            Value::Counter(counter) => counter.get() != 0,
            Value::Gauge(gauge) => gauge.get() != 0,
            Value::Histogram(histogram) => histogram.summary().count != 0,
        };
        self.kind.is_none_or(|kind| kind == Kind::of(&entry.value))
            && self.name.as_ref().is_none_or(|regex| regex.is_match(name))
            && (!self.used_only || used())
    }
}

/// The metrics of a registry that a filter lets through, ordered by flat name.
pub fn select(registry: &Registry, filter: &Filter) -> Vec<Metric> {
    registry.entries().into_iter().filter(|metric| filter.accepts(metric)).collect()
}

/// `name: value` lines, then the histograms as `name: P0(nan,1) P25(nan,2.5) …`: percentiles of
/// the last interval and of all time. Intervals are not kept here, so the first is always `nan`.
pub fn flat(metrics: &[Metric]) -> String {
    let mut out = String::with_capacity(metrics.len() * 64);
    for (name, entry) in metrics {
        // Writing to a String cannot fail.
        let _ = match &entry.value {
            Value::Counter(counter) => writeln!(out, "{name}: {}", counter.get()),
            Value::Gauge(gauge) => writeln!(out, "{name}: {}", gauge.get()),
            Value::Histogram(_) => Ok(()),
        };
    }
    for (name, summary) in histograms(metrics) {
        let _ = write!(out, "{name}: ");
        flat_percentiles(&mut out, &summary);
        out.push('\n');
    }
    out
}

/// `{"stats": [{"name", "value"}, …, {"histograms": {"supported_quantiles", "computed_quantiles"}}]}`
pub fn json(metrics: &[Metric]) -> Json {
    let mut stats: Vec<Json> = metrics
        .iter()
        .filter_map(|(name, entry)| match &entry.value {
            Value::Counter(counter) => Some(json!({"name": name, "value": counter.get()})),
            Value::Gauge(gauge) => Some(json!({"name": name, "value": gauge.get()})),
            Value::Histogram(_) => None,
        })
        .collect();
    let computed: Vec<Json> = histograms(metrics)
        .map(|(name, summary)| {
            let values: Vec<Json> = PERCENTILES
                .iter()
                .map(|p| json!({"interval": null, "cumulative": percentile(&summary, *p)}))
                .collect();
            json!({"name": name, "values": values})
        })
        .collect();
    if !computed.is_empty() {
        stats.push(json!({"histograms": {
            "supported_quantiles": PERCENTILES,
            "computed_quantiles": computed,
        }}));
    }
    json!({ "stats": stats })
}

/// The Prometheus exposition format: one `# TYPE` line for each family, samples of a family
/// together, no sample twice.
pub fn prometheus(metrics: &[Metric]) -> String {
    let mut families: BTreeMap<(String, &'static str), Vec<&Entry>> = BTreeMap::new();
    for (_, entry) in metrics {
        let name = format!("envoy_{}", sanitised(&entry.family));
        families.entry((name, Kind::of(&entry.value).as_prometheus())).or_default().push(entry);
    }
    let mut out = String::with_capacity(metrics.len() * 128);
    let mut last = String::new();
    for ((family, kind), entries) in families {
        // A family has one type: of several kinds under one name all but the first get theirs added.
        let name = if family == last { format!("{family}_{kind}") } else { family.clone() };
        let _ = writeln!(out, "# TYPE {name} {kind}");
        let mut seen = HashSet::new();
        for entry in entries {
            let labels = label_list(&entry.labels);
            if !seen.contains(&labels) {
                sample(&mut out, &name, &labels, &entry.value);
                seen.insert(labels);
            }
        }
        last = family;
    }
    out
}

fn histograms(metrics: &[Metric]) -> impl Iterator<Item = (&str, Summary)> {
    metrics.iter().filter_map(|(name, entry)| match &entry.value {
        Value::Histogram(histogram) => Some((name.as_str(), histogram.summary())),
        _ => None,
    })
}

fn flat_percentiles(out: &mut String, summary: &Summary) {
    if summary.count == 0 {
        out.push_str("No recorded values");
        return;
    }
    for (index, p) in PERCENTILES.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        let value = percentile(summary, *p).unwrap_or_default();
        let _ = write!(out, "{space}P{p}(nan,{value})");
    }
}

/// Rounded: more digits than four would only be noise of the interpolation.
fn percentile(summary: &Summary, percent: f64) -> Option<f64> {
    summary.quantile(percent / 100.0).map(|value| (value * 1e4).round() / 1e4)
}

fn sample(out: &mut String, name: &str, labels: &str, value: &Value) {
    let _ = match value {
        Value::Counter(counter) => writeln!(out, "{name}{{{labels}}} {}", counter.get()),
        Value::Gauge(gauge) => writeln!(out, "{name}{{{labels}}} {}", gauge.get()),
        Value::Histogram(histogram) => {
            let summary = histogram.summary();
            let comma = if labels.is_empty() { "" } else { "," };
            for (upto, bound) in summary.cumulative.iter().zip(BOUNDS) {
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {upto}");
            }
            let Summary { count, sum, .. } = summary;
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
            let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
            writeln!(out, "{name}_count{{{labels}}} {count}")
        }
    };
}

fn label_list(labels: &[Label]) -> String {
    let mut out = String::new();
    for (key, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        if key.starts_with(|first: char| first.is_ascii_digit()) {
            out.push('_');
        }
        out.push_str(&sanitised(key));
        out.push_str("=\"");
        for char in value.chars() {
            match char {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    out
}

fn sanitised(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> Registry {
        let registry = Registry::new();
        let cluster = registry.scope("cluster", Some(("envoy_cluster_name", "a\"b\\".into())));
        cluster.counter("upstream_rq_total").add(3);
        cluster.counter("upstream_cx_total");
        cluster.gauge("upstream_cx_active").set(-2);
        cluster.histogram("upstream_rq_time").record(7.0);
        let other = registry.scope("cluster", Some(("envoy_cluster_name", "z".into())));
        other.counter("upstream_rq_total").inc();
        other.histogram("upstream_rq_time");
        registry.scope("server", None).gauge("live-now").set(1);
        registry
    }

    fn all() -> Vec<Metric> {
        select(&registry(), &Filter::default())
    }

    #[test]
    fn flat_text_ends_with_the_histograms() {
        let text = flat(&all());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "cluster.a\"b\\.upstream_cx_active: -2");
        assert!(lines.contains(&"cluster.z.upstream_rq_total: 1"));
        let percentiles = lines[lines.len() - 2];
        assert!(
            percentiles.starts_with("cluster.a\"b\\.upstream_rq_time: P0(nan,5) P25(nan,6.25) "),
            "{percentiles}"
        );
        assert!(percentiles.ends_with(" P99.9(nan,9.995) P100(nan,10)"), "{percentiles}");
        assert_eq!(lines[lines.len() - 1], "cluster.z.upstream_rq_time: No recorded values");
    }

    #[test]
    fn filters_by_name_kind_and_use() {
        let registry = registry();
        let names = |filter: Filter| -> Vec<String> {
            select(&registry, &filter).into_iter().map(|(name, _)| name).collect()
        };
        let name = Some(Regex::new("^cluster\\.z").expect("it is a regex"));
        let kind = Some(Kind::Counter);
        assert_eq!(
            names(Filter { name: name.clone(), kind, ..Filter::default() }),
            ["cluster.z.upstream_rq_total"]
        );
        assert_eq!(
            names(Filter { name, used_only: true, ..Filter::default() }),
            ["cluster.z.upstream_rq_total"]
        );
    }

    #[test]
    fn json_has_values_and_quantiles() {
        let json = json(&all());
        let stats = json["stats"].as_array().expect("a list");
        assert!(stats.contains(&json!({"name": "server.live-now", "value": 1})));
        let histograms = &stats.last().expect("histograms come last")["histograms"];
        assert_eq!(histograms["supported_quantiles"][7], 99.5);
        let computed = &histograms["computed_quantiles"];
        assert_eq!(computed[0]["values"][1], json!({"interval": null, "cumulative": 6.25}));
        assert_eq!(computed[1]["values"][1]["cumulative"], Json::Null);
    }

    #[test]
    fn prometheus_groups_families_and_escapes() {
        let text = prometheus(&all());
        assert_eq!(text.matches("# TYPE envoy_cluster_upstream_rq_total counter\n").count(), 1);
        assert!(text.contains(
            "# TYPE envoy_cluster_upstream_rq_total counter\n\
             envoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\\\"b\\\\\"} 3\n\
             envoy_cluster_upstream_rq_total{envoy_cluster_name=\"z\"} 1\n"
        ));
        assert!(text.contains("# TYPE envoy_server_live_now gauge\nenvoy_server_live_now{} 1\n"));
        let own = "envoy_cluster_name=\"a\\\"b\\\\\"";
        for line in [
            format!("envoy_cluster_upstream_rq_time_bucket{{{own},le=\"5\"}} 0\n"),
            format!("envoy_cluster_upstream_rq_time_bucket{{{own},le=\"10\"}} 1\n"),
            format!("envoy_cluster_upstream_rq_time_bucket{{{own},le=\"+Inf\"}} 1\n"),
            format!("envoy_cluster_upstream_rq_time_sum{{{own}}} 7\n"),
            format!("envoy_cluster_upstream_rq_time_count{{{own}}} 1\n"),
        ] {
            assert!(text.contains(&line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn prometheus_never_types_a_name_twice_nor_repeats_a_sample() {
        let registry = Registry::new();
        let scope = registry.scope("a", None);
        scope.counter("b.c").inc();
        scope.counter("b_c").inc();
        scope.gauge("b-c").set(5);
        scope.histogram("b/c");
        let text = prometheus(&select(&registry, &Filter::default()));
        let start = "# TYPE envoy_a_b_c counter\nenvoy_a_b_c{} 1\n\
             # TYPE envoy_a_b_c_gauge gauge\nenvoy_a_b_c_gauge{} 5\n\
             # TYPE envoy_a_b_c_histogram histogram\n";
        assert!(text.starts_with(start), "{text}");
    }
}
