//! `/stats`, `/stats/prometheus` and `/reset_counters`.

use regex::Regex;

use super::answer::{Answer, Params};
use super::source::Source;
use crate::telemetry::stats::text::{self, Buckets, Filter, Kind};

/// The content type of the exposition format; Prometheus 3 refuses what it does not know.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn stats(source: &dyn Source, params: &Params) -> Answer {
    let mut filter = match filter(params) {
        Ok(filter) => filter,
        Err(refusal) => return refusal,
    };
    match params.get("hidden").unwrap_or_default() {
        // Nothing is hidden here.
        "" | "include" | "exclude" => {}
        "only" => filter.none = true,
        _ => return Answer::bad_request("usage: /stats?hidden=(include|only|exclude)\n\n"),
    }
    match params.get("format").filter(|format| !format.is_empty()).unwrap_or("text") {
        "prometheus" => prometheus(source, params),
        "json" => Answer::json_text(text::json(&source.registry(), &filter)),
        "text" => Answer::text(text::flat(&source.registry(), &filter)),
        other => Answer::bad_request(format!(
            "unknown format {other:?}. usage: /stats?format=(json|prometheus|text)\n"
        )),
    }
}

pub(super) fn prometheus(source: &dyn Source, params: &Params) -> Answer {
    let filter = match filter(params) {
        Ok(filter) => filter,
        Err(refusal) => return refusal,
    };
    if !matches!(filter.buckets, Buckets::None | Buckets::Summary | Buckets::Cumulative) {
        return Answer::bad_request("unsupported prometheus histogram bucket mode");
    }
    let registry = source.registry();
    let body = text::prometheus(&registry, &filter);
    if filter.name.is_none() && filter.kind.is_none() {
        // Last values are told now: what nobody counts any more may go.
        registry.sweep();
    }
    Answer { content_type: PROMETHEUS, ..Answer::text(body) }
}

pub(super) fn reset(source: &dyn Source, _: &Params) -> Answer {
    source.registry().reset();
    Answer::ok()
}

fn filter(params: &Params) -> Result<Filter, Answer> {
    let invalid = |error| Answer::bad_request(format!("Invalid regex in filter: {error}\n"));
    let name = params.get("filter").filter(|filter| !filter.is_empty());
    let kind = match params.get("type") {
        None | Some("" | "All") => None,
        Some("Counters") => Some(Kind::Counter),
        Some("Gauges") => Some(Kind::Gauge),
        Some("Histograms") => Some(Kind::Histogram),
        Some("TextReadouts") => Some(Kind::TextReadout),
        Some(other) => {
            return Err(Answer::bad_request(format!(
                "invalid &type= param {other:?}: expected All, Counters, Gauges, Histograms or TextReadouts\n"
            )));
        }
    };
    let buckets = match params.get("histogram_buckets") {
        None => Buckets::None,
        Some("summary") => Buckets::Summary,
        Some("cumulative") => Buckets::Cumulative,
        Some("disjoint") => Buckets::Disjoint,
        Some(_) => {
            return Err(Answer::bad_request(
                "usage: /stats?histogram_buckets=(cumulative|disjoint|summary)\n",
            ));
        }
    };
    Ok(Filter {
        name: name.map(Regex::new).transpose().map_err(invalid)?,
        invert: params.has("invert_filter"),
        none: false,
        used_only: params.has("usedonly"),
        kind,
        buckets,
        texts: params.has("text_readouts"),
    })
}
