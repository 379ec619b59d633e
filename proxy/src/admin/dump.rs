//! `/config_dump`: what of the whole dump is wanted.

use regex::Regex;
use serde_json::{Map, Value, json};

use http::StatusCode;

use super::answer::{Answer, Params};

/// The dump, narrowed by `include_eds`, `resource` and `name_regex` as Envoy does.
pub(super) fn answer(dump: Value, params: &Params) -> Answer {
    let name = match params.get("name_regex").map(Regex::new).transpose() {
        Ok(name) => name,
        Err(error) => return refused(format!("Invalid name_regex: {error}\n")),
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
        if configs.iter().any(|config| config[resource].is_object()) {
            let why = format!(
                "{resource} is not a repeated field. Use ?mask={resource} to get only this field"
            );
            return refused(why);
        }
        let Some(found) = resources(configs, resource) else {
            let why = format!("{resource} not found in config dump");
            return refused(why).with_status(StatusCode::NOT_FOUND);
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
    if let Some(mask) = params.get("mask") {
        let paths: Vec<Vec<&str>> =
            mask.split(',').map(|path| path.trim().split('.').collect()).collect();
        configs.iter_mut().for_each(|config| trim(config, &paths));
        // What has nothing of the mask says nothing.
        configs.retain(|config| config.as_object().is_some_and(|fields| !only_type(fields)));
        if configs.is_empty() {
            let why = format!("FieldMask {mask} could not be successfully applied to any configs.");
            return refused(why);
        }
    }
    if configs.is_empty() {
        return Answer::json(&json!({}));
    }
    configs.iter_mut().for_each(drop_empty);
    Answer::json(&json!({ "configs": configs }))
}

/// Without a character set, as Envoy's here.
fn refused(why: String) -> Answer {
    Answer { content_type: "text/plain", ..Answer::bad_request(why) }
}

/// Lists without elements are left out, as the JSON of protocol buffers has it.
fn drop_empty(config: &mut Value) {
    if let Some(fields) = config.as_object_mut() {
        fields.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    }
}

fn only_type(fields: &Map<String, Value>) -> bool {
    fields.keys().all(|key| key == "@type")
}

/// Keeps what a field mask names (`google.protobuf.FieldMask`); lists are gone through.
fn trim(value: &mut Value, paths: &[Vec<&str>]) {
    if paths.iter().any(Vec::is_empty) {
        return;
    }
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(|element| trim(element, paths)),
        Value::Object(fields) => {
            fields.retain(|key, _| key == "@type" || paths.iter().any(|path| path[0] == key));
            for (key, inner) in fields.iter_mut().filter(|(key, _)| *key != "@type") {
                let of_field = paths.iter().filter(|path| path[0] == key);
                let rest: Vec<Vec<&str>> = of_field.map(|path| path[1..].to_vec()).collect();
                trim(inner, &rest);
            }
        }
        _ => {}
    }
}

fn is_endpoints(config: &Value) -> bool {
    config["@type"].as_str().is_some_and(|kind| kind.ends_with(".EndpointsConfigDump"))
}

/// All elements of the lists under this field, each with its type; None if no dump has such a list.
fn resources(configs: Vec<Value>, field: &str) -> Option<Vec<Value>> {
    let mut found = None;
    for config in configs {
        if let Value::Object(mut config) = config
            && let Some(Value::Array(elements)) = config.remove(field)
        {
            let kind = config.get("@type").and_then(Value::as_str).zip(message(field));
            let kind = kind.map(|(dump, message)| Value::from(format!("{dump}.{message}")));
            let typed = elements.into_iter().map(|mut element| {
                if let (Some(fields), Some(kind)) = (element.as_object_mut(), &kind) {
                    fields.insert("@type".to_owned(), kind.clone());
                }
                element
            });
            found.get_or_insert_with(Vec::new).extend(typed);
        }
    }
    found
}

/// Which message of a dump stands in a list of it.
fn message(field: &str) -> Option<&'static str> {
    Some(match field {
        "static_clusters" => "StaticCluster",
        "dynamic_active_clusters" | "dynamic_warming_clusters" => "DynamicCluster",
        "static_listeners" => "StaticListener",
        "dynamic_listeners" => "DynamicListener",
        "static_route_configs" => "StaticRouteConfig",
        "dynamic_route_configs" => "DynamicRouteConfig",
        "static_endpoint_configs" => "StaticEndpointConfig",
        "dynamic_endpoint_configs" => "DynamicEndpointConfig",
        "static_secrets" => "StaticSecret",
        "dynamic_active_secrets" | "dynamic_warming_secrets" => "DynamicSecret",
        "ecds_filters" => "EcdsFilterConfig",
        _ => return None,
    })
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
