//! The words that the schemas are written in: OpenAPI v3 as far as Kubernetes takes it ("structural schemas"), one word
//! for each decoder of `intent`.
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation>

use serde_json::{Map, Value, json};

/// RFC 1123 label, as `intent` takes it.
const LABEL: &str = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";
/// GEP-2257.
const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
/// Longest text that the pattern allows.
const LONGEST_DURATION: u32 = 28;

/// A map with these fields and no others.
pub(super) fn object(
    description: &str,
    required: &[&str],
    fields: impl IntoIterator<Item = (&'static str, Value)>,
) -> Value {
    let fields: Map<String, Value> =
        fields.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    let mut schema = json!({"type": "object", "description": description, "properties": fields});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// Adds a rule in CEL, and what is said where it does not hold.
pub(super) fn rule(mut schema: Value, rule: &str, message: &str) -> Value {
    let mut rules = schema["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
    rules.push(json!({"rule": rule, "message": message}));
    schema["x-kubernetes-validations"] = rules.into();
    schema
}

/// A list. CEL's cost is reckoned before there is a value, so the longest list must be known.
pub(super) fn list(description: &str, at_most: u32, items: Value) -> Value {
    json!({"type": "array", "description": description, "maxItems": at_most, "items": items})
}

pub(super) fn map(description: &str, values: Value) -> Value {
    json!({"type": "object", "description": description, "additionalProperties": values})
}

pub(super) fn any_text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

pub(super) fn text(description: &str) -> Value {
    json!({"type": "string", "description": description, "minLength": 1})
}

pub(super) fn pattern(description: &str, pattern: &str) -> Value {
    json!({"type": "string", "description": description, "pattern": pattern})
}

pub(super) fn choice(description: &str, names: &[&str]) -> Value {
    json!({"type": "string", "description": description, "enum": names})
}

pub(super) fn boolean(description: &str) -> Value {
    json!({"type": "boolean", "description": description})
}

/// As on Kubernetes, a number or a string.
pub(super) fn quantity(description: &str) -> Value {
    json!({
        "x-kubernetes-int-or-string": true, "description": description,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "pattern": r"^[0-9]*(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$",
    })
}

pub(super) fn whole(description: &str, least: u32, most: u32) -> Value {
    json!({
        "type": "integer", "format": "int64", "description": description,
        "minimum": least, "maximum": most,
    })
}

pub(super) fn port(description: &str) -> Value {
    whole(description, 1, 65_535)
}

pub(super) fn percent(description: &str) -> Value {
    json!({"type": "number", "description": description, "minimum": 0, "maximum": 100})
}

pub(super) fn dns_label(description: &str) -> Value {
    pattern(description, &format!("^{LABEL}$"))
}

pub(super) fn dns_name(description: &str) -> Value {
    let mut schema = pattern(description, &format!("^{LABEL}(\\.{LABEL})*$"));
    schema["maxLength"] = 253.into();
    schema
}

/// A whole host name in letters of any case, and no address.
pub(super) fn host(description: &str) -> Value {
    let mut schema = pattern(description, &host_pattern());
    schema["maxLength"] = 253.into();
    schema["not"] = json!({"format": "ipv4"});
    schema
}

/// An address, or a host name.
pub(super) fn host_or_address(description: &str) -> Value {
    json!({
        "type": "string", "description": description,
        "anyOf": [
            {"format": "ipv4"}, {"format": "ipv6"}, {"pattern": host_pattern(), "maxLength": 253},
        ],
    })
}

fn host_pattern() -> String {
    let label = "[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?";
    format!("^{label}(\\.{label})*$")
}

/// An IPv4 or IPv6 address.
pub(super) fn address(description: &str) -> Value {
    json!({
        "type": "string", "description": description,
        "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}],
    })
}

/// A Gateway API duration.
pub(super) fn duration(description: &str) -> Value {
    let mut schema = pattern(description, DURATION);
    schema["maxLength"] = LONGEST_DURATION.into();
    schema
}

/// One that is not 0.
pub(super) fn some_time(description: &str) -> Value {
    rule(
        duration(description),
        "duration(self) > duration('0s')",
        "expected a duration longer than 0",
    )
}
