//! `/config_dump`: what of the whole dump is wanted.

use regex::Regex;
use serde_json::{Map, Value, json};

use super::answer::{Answer, Params};
use http::StatusCode;

/// The dump, narrowed by `include_eds`, `resource` and `name_regex` as Envoy does.
pub(super) fn answer(dump: Value, params: &Params) -> Answer {
    if params.has("mask") {
        return Answer::bad_request("mask is not supported: use resource and name_regex\n");
    }
    let name = match params.get("name_regex").map(Regex::new).transpose() {
        Ok(name) => name,
        Err(error) => return Answer::bad_request(format!("Invalid name_regex: {error}\n")),
    };
    let mut configs = match dump {
        Value::Object(mut dump) => match dump.remove("configs") {
            Some(Value::Array(configs)) => configs,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    if !params.has("include_eds") {
        configs.retain(|config| !is_endpoints(config));
    }
    if let Some(resource) = params.get("resource") {
        let Some(found) = resources(configs, resource) else {
            let why = format!("{resource} not found in config dump\n");
            return Answer::text(why).with_status(StatusCode::NOT_FOUND);
        };
        configs = found;
        if let Some(name) = &name {
            configs.retain(|config| has_name(config, name));
        }
    } else if let Some(name) = &name {
        for config in &mut configs {
            retain_named(config, name);
        }
    }
    Answer::json(&json!({ "configs": configs }))
}

fn is_endpoints(config: &Value) -> bool {
    config["@type"].as_str().is_some_and(|kind| kind.ends_with(".EndpointsConfigDump"))
}

/// All elements of the lists under this field; None if no dump has such a list.
fn resources(configs: Vec<Value>, field: &str) -> Option<Vec<Value>> {
    let mut found = None;
    for config in configs {
        if let Value::Object(mut config) = config
            && let Some(Value::Array(elements)) = config.remove(field)
        {
            found.get_or_insert_with(Vec::new).extend(elements);
        }
    }
    found
}

fn retain_named(config: &mut Value, name: &Regex) {
    let fields = config.as_object_mut().into_iter().flat_map(Map::values_mut);
    for list in fields.filter_map(Value::as_array_mut) {
        list.retain(|element| has_name(element, name));
    }
}

/// A resource has its name on top, or in the configuration (or state) that it wraps.
fn has_name(element: &Value, name: &Regex) -> bool {
    let own = |value: &Value| {
        ["name", "cluster_name"]
            .iter()
            .any(|key| value[key].as_str().is_some_and(|text| name.is_match(text)))
    };
    own(element) || element.as_object().is_some_and(|fields| fields.values().any(own))
}
