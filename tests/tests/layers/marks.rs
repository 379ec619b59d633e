//! The support table is honest: a field that is marked as applied is read somewhere.
//!
//! The `.proto` files say of each field whether it is applied, refused or harmless, and a field
//! without a mark is applied. Nothing but the code knows whether that is true; so every field that a
//! configuration can reach without meeting a refusal has to be named in the code that translates.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pillion_xds::support::{self, Mark, MessageSupport};

use super::repository;
use super::source::files;

/// Where a configuration begins.
const ROOTS: &[&str] = &[
    "envoy.config.bootstrap.v3.Bootstrap",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.RouteConfiguration",
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    "envoy.config.core.v3.TypedExtensionConfig",
];

/// Fields that are read without being named, and why.
const READ_AS_A_WHOLE: &[(&str, &str)] = &[
    ("envoy.config.core.v3.Node.", "goes to the server as it is"),
    ("envoy.type.v3.SemanticVersion.", "a part of it"),
];

#[test]
fn what_is_marked_as_applied_is_read() {
    let code: String = ["proxy/src/xds", "proxy/src/app"]
        .iter()
        .flat_map(|root| files(repository(), root))
        .map(|file| file.text().to_owned())
        .collect();
    let table: BTreeMap<String, MessageSupport> =
        support::table().into_iter().map(|message| (message.name.clone(), message)).collect();
    let mut ignored = String::new();
    for message in reached(&table, &code) {
        for field in message.fields.iter().filter(|field| field.mark == Mark::Applied) {
            let path = format!("{}.{}", message.name, field.name);
            let known = READ_AS_A_WHOLE.iter().any(|(known, _)| path.starts_with(known));
            if !known && !names(&code, &field.name) && !names(&code, &camel(&field.name)) {
                let _ = writeln!(ignored, "{path}");
            }
        }
    }
    assert!(ignored.is_empty(), "marked as applied, and read nowhere:\n{ignored}");
}

/// Messages that a configuration can hold, through fields that are applied.
fn reached<'a>(table: &'a BTreeMap<String, MessageSupport>, code: &str) -> Vec<&'a MessageSupport> {
    let is_root = |message: &&MessageSupport| {
        ROOTS.contains(&message.name.as_str()) || is_extension(message, code)
    };
    let mut open: Vec<&MessageSupport> = table.values().filter(is_root).collect();
    let mut found: BTreeMap<&str, &MessageSupport> = BTreeMap::new();
    while let Some(message) = open.pop() {
        if found.insert(&message.name, message).is_none() {
            let applied = message.fields.iter().filter(|field| field.mark == Mark::Applied);
            open.extend(applied.filter_map(|field| table.get(&field.type_name)));
        }
    }
    found.into_values().collect()
}

/// A packed message that the code unpacks: named as `router.v3.Router`.
fn is_extension(message: &MessageSupport, code: &str) -> bool {
    let mut parts: Vec<&str> = message.name.rsplitn(4, '.').take(3).collect();
    parts.reverse();
    message.extension == Mark::Applied && code.contains(&format!("{}\"", parts.join(".")))
}

/// Whether `name` stands in the code as a word.
fn names(code: &str, name: &str) -> bool {
    let of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        !code[..at].ends_with(of_word) && !code[at + name.len()..].starts_with(of_word)
    })
}

/// `direct_response` as the variant of a `oneof`: `DirectResponse`.
fn camel(name: &str) -> String {
    let mut upper = true;
    let mut made = String::new();
    for c in name.chars() {
        if c == '_' {
            upper = true;
        } else {
            made.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    made
}
