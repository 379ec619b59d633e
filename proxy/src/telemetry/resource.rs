//! Attributes of an OpenTelemetry resource.

use percent_encoding::percent_decode_str;

use super::environment;
use crate::model::collector::Detector;

/// What is detected, each key once, the last one that says something of it. `log`: the name of an
/// access log.
pub(super) fn attributes(detectors: &[Detector], log: Option<&str>) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for (key, value) in detectors.iter().flat_map(|one| detect(one, log)) {
        all.retain(|(known, _)| *known != key);
        all.push((key, value));
    }
    all
}

fn detect(detector: &Detector, log: Option<&str>) -> Vec<(String, String)> {
    match detector {
        Detector::Node => {
            let node = environment::node();
            let log = log.map(|log| ("log_name", log.to_owned()));
            let rest =
                [("zone_name", node.zone), ("cluster_name", node.cluster), ("node_name", node.id)];
            log.into_iter().chain(rest).map(|(key, value)| (key.to_owned(), value)).collect()
        }
        Detector::Environment => {
            environment::get("OTEL_RESOURCE_ATTRIBUTES").map_or_else(Vec::new, pairs)
        }
        Detector::Fixed(key, value) => vec![(key.clone(), value.clone())],
    }
}

/// `key=value,…` with percent-encoded values (OpenTelemetry: resource SDK).
fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| {
            let value = percent_decode_str(value.trim()).decode_utf8_lossy().into_owned();
            (key.trim().to_owned(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_detectors_win_and_the_variable_is_decoded() {
        let fixed = |key: &str, value: &str| Detector::Fixed(key.into(), value.into());
        let all = [fixed("a", "1"), fixed("b", "2"), fixed("a", "3")];
        let want = [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "3".to_owned())];
        assert_eq!(attributes(&all, None), want);
        let want = [("k8s.pod".to_owned(), "a,b".to_owned()), ("x".to_owned(), "y".to_owned())];
        assert_eq!(pairs("k8s.pod=a%2Cb, x = y,broken"), want);
    }
}
