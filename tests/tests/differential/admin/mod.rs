//! The admin endpoint, held against real Envoy's: the same bootstrap, the same questions in the same
//! order. Every answer is taken apart into facts (status, headers, lines, paths of JSON with types or
//! values), and both sides have to give the same ones.

mod discovery;
mod drain;
mod table;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use http::Method;
use pillion_tests::ca::{Ca, spiffe};
use pillion_tests::client::{self, Answer, Ask};
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, envoy};
use pillion_tests::venv::optional;
use serde_json::Value;
use tempfile::TempDir;

/// A question to the admin endpoint, and what is compared of its answer.
pub(super) struct Case {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) compare: Compare,
    /// Starts of facts that differ on purpose, and why.
    pub(super) on_purpose: &'static [(&'static str, &'static str)],
}

/// What is compared beside status and headers.
#[derive(Clone, Copy)]
pub(super) enum Compare {
    /// Nothing: the text is ours.
    Head,
    /// The text to the letter, but for ports.
    Text,
    /// The lines to the letter, but for ports, in whatever order.
    Lines,
    /// The lines up to the first of these.
    LinesUpTo(&'static str),
    /// JSON: paths and types; the values of fields with these names.
    Json(&'static [&'static str]),
}

/// Where a side listens.
pub(super) struct Running {
    pub(super) proxy: Proxy,
    pub(super) ports: Vec<SocketAddr>,
    _dir: TempDir,
}

const LISTENERS: usize = 4;

/// Starts a side with the bootstrap of these tests.
pub(super) async fn start(kind: Kind) -> anyhow::Result<Running> {
    let dir = tempfile::tempdir()?;
    let ca = Ca::new("admin")?;
    let files = ca.write(dir.path(), "server", &ca.leaf(&spiffe("server"))?)?;
    let named = ca.write(dir.path(), "named", &ca.leaf_for(&["a.test", "b.test"])?)?;
    let inline = std::fs::read_to_string(&files.roots)?.replace('\n', "\\n");
    let mut text = table::BOOTSTRAP
        .replace("@chain@", &files.chain.to_string_lossy())
        .replace("@key@", &files.key.to_string_lossy())
        .replace("@named.chain@", &named.chain.to_string_lossy())
        .replace("@named.key@", &named.key.to_string_lossy())
        .replace("@roots@", &files.roots.to_string_lossy())
        .replace("@inline@", &inline);
    let mut held = Vec::new();
    for index in 0..LISTENERS {
        let port = Port::reserve()?;
        text = text.replace(&format!("@{index}@"), &port.number().to_string());
        held.push(port);
    }
    let ports = held.iter().map(Port::address).collect();
    let mut bootstrap = Bootstrap::new(&text)?;
    held.into_iter().for_each(|port| bootstrap.hold(port));
    Ok(Running { proxy: Proxy::start(kind, bootstrap).await?, ports, _dir: dir })
}

/// Asks the admin endpoint.
pub(super) async fn ask(running: &Running, method: Method, path: &str) -> anyhow::Result<Answer> {
    let mut ask = Ask::new(method, path);
    ask.host = running.proxy.admin.to_string();
    client::send(running.proxy.admin, &ask).await
}

/// What an answer says.
fn facts(answer: &Answer, compare: Compare, ports: &[SocketAddr]) -> BTreeSet<String> {
    let mut facts = BTreeSet::from([format!("status {}", answer.status)]);
    for name in ["content-type", "cache-control", "x-content-type-options"] {
        let value = answer.header(name).unwrap_or("none");
        facts.insert(format!("{name}: {}", value.to_ascii_lowercase()));
    }
    let mut text = answer.text();
    for (index, address) in ports.iter().enumerate() {
        text = text.replace(&format!(":{}", address.port()), &format!(":PORT{index}"));
    }
    match compare {
        Compare::Head => {}
        Compare::Text => {
            facts.insert(format!("text {text:?}"));
        }
        Compare::Lines => facts.extend(text.lines().map(|line| format!("line {line}"))),
        Compare::LinesUpTo(end) => {
            let cut = |line: &str| line.split(end).next().unwrap_or_default().to_owned();
            facts.extend(text.lines().map(|line| format!("line {}", cut(line))));
        }
        Compare::Json(values) => match serde_json::from_str::<Value>(&text) {
            Ok(value) => leaves(&value, "", values, &mut facts),
            Err(error) => drop(facts.insert(format!("no JSON: {error}: {text}"))),
        },
    }
    facts
}

/// `.clusters[].name: string a` of every leaf; the dumps of a configuration go by their type.
fn leaves(value: &Value, path: &str, values: &[&str], facts: &mut BTreeSet<String>) {
    let name = path.rsplit('.').next().unwrap_or_default().trim_end_matches("[]");
    let kind = match value {
        Value::Object(fields) => {
            if fields.is_empty() {
                facts.insert(format!("{path}: {{}}"));
            }
            for (key, inner) in fields {
                leaves(inner, &format!("{path}.{key}"), values, facts);
            }
            return;
        }
        Value::Array(elements) => {
            if elements.is_empty() {
                facts.insert(format!("{path}: []"));
            }
            for element in elements {
                let dump = element["@type"].as_str().filter(|kind| kind.ends_with("ConfigDump"));
                let dump = dump.and_then(|kind| kind.rsplit('.').next()).unwrap_or_default();
                leaves(element, &format!("{path}[{dump}]"), values, facts);
            }
            return;
        }
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    };
    let said = match value.as_f64() {
        _ if !values.contains(&name) => String::new(),
        Some(number) => format!(" {number}"),
        None => format!(" {value}"),
    };
    facts.insert(format!("{path}: {kind}{said}"));
}

/// What one side says and the other does not, and is not meant to.
fn differences(case: &Case, theirs: &BTreeSet<String>, ours: &BTreeSet<String>) -> Vec<String> {
    let meant = |fact: &&String| !case.on_purpose.iter().any(|(start, _)| fact.starts_with(start));
    let place = format!("{} {}", case.method, case.path);
    let only_there = theirs.difference(ours).filter(meant);
    let only_there = only_there.map(|fact| format!("{place}: only Envoy: {fact}"));
    let only_here = ours.difference(theirs).filter(meant);
    let only_here = only_here.map(|fact| format!("{place}: only here: {fact}"));
    // A reason that excuses nothing would be one that nobody needs.
    let excused =
        |start: &str| theirs.symmetric_difference(ours).any(|fact| fact.starts_with(start));
    let idle = case.on_purpose.iter().filter(|(start, _)| !excused(start));
    let idle = idle.map(|(start, why)| format!("{place}: no difference is `{start}` ({why})"));
    only_there.chain(only_here).chain(idle).collect()
}

#[tokio::test]
async fn the_admin_endpoint_answers_as_envoys() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let (theirs, ours) = tokio::try_join!(start(Kind::Envoy), start(Kind::Pillion))?;
    let mut lines = Vec::new();
    let mut asked = 0;
    let filter = std::env::var("PILLION_CASES").unwrap_or_default();
    for case in table::cases().into_iter().filter(|case| case.path.contains(&filter)) {
        asked += 1;
        let (envoy, own) = tokio::try_join!(
            ask(&theirs, case.method.clone(), case.path),
            ask(&ours, case.method.clone(), case.path)
        )?;
        let envoy = facts(&envoy, case.compare, &theirs.ports);
        let own = facts(&own, case.compare, &ours.ports);
        lines.extend(differences(&case, &envoy, &own));
    }
    assert!(lines.is_empty(), "{} in {asked} questions:\n{}", lines.len(), lines.join("\n"));
    Ok(())
}
