//! Metrics as text: Envoy's flat form, its JSON, and the Prometheus exposition format (0.0.4).

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;

use regex::Regex;
use serde_json::{Value as Json, json};

use super::{Label, Reading, Registry, Sample, Settings, Summary, Tag};

/// Percentiles that Envoy shows of a histogram.
const PERCENTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// What kind a metric is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Distribution.
    Histogram,
    /// Text.
    TextReadout,
}

/// How histograms are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Buckets {
    /// As quantiles (in Prometheus: as buckets).
    #[default]
    None,
    /// As quantiles, wherever.
    Summary,
    /// As the number at or below each bound.
    Cumulative,
    /// As the number between each bound and the one before it.
    Disjoint,
}

/// Which metrics are wanted. The default is all of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Those whose flat name has a match of it anywhere.
    pub name: Option<Regex>,
    /// Those whose name has none.
    pub invert: bool,
    /// Only those that are not zero (or have observations).
    pub used_only: bool,
    /// None at all.
    pub none: bool,
    /// Only those of this kind.
    pub kind: Option<Kind>,
    /// How histograms are shown.
    pub buckets: Buckets,
    /// For Prometheus, which has no texts: as gauges of zero with a label.
    pub texts: bool,
}

impl Kind {
    /// The kind of a value.
    pub fn of(reading: &Reading) -> Self {
        match reading {
            Reading::Counter(_) => Self::Counter,
            Reading::Gauge(_) | Reading::Hash(_) => Self::Gauge,
            Reading::Histogram(_) => Self::Histogram,
            Reading::Text(_) => Self::TextReadout,
        }
    }

    fn as_prometheus(self, buckets: Buckets) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::TextReadout => "gauge",
            Self::Histogram if buckets == Buckets::Summary => "summary",
            Self::Histogram => "histogram",
        }
    }
}

impl Filter {
    fn accepts(&self, sample: &Sample<'_>) -> bool {
        let used = || match &sample.reading {
            Reading::Counter(count) => *count != 0,
            Reading::Gauge(level) => *level != 0,
            Reading::Hash(hash) => *hash != 0,
            Reading::Histogram(summary) => summary.count != 0,
            Reading::Text(text) => !text.is_empty(),
        };
        let named = |regex: &Regex| regex.is_match(sample.name) != self.invert;
        !self.none
            && self.kind.is_none_or(|kind| kind == Kind::of(&sample.reading))
            && self.name.as_ref().is_none_or(named)
            && (!self.used_only || used())
    }

    fn visit(&self, registry: &Registry, mut see: impl FnMut(&Sample<'_>)) {
        registry.visit(&mut |sample| {
            if self.accepts(sample) {
                see(sample);
            }
        });
    }
}

/// Texts, then `name: value` lines, each in order, then the histograms as `name: P0(nan,1) P25(nan,2.5) …`: percentiles
/// of the last interval and of all time. Intervals are not kept here, so the first is always `nan`.
pub fn flat(registry: &Registry, filter: &Filter) -> String {
    let (mut texts, mut lines, mut spreads) = (Vec::new(), String::new(), Vec::new());
    filter.visit(registry, |sample| {
        // Writing to a String cannot fail.
        let _ = match &sample.reading {
            Reading::Counter(count) => writeln!(lines, "{}: {count}", sample.name),
            Reading::Gauge(level) => writeln!(lines, "{}: {level}", sample.name),
            Reading::Hash(hash) => writeln!(lines, "{}: {hash}", sample.name),
            Reading::Histogram(summary) => {
                spreads.push((sample.name.to_owned(), summary.clone()));
                Ok(())
            }
            Reading::Text(text) => {
                texts.push(format!("{}: \"{text}\"\n", sample.name));
                Ok(())
            }
        };
    });
    let mut ordered: Vec<&str> = lines.split_inclusive('\n').collect();
    ordered.sort_unstable();
    texts.sort_unstable();
    let mut out = texts.concat();
    out.push_str(&ordered.concat());
    spreads.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, summary) in spreads {
        let _ = write!(out, "{name}: ");
        match filter.buckets {
            _ if summary.count == 0 => out.push_str("No recorded values"),
            Buckets::None | Buckets::Summary => flat_percentiles(&mut out, &summary),
            Buckets::Cumulative => flat_buckets(&mut out, &summary, &summary.cumulative),
            Buckets::Disjoint => flat_buckets(&mut out, &summary, &disjoint(&summary)),
        }
        out.push('\n');
    }
    out
}

/// `{"stats": [{"name", "value"}, …, {"histograms": {"supported_quantiles", "computed_quantiles"}}]}`
pub fn json(registry: &Registry, filter: &Filter) -> String {
    let (mut out, mut spreads) = (String::from("{\"stats\":["), Vec::new());
    let comma = |out: &mut String| {
        if !out.ends_with('[') {
            out.push(',');
        }
    };
    filter.visit(registry, |sample| {
        let value = match &sample.reading {
            Reading::Counter(count) => count.to_string(),
            Reading::Gauge(level) => level.to_string(),
            Reading::Hash(hash) => hash.to_string(),
            Reading::Text(text) => json!(text).to_string(),
            Reading::Histogram(summary) => {
                spreads.push((sample.name.to_owned(), summary.clone()));
                return;
            }
        };
        comma(&mut out);
        // Written as text: a tree of a hundred thousand objects would be many times as large.
        let _ = write!(out, "{{\"name\":{},\"value\":{value}}}", json!(sample.name));
    });
    if !spreads.is_empty() {
        comma(&mut out);
        spreads.sort_by(|(one, _), (other, _)| one.cmp(other));
        let _ = write!(out, "{}", json!({"histograms": histograms(&spreads, filter.buckets)}));
    }
    out.push_str("]}");
    out
}

fn histograms(spreads: &[(String, Summary)], buckets: Buckets) -> Json {
    let quantiles = |summary: &Summary| -> Vec<Json> {
        let value = |p: &f64| json!({"interval": null, "cumulative": percentile(summary, *p)});
        PERCENTILES.iter().map(value).collect()
    };
    if matches!(buckets, Buckets::None | Buckets::Summary) {
        let computed: Vec<Json> = spreads
            .iter()
            .map(|(name, summary)| json!({"name": name, "values": quantiles(summary)}))
            .collect();
        return json!({"supported_quantiles": PERCENTILES, "computed_quantiles": computed});
    }
    let one = |(name, summary): &(String, Summary)| {
        let counts = match buckets {
            Buckets::Disjoint => disjoint(summary),
            _ => summary.cumulative.clone(),
        };
        let bounds = summary.bounds.as_slice().iter().zip(counts);
        let all: Vec<Json> = bounds
            .map(|(bound, count)| json!({"upper_bound": bound, "interval": 0, "cumulative": count}))
            .collect();
        json!({"name": name, "buckets": all})
    };
    Json::Array(spreads.iter().map(one).collect())
}

/// The samples of one family: labels, and value.
type Samples = Vec<(String, Reading)>;

/// The Prometheus exposition format: one `# TYPE` line for each family, samples of a family
/// together, no sample twice.
pub fn prometheus(registry: &Registry, filter: &Filter) -> String {
    let mut families: BTreeMap<String, BTreeMap<Kind, Samples>> = BTreeMap::new();
    let settings = registry.settings();
    filter.visit(registry, |sample| {
        let (family, mut labels) = named(sample, settings);
        if let Reading::Text(text) = &sample.reading {
            if !filter.texts {
                return;
            }
            let comma = if labels.is_empty() { "" } else { "," };
            labels.push_str(comma);
            labels.push_str(&label_list(&[], None, &[("text_value", text)]));
        }
        let family = sanitised(&family);
        let kind = Kind::of(&sample.reading);
        let sample = (labels, sample.reading.clone());
        if let Some(kinds) = families.get_mut(&*family) {
            kinds.entry(kind).or_default().push(sample);
        } else {
            families.insert(family, BTreeMap::from([(kind, vec![sample])]));
        }
    });
    let mut out = String::new();
    for (family, kinds) in families {
        for (index, (kind, samples)) in kinds.into_iter().enumerate() {
            let kind = kind.as_prometheus(filter.buckets);
            // A family has one type: of several kinds under one name all but the first get theirs added.
            let more = if index == 0 { String::new() } else { format!("_{kind}") };
            let name = format!("envoy_{family}{more}");
            let _ = writeln!(out, "# TYPE {name} {kind}");
            let mut seen = HashSet::new();
            for (labels, reading) in samples {
                if !seen.contains(&labels) {
                    exposed(&mut out, &name, &labels, &reading, filter.buckets);
                    seen.insert(labels);
                }
            }
        }
    }
    out
}

/// The family of a metric, and its labels as text.
fn named(sample: &Sample<'_>, settings: &Settings) -> (String, String) {
    if !settings.has_tags() {
        return (sample.family.to_owned(), label_list(sample.labels, sample.label, &[]));
    }
    let mut own: Vec<(&str, &str)> = Vec::new();
    let mut cuts: Vec<(usize, usize)> = Vec::new();
    for tag in &settings.tags {
        match tag {
            Tag::Fixed { name, value } => own.push((name, value)),
            Tag::Found { name, regex } => {
                let Some(found) = regex.captures(sample.name) else { continue };
                let Some(cut) = found.get(1) else { continue };
                own.push((name, found.get(2).unwrap_or(cut).as_str()));
                cuts.push((cut.start(), cut.end()));
            }
        }
    }
    if settings.no_default_tags {
        return (without(sample.name, &cuts), label_list(&[], None, &own));
    }
    if cuts.is_empty() {
        return (sample.family.to_owned(), label_list(sample.labels, sample.label, &own));
    }
    // The values of the usual labels are cut out as well, as `.value`.
    let values = sample.labels.iter().map(|(_, value)| &**value);
    let mut from = 0;
    for value in values {
        if let Some(at) = sample.name.get(from..).and_then(|rest| rest.find(&format!(".{value}"))) {
            let start = from + at;
            cuts.push((start, start + 1 + value.len()));
            from = start + 1 + value.len();
        }
    }
    let family = without(sample.name, &cuts);
    (family, label_list(sample.labels, sample.label, &own))
}

/// The text without these parts.
fn without(text: &str, cuts: &[(usize, usize)]) -> String {
    let inside = |at: usize| cuts.iter().any(|(start, end)| (*start..*end).contains(&at));
    text.char_indices().filter(|(at, _)| !inside(*at)).map(|(_, char)| char).collect()
}

fn disjoint(summary: &Summary) -> Vec<u64> {
    let before = std::iter::once(&0).chain(&summary.cumulative);
    summary.cumulative.iter().zip(before).map(|(upto, before)| upto - before).collect()
}

fn flat_buckets(out: &mut String, summary: &Summary, counts: &[u64]) {
    for (index, (bound, count)) in summary.bounds.as_slice().iter().zip(counts).enumerate() {
        let space = if index == 0 { "" } else { " " };
        let bound = short(*bound);
        let _ = write!(out, "{space}B{bound}(0,{count})");
    }
}

/// Six digits, as C's `%g` has them: `300000`, `1.8e+06`.
fn short(number: f64) -> String {
    if number < 1e6 {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
    format!("{digits}e+{power:0>2}")
}

fn flat_percentiles(out: &mut String, summary: &Summary) {
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

fn exposed(out: &mut String, name: &str, labels: &str, reading: &Reading, buckets: Buckets) {
    let _ = match reading {
        Reading::Counter(count) => writeln!(out, "{name}{{{labels}}} {count}"),
        Reading::Gauge(level) => writeln!(out, "{name}{{{labels}}} {level}"),
        Reading::Hash(hash) => writeln!(out, "{name}{{{labels}}} {hash}"),
        Reading::Text(_) => writeln!(out, "{name}{{{labels}}} 0"),
        Reading::Histogram(summary) => {
            let comma = if labels.is_empty() { "" } else { "," };
            if buckets == Buckets::Summary {
                for p in PERCENTILES {
                    let value =
                        percentile(summary, p).map_or_else(|| "NaN".into(), |v| v.to_string());
                    let quantile = (p * 10.0).round() / 1000.0;
                    let _ =
                        writeln!(out, "{name}{{{labels}{comma}quantile=\"{quantile}\"}} {value}");
                }
            } else {
                for (upto, bound) in summary.cumulative.iter().zip(summary.bounds.as_slice()) {
                    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {upto}");
                }
                let count = summary.count;
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
            }
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", summary.sum);
            writeln!(out, "{name}_count{{{labels}}} {}", summary.count)
        }
    };
}

fn label_list(labels: &[Label], one: Option<(&str, &str)>, own: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let usual = labels.iter().map(|(key, value)| (*key, &**value));
    for (key, value) in usual.chain(one).chain(own.iter().copied()) {
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
#[path = "text_tests.rs"]
mod tests;
