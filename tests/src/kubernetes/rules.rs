//! What kube-apiserver refuses of a status, whoever writes it (422): `metav1.Condition`, and the limits of the Gateway
//! API's own lists.

use serde_json::Value;

/// Longest message and reason (`metav1.Condition`).
const MAX_MESSAGE: usize = 32_768;
const MAX_REASON: usize = 1024;
/// Most entries of a list: conditions (Gateway API, all of its kinds), listeners, parents, addresses.
const MAX_CONDITIONS: usize = 8;
const LISTS: [(&str, usize); 3] = [("listeners", 64), ("parents", 32), ("addresses", 16)];

/// What is wrong with the status of an object.
pub(super) fn wrong_status(object: &Value) -> Option<String> {
    let status = &object["status"];
    for (name, most) in LISTS {
        let count = status[name].as_array().map_or(0, Vec::len);
        if count > most {
            return Some(format!("status.{name}: {count} entries, at most {most}"));
        }
    }
    for address in status["addresses"].as_array().into_iter().flatten() {
        let known = matches!(address["type"].as_str(), Some("IPAddress" | "Hostname"));
        let value = address["value"].as_str().is_some_and(|value| !value.is_empty());
        if !known || !value {
            return Some(format!("status.addresses: {address}"));
        }
    }
    if let Some(wrong) = listeners(status) {
        return Some(wrong);
    }
    all_conditions(status).into_iter().find_map(|list| conditions(list))
}

/// `ListenerStatus`
fn listeners(status: &Value) -> Option<String> {
    let all = status["listeners"].as_array().into_iter().flatten();
    all.into_iter().find_map(|one| {
        let whole = one["name"].is_string()
            && one["attachedRoutes"].is_u64()
            && one["conditions"].is_array()
            && one["supportedKinds"].is_array();
        (!whole).then(|| format!("status.listeners: {one}"))
    })
}

/// Every list of conditions, wherever it stands.
fn all_conditions(value: &Value) -> Vec<&Vec<Value>> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, inner)| match inner.as_array() {
                Some(list) if name == "conditions" => vec![list],
                _ => all_conditions(inner),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(all_conditions).collect(),
        _ => Vec::new(),
    }
}

fn conditions(list: &[Value]) -> Option<String> {
    if list.len() > MAX_CONDITIONS {
        return Some(format!("{} conditions, at most {MAX_CONDITIONS}", list.len()));
    }
    let mut types: Vec<&str> = list.iter().filter_map(|one| one["type"].as_str()).collect();
    types.sort_unstable();
    if types.windows(2).any(|two| two[0] == two[1]) {
        return Some(format!("a condition stands there twice: {types:?}"));
    }
    let bad = list.iter().find(|one| !is_condition(one))?;
    Some(format!("no condition: {bad}"))
}

fn is_condition(one: &Value) -> bool {
    let text = |name: &str| one[name].as_str().unwrap_or_default();
    let (reason, kind) = (text("reason"), text("type"));
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_,:".contains(&byte);
    let fields =
        ["type", "status", "observedGeneration", "lastTransitionTime", "reason", "message"];
    let known = |name: &String| fields.contains(&name.as_str());
    one.as_object().is_some_and(|all| all.keys().all(known))
        && !kind.is_empty()
        && kind.len() <= 316
        && matches!(text("status"), "True" | "False" | "Unknown")
        && one["message"].as_str().is_some_and(|message| message.len() <= MAX_MESSAGE)
        && reason.len() <= MAX_REASON
        && reason.starts_with(|first: char| first.is_ascii_alphabetic())
        && reason.bytes().all(word)
        && !reason.ends_with([',', ':'])
        && is_time(text("lastTransitionTime"))
        && one["observedGeneration"].as_i64().is_none_or(|number| number >= 0)
}

/// `2026-01-02T03:04:05Z`
fn is_time(text: &str) -> bool {
    text.len() == 20
        && text.bytes().zip("0000-00-00T00:00:00Z".bytes()).all(|(is, form)| match form {
            b'0' => is.is_ascii_digit(),
            other => is == other,
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_that_the_real_one_would_refuse_is_seen() {
        let good = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-02T03:04:05Z", "observedGeneration": 1});
        let status = |one: &Value| json!({"status": {"parents": [{"conditions": [one]}]}});
        assert_eq!(wrong_status(&status(&good)), None);
        for (field, bad) in [
            ("status", json!("yes")),
            ("reason", json!("")),
            ("reason", json!("not a word")),
            ("message", Value::Null),
            ("lastTransitionTime", json!("today")),
            ("observedGeneration", json!(-1)),
            ("odd", json!(1)),
        ] {
            let mut one = good.clone();
            one[field] = bad;
            assert!(wrong_status(&status(&one)).is_some(), "{one}");
        }
        let twice = json!({"status": {"conditions": [good, good]}});
        assert!(wrong_status(&twice).is_some());
    }
}
