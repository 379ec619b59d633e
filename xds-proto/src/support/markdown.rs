//! The published support table, as Markdown: what every message and field of Envoy's API that Pillion knows comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Mark, MessageSupport, table};

const HEAD: &str = "# What Pillion does with Envoy's API

Every message and field that Pillion knows. *Applied* has the effect that Envoy documents; *refused* is an error that names the
field's path, because leaving it out would change what happens; *harmless* is read, and changes nothing that matters here. A field
that is not listed is not known: refused in a static bootstrap, a warning in a dynamic resource. An extension that is not listed is
refused by its name, unless it is marked as optional.

This page is made from the marks in `xds-proto/proto` by `cargo run -p pillion-xds --example support_table > docs/support.md`; a
test holds it against them, and another holds that what is marked as applied is read.
";

/// The whole page.
pub fn markdown() -> String {
    let table = table();
    let reached = reached(&table);
    let mut packages: BTreeMap<String, Vec<&MessageSupport>> = BTreeMap::new();
    for message in &table {
        packages.entry(package(message)).or_default().push(message);
    }
    let mut page = HEAD.to_owned();
    for (package, messages) in packages {
        let _ = write!(
            page,
            "\n## {package}\n\n| message | applied | harmless | refused |\n|---|---|---|---|\n"
        );
        for message in messages {
            let short = message.name.trim_start_matches(&package).trim_start_matches('.');
            let fields = |mark| match message.extension {
                Mark::Applied if reached.contains(message.name.as_str()) => names(message, mark),
                Mark::Applied if mark == Mark::Refused => "part of what is refused".to_owned(),
                Mark::Applied => String::new(),
                whole if whole == mark => "all of it".to_owned(),
                _ => String::new(),
            };
            let (applied, harmless) = (fields(Mark::Applied), fields(Mark::Harmless));
            let refused = fields(Mark::Refused);
            let _ = writeln!(page, "| {short} | {applied} | {harmless} | {refused} |");
        }
    }
    page
}

/// Where a configuration begins; extensions and the messages of services do too.
const ROOTS: &[&str] = &[
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.config.trace.v3.OpenTelemetryConfig",
    "envoy.config.route.v3.FilterConfig",
];

/// Messages that something can hold without meeting a field that is refused.
fn reached(table: &[MessageSupport]) -> BTreeSet<&str> {
    let by_name: BTreeMap<&str, &MessageSupport> =
        table.iter().map(|message| (message.name.as_str(), message)).collect();
    let packed = ["envoy.extensions.", "envoy.service.", "xds.", "udpa."];
    let is_root = |message: &&MessageSupport| {
        let name = message.name.as_str();
        let top = !name.trim_start_matches(&package(message)).trim_start_matches('.').contains('.');
        ROOTS.contains(&name) || (top && packed.iter().any(|start| name.starts_with(start)))
    };
    let applied = |message: &&MessageSupport| message.extension == Mark::Applied;
    let mut open: Vec<&MessageSupport> = table.iter().filter(is_root).filter(applied).collect();
    let mut found = BTreeSet::new();
    while let Some(message) = open.pop() {
        if found.insert(message.name.as_str()) {
            let fields = message.fields.iter().filter(|field| field.mark != Mark::Refused);
            open.extend(fields.filter_map(|field| by_name.get(held(&field.type_name))));
        }
    }
    found
}

/// The message that a type holds: that of the values, for `map<string, T>`.
fn held(type_name: &str) -> &str {
    type_name.rsplit_once(", ").map_or(type_name, |(_, value)| value.trim_end_matches('>'))
}

fn package(message: &MessageSupport) -> String {
    let lower = |part: &&str| part.starts_with(|c: char| c.is_ascii_lowercase());
    message.name.split('.').take_while(lower).collect::<Vec<_>>().join(".")
}

fn names(message: &MessageSupport, mark: Mark) -> String {
    let fields = message.fields.iter().filter(|field| field.mark == mark);
    fields.map(|field| format!("`{}`", field.name)).collect::<Vec<_>>().join(" ")
}
