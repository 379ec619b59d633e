//! What counts as different, and what differs on purpose.
//!
//! On purpose, and only so:
//! * The text of a reply that a proxy makes because something failed: ours says more. Whether there
//!   is a text at all, its length and its type differ with it. (Replies that the configuration
//!   spells out are compared to the letter.)
//! * `server`: `envoy` there, `pillion` here. Whether it is there is compared.
//! * Times, dates and random ids: whether they are there is compared.

use std::collections::BTreeSet;

use serde_json::Value;

use super::observe::Observed;

/// Headers whose values cannot be equal.
const VALUES_DIFFER: &[&str] = &[
    "server",
    "date",
    "x-request-id",
    "x-envoy-upstream-service-time",
    "x-envoy-expected-rq-timeout-ms",
    "grpc-message",
];
/// Headers that go with the text of a reply.
const OF_THE_TEXT: &[&str] = &["content-length", "content-type"];

/// Every difference, each as `what: envoy … ours …`.
pub(crate) fn differences(envoy: &Observed, ours: &Observed) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, envoy: String, ours: String| {
        if envoy != ours {
            found.push(format!("{what}: envoy {envoy} | ours {ours}"));
        }
    };
    differ("access log", envoy.line(), ours.line());
    let (Some(theirs), Some(own)) = (&envoy.answer, &ours.answer) else {
        let outcome = |one: &Observed| match &one.answer {
            Some(answer) => format!("answered {}", answer.status),
            None => "no answer".to_owned(),
        };
        differ("outcome", outcome(envoy), outcome(ours));
        return found;
    };
    differ("status", theirs.status.to_string(), own.status.to_string());
    differ("cut", theirs.cut.to_string(), own.cut.to_string());
    let local = failed_here(envoy);
    set_difference(
        "headers",
        headers(&theirs.headers, local),
        headers(&own.headers, local),
        &mut found,
    );
    set_difference(
        "trailers",
        headers(&theirs.trailers, local),
        headers(&own.trailers, local),
        &mut found,
    );
    match (envoy.echo(), ours.echo()) {
        (Some(theirs), Some(own)) => echo_differences(&theirs, &own, &mut found),
        _ if local => {}
        _ if theirs.body != own.body => {
            found.push(format!("body: envoy {} | ours {}", brief(&theirs.body), brief(&own.body)));
        }
        _ => {}
    }
    found
}

/// The proxy itself answered, because something failed.
fn failed_here(observed: &Observed) -> bool {
    let from_backend = observed.answer.as_ref().is_some_and(|a| a.header("x-endpoint").is_some());
    let direct = observed.log.as_ref().is_some_and(|log| log.flags.contains("-"));
    !from_backend && !direct
}

fn headers(pairs: &[(String, String)], local: bool) -> BTreeSet<String> {
    let kept = pairs.iter().filter(|(name, _)| !(local && OF_THE_TEXT.contains(&name.as_str())));
    kept.map(|(name, value)| header(name, value)).collect()
}

fn header(name: &str, value: &str) -> String {
    let lower = name.to_ascii_lowercase();
    if VALUES_DIFFER.contains(&lower.as_str()) {
        format!("{name}: …")
    } else {
        format!("{name}: {value}")
    }
}

fn set_difference(
    what: &str,
    theirs: BTreeSet<String>,
    own: BTreeSet<String>,
    found: &mut Vec<String>,
) {
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| {
        a.difference(b).cloned().collect::<Vec<_>>().join("; ")
    };
    if theirs != own {
        found.push(format!(
            "{what}: only envoy {{{}}} | only ours {{{}}}",
            only(&theirs, &own),
            only(&own, &theirs)
        ));
    }
}

fn echo_differences(theirs: &Value, own: &Value, found: &mut Vec<String>) {
    for field in ["method", "target", "authority", "version", "body"] {
        if theirs[field] != own[field] {
            found.push(format!(
                "upstream saw {field}: envoy {} | ours {}",
                theirs[field], own[field]
            ));
        }
    }
    for field in ["headers", "trailers"] {
        let what = format!("upstream saw {field}");
        set_difference(&what, echoed(&theirs[field]), echoed(&own[field]), found);
    }
}

fn echoed(pairs: &Value) -> BTreeSet<String> {
    let pairs = pairs.as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    pairs.iter().map(|pair| header(&text(&pair[0]), &text(&pair[1]))).collect()
}

fn brief(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    format!("{} bytes {text:?}", body.len())
}
