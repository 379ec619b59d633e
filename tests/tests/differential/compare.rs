//! What counts as different, and what differs on purpose.
//!
//! On purpose, everywhere:
//! * The text of a reply that a proxy makes because something failed: ours says more. Whether there
//!   is a text at all, its length and its type differ with it. (Replies that the configuration
//!   spells out are compared to the letter.)
//! * `server`: `envoy` there, `pillion` here. Whether it is there is compared.
//! * Times, dates and random ids: whether they are there is compared.
//! * Of `traceparent`: version, flags, and whether the trace is that of the client.
//! * One header in several lines or in one line, which is the same (RFC 9110 section 5.3).
//! * Envoy puts the machine's address into `x-forwarded-for` in place of a loopback peer.
//!
//! And in single cases: `on_purpose` of their part.

use std::collections::BTreeMap;

use serde_json::Value;

use super::observe::Observed;
use super::part::Part;

/// Headers whose values cannot be equal.
const VALUES_DIFFER: &[&str] = &[
    "server",
    "date",
    "x-request-id",
    "x-envoy-upstream-service-time",
    "x-envoy-expected-rq-timeout-ms",
];
/// Headers that go with the text of a reply.
const OF_THE_TEXT: &[&str] = &["content-length", "content-type", "grpc-message"];
/// What the cases send as addresses of others; any other address is the peer's.
const ADDRESSES: &[&str] = &["1.2.3.4", "5.6.7.8", "10.0.0.1"];

/// The trace that cases send.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

type Headers = BTreeMap<String, String>;

/// Every difference, each as `what: envoy … ours …`.
pub(crate) fn differences(envoy: &Observed, ours: &Observed, part: &Part) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, envoy: String, ours: String| {
        if envoy != ours {
            found.push(format!("{what}: envoy {envoy} | ours {ours}"));
        }
    };
    differ("access log", envoy.line(), ours.line());
    differ("access log, the part's operators", envoy.more(), ours.more());
    if envoy.line() == ours.line() {
        // Where the short flags differ on purpose, the long ones do too.
        differ("access log, in words", envoy.words(), ours.words());
    }
    let (Some(theirs), Some(own)) = (&envoy.answer, &ours.answer) else {
        let outcome = |one: &Observed| match &one.answer {
            Some(answer) => format!("answered {}", answer.status),
            None => "no answer".to_owned(),
        };
        differ("outcome", outcome(envoy), outcome(ours));
        found.retain(|text| !on_purpose(part, &envoy.name, text));
        return found;
    };
    differ("status", theirs.status.to_string(), own.status.to_string());
    differ("cut", theirs.cut.to_string(), own.cut.to_string());
    let local = failed_here(envoy) && !part.texts;
    let echoes = envoy.echo().zip(ours.echo());
    let without: &[&str] = match (&echoes, local) {
        (None, false) => &[],
        (None, true) => OF_THE_TEXT,
        // The echo says how long it is by what it says.
        (Some(_), _) => &["content-length"],
    };
    let read = |pairs: &[(String, String)]| {
        headers(pairs.iter().filter(|(name, _)| !without.contains(&name.as_str())))
    };
    found.extend(set_difference("headers", &read(&theirs.headers), &read(&own.headers)));
    found.extend(set_difference("trailers", &read(&theirs.trailers), &read(&own.trailers)));
    match echoes {
        Some((theirs, own)) => found.extend(echo_differences(&theirs, &own)),
        None if local || theirs.body == own.body => {}
        None => {
            found.push(format!("body: envoy {} | ours {}", brief(&theirs.body), brief(&own.body)));
        }
    }
    found.retain(|text| !on_purpose(part, &envoy.name, text));
    found
}

fn on_purpose(part: &Part, name: &str, text: &str) -> bool {
    let meant =
        |(case, start, _): &(&str, &str, &str)| name.starts_with(case) && text.starts_with(start);
    part.on_purpose.iter().any(meant)
}

/// The proxy itself answered, because something failed.
fn failed_here(observed: &Observed) -> bool {
    // A talk in bytes has no status, and nothing in it is a proxy's own.
    let from_backend = observed
        .answer
        .as_ref()
        .is_some_and(|answer| answer.status == 0 || answer.header("x-endpoint").is_some());
    let spelled_out = |details: &str| details == "direct_response";
    let configured = observed.log.as_ref().is_some_and(|log| spelled_out(&log.details));
    !from_backend && !configured
}

fn headers<'a>(pairs: impl Iterator<Item = &'a (String, String)>) -> Headers {
    let mut all = Headers::new();
    for (name, value) in pairs {
        let value = comparable(&name.to_ascii_lowercase(), value);
        let joined = all.entry(name.clone()).or_default();
        if !joined.is_empty() {
            joined.push_str(", ");
        }
        joined.push_str(&value);
    }
    all
}

fn comparable(name: &str, value: &str) -> String {
    if VALUES_DIFFER.contains(&name) {
        return "…".to_owned();
    }
    if name == "traceparent" {
        // Ids are made by chance, unless a case sent them.
        let known = |(at, part): (usize, &str)| match at {
            1 if part != TRACE => "trace".to_owned(),
            2 => "span".to_owned(),
            _ => part.to_owned(),
        };
        return value.split('-').enumerate().map(known).collect::<Vec<_>>().join("-");
    }
    if name == "x-forwarded-for" {
        let known = |address| if ADDRESSES.contains(&address) { address } else { "peer" };
        return value.split(',').map(|one| known(one.trim())).collect::<Vec<_>>().join(",");
    }
    value.to_owned()
}

fn set_difference(what: &str, theirs: &Headers, own: &Headers) -> Option<String> {
    let only = |a: &Headers, b: &Headers| {
        let missing = a.iter().filter(|(name, value)| b.get(*name) != Some(value));
        missing.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("; ")
    };
    (theirs != own).then(|| {
        format!(
            "{what}: only envoy {{{}}} | only ours {{{}}}",
            only(theirs, own),
            only(own, theirs)
        )
    })
}

fn echo_differences(theirs: &Value, own: &Value) -> Vec<String> {
    let field = |name: &str| {
        (theirs[name] != own[name])
            .then(|| format!("upstream saw {name}: envoy {} | ours {}", theirs[name], own[name]))
    };
    let pairs = |name: &str| {
        set_difference(&format!("upstream saw {name}"), &echoed(&theirs[name]), &echoed(&own[name]))
    };
    let fields =
        ["method", "target", "authority", "version", "sni", "body"].into_iter().filter_map(field);
    fields.chain(["headers", "trailers"].into_iter().filter_map(pairs)).collect()
}

fn echoed(pairs: &Value) -> Headers {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let pairs: Vec<_> = pairs
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|pair| (text(&pair[0]), text(&pair[1])))
        .collect();
    headers(pairs.iter())
}

fn brief(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(200)]);
    format!("{} bytes {text:?}", body.len())
}
