//! Takes secrets out of JSON that people will see.

use serde_json::Value;

const REDACTED: &str = "[redacted]";

/// Fields whose whole content is secret, under their names in the `.proto` files.
const SECRET_FIELDS: &[&str] = &[
    "access_token",
    "authorization_token",
    "generic_secret",
    "google_refresh_token",
    "join_token",
    "json_key",
    // May hold shared secrets (`oct`).
    "local_jwks",
    "password",
    "pkcs12",
    "private_key",
    "session_ticket_keys",
    "token",
];

/// Parts of a data source that say where the secret is, not what it is.
const PLACES: &[&str] = &["@type", "environment_variable", "filename", "path", "watched_directory"];

/// Headers whose value is a credential.
const SECRET_HEADERS: &[&str] =
    &["authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key"];

/// Replaces private keys, passwords, tokens and credentials in headers by `[redacted]`, at any
/// depth. Names of files and of environment variables stay.
pub fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(entries) => {
            let credential =
                entries.get("key").and_then(Value::as_str).is_some_and(is_secret_header);
            for (name, content) in entries.iter_mut() {
                if SECRET_FIELDS.contains(&name.as_str())
                    || credential && (name == "value" || name == "raw_value")
                {
                    hide(content);
                } else {
                    redact(content);
                }
            }
        }
        _ => {}
    }
}

/// Whether the value of a header with this name is a credential.
pub(crate) fn is_secret_header(name: &str) -> bool {
    SECRET_HEADERS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

fn hide(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(entries) => entries
            .iter_mut()
            .filter(|(name, _)| !PLACES.contains(&name.as_str()))
            .for_each(|(_, content)| hide(content)),
        Value::Null => {}
        other => *other = REDACTED.into(),
    }
}
