//! Bootstraps put together from pieces of YAML.

use anyhow::Context;
use serde_json::Value;

/// Reads a piece of YAML.
///
/// # Errors
/// When it is none; the message has the text.
pub fn parse(text: &str) -> anyhow::Result<Value> {
    serde_saphyr::from_str(text).with_context(|| format!("not YAML: {text}"))
}

/// Lays `over` over `base`: objects are merged field by field, everything else is replaced.
pub fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match base.get_mut(&key) {
                    Some(old) => merge(old, value),
                    None => {
                        base.insert(key, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}
