//! JSON as YAML that readers of YAML 1.1 and 1.2 understand alike.

use std::fmt::Write as _;

use serde_json::Value;

/// One document, without its `---`.
#[must_use]
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// Writes at the start of a line that is indented already.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (index, (key, value)) in fields.iter().enumerate() {
                pad(index, indent, text);
                let _ = write!(text, "{}:", scalar(key));
                if is_block(value) {
                    // Lists stand at the depth of their key, as kubectl writes them.
                    let deeper = if value.is_array() { indent } else { indent + 2 };
                    let _ = write!(text, "\n{:deeper$}", "");
                    block(value, deeper, text);
                } else {
                    text.push(' ');
                    block(value, indent, text);
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                pad(index, indent, text);
                text.push_str("- ");
                block(item, indent + 2, text);
            }
        }
        Value::String(string) => {
            text.push_str(&scalar(string));
            text.push('\n');
        }
        other => {
            let _ = writeln!(text, "{other}");
        }
    }
}

fn pad(index: usize, indent: usize, text: &mut String) {
    if index > 0 {
        let _ = write!(text, "{:indent$}", "");
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// Plain where nobody can take it for anything but a string, else in double quotes, which YAML has from JSON.
fn scalar(string: &str) -> String {
    let first = string.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let rest = string.chars().all(|c| c.is_ascii_alphanumeric() || "/_.-".contains(c));
    let lower = string.to_ascii_lowercase();
    let word =
        ["y", "n", "yes", "no", "on", "off", "true", "false", "null"].contains(&lower.as_str());
    if first && rest && !word { string.to_owned() } else { Value::from(string).to_string() }
}
