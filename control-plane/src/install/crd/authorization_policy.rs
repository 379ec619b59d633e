//! `AuthorizationPolicy`.

use serde_json::Value;

use super::fields::{choice, dns_label, dns_name, list, object, pattern, port, rule};

pub(super) fn spec() -> Value {
    let target = object(
        "A Service of the same namespace.",
        &["kind", "name"],
        [
            ("group", choice("Empty.", &[""])),
            ("kind", choice("Kind.", &["Service"])),
            ("name", dns_name("Name.")),
        ],
    );
    let spec = object(
        "Who may ask a service for what. What Deny meets is refused; then, if there is any policy with Allow, what none of \
         them meets.",
        &[],
        [
            (
                "targetRefs",
                some("Services that it holds for. Default: all of the namespace.", 16, target),
            ),
            ("action", choice("What happens to what it meets. Default Allow.", &["Allow", "Deny"])),
            ("rules", list("It meets what any of these meets.", 64, access_rule())),
        ],
    );
    rule(
        spec,
        "!has(self.action) || self.action != 'Deny' || (has(self.rules) && size(self.rules) > 0)",
        "without rules nothing is refused: Deny needs at least one",
    )
}

fn access_rule() -> Value {
    let mut account =
        pattern("Its name, or NAMESPACE/NAME.", &format!("^({LABEL}/)?{LABEL}(\\.{LABEL})*$"));
    account["maxLength"] = 253.into();
    let from = object(
        "Who asks, by certificate: any of these. Default: everybody.",
        &[],
        [
            ("serviceAccounts", some("Service accounts.", 64, account)),
            ("namespaces", some("All service accounts of these.", 64, dns_label("Namespace."))),
        ],
    );
    let from = rule(
        from,
        "has(self.serviceAccounts) || has(self.namespaces)",
        "expected serviceAccounts or namespaces",
    );
    let to = object(
        "What is asked for: all that is said must hold. Default: everything.",
        &[],
        [
            ("methods", some("Any of these methods.", 16, pattern("Method.", "^[A-Z-]{1,32}$"))),
            (
                "paths",
                some(
                    "Any of these paths, without the query; all that begin so, with a * at the end.",
                    64,
                    pattern("Path.", "^/[!\"$-)+->@-~]*\\*?$"),
                ),
            ),
            ("ports", some("Any of these ports of the workload.", 16, port("Port."))),
        ],
    );
    let to = rule(
        to,
        "has(self.methods) || has(self.paths) || has(self.ports)",
        "expected methods, paths or ports",
    );
    object("Who asks for what. All that is said must hold.", &[], [("from", from), ("to", to)])
}

/// RFC 1123 label.
const LABEL: &str = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";

/// A list of at least one.
fn some(description: &str, at_most: u32, items: Value) -> Value {
    let mut made = list(description, at_most, items);
    made["minItems"] = 1.into();
    made
}
