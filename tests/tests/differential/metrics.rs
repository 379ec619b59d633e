//! Which metrics moved.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::Value;

use super::part::Part;

/// Counters and gauges that are not zero, by name.
pub(crate) type Metrics = BTreeMap<String, u64>;

/// Reads `/stats?format=json`; only names that start with one of `prefixes`.
pub(crate) fn read(text: &[u8], prefixes: &[&str]) -> anyhow::Result<Metrics> {
    let answer: Value = serde_json::from_slice(text).context("stats are no JSON")?;
    let all = answer["stats"].as_array().context("no stats")?;
    let one = |stat: &Value| Some((stat["name"].as_str()?.to_owned(), stat["value"].as_u64()?));
    let wanted = |(name, value): &(String, u64)| {
        *value != 0 && prefixes.iter().any(|prefix| name.starts_with(prefix))
    };
    Ok(all.iter().filter_map(one).filter(wanted).collect())
}

/// Every metric that one side moved otherwise than the other.
pub(crate) fn differences(theirs: &Metrics, ours: &Metrics, part: &Part) -> Vec<String> {
    let mut names: Vec<&String> = theirs.keys().chain(ours.keys()).collect();
    names.sort();
    names.dedup();
    let value = |side: &Metrics, name: &String| side.get(name).copied().unwrap_or(0);
    let differ = |name: &String| {
        let (envoy, own) = (value(theirs, name), value(ours, name));
        (envoy != own).then(|| format!("metric {name}: envoy {envoy} | ours {own}"))
    };
    let meant = |text: &String| part.on_purpose.iter().any(|(_, start, _)| text.starts_with(start));
    names.into_iter().filter_map(differ).filter(|text| !meant(text)).collect()
}
