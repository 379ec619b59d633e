//! A message to JSON, with the field names of the `.proto` files.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, Kind, MapKey, ReflectMessage, Value as Proto};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::descriptors;

/// A message of any kind, well-known types in their own forms.
pub(super) fn message(message: &DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    if descriptor.full_name() == "google.protobuf.Any" {
        let text = message.get_field_by_name("type_url");
        let bytes = message.get_field_by_name("value");
        let type_url = text.as_ref().and_then(|v| v.as_str()).unwrap_or_default();
        return any(type_url, bytes.as_ref().and_then(|v| v.as_bytes()).map_or(&[], |b| &b[..]));
    }
    if descriptor.package_name() == "google.protobuf" && descriptor.name() != "Empty" {
        // prost-reflect knows the special forms; a value out of range has none.
        return message.serialize(serde_json::value::Serializer).unwrap_or(Value::Null);
    }
    Value::Object(fields(message))
}

/// A packed message; an opaque one tells only its type and size.
pub(super) fn any(type_url: &str, bytes: &[u8]) -> Value {
    if type_url.is_empty() && bytes.is_empty() {
        return json!({});
    }
    let decoded = descriptors::by_type_url(type_url)
        .and_then(|descriptor| DynamicMessage::decode(descriptor, bytes).ok());
    let Some(content) = decoded else {
        return json!({"@type": type_url, "value": format!("[{} bytes]", bytes.len())});
    };
    let mut object = Map::new();
    object.insert("@type".into(), type_url.into());
    match message(&content) {
        Value::Object(inner)
            if content.descriptor().package_name() != "google.protobuf"
                || content.descriptor().name() == "Empty" =>
        {
            object.extend(inner);
        }
        other => {
            object.insert("value".into(), other);
        }
    }
    Value::Object(object)
}

fn fields(message: &DynamicMessage) -> Map<String, Value> {
    let mut object = Map::new();
    for (field, content) in message.fields() {
        let kind = match field.kind() {
            Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
            kind => kind,
        };
        object.insert(field.name().to_owned(), value(&kind, content));
    }
    object
}

fn value(kind: &Kind, content: &Proto) -> Value {
    match content {
        Proto::Bool(b) => json!(b),
        Proto::I32(i) => json!(i),
        Proto::U32(u) => json!(u),
        // The JSON mapping writes 64-bit numbers as strings, for readers that only have doubles.
        Proto::I64(i) => json!(i.to_string()),
        Proto::U64(u) => json!(u.to_string()),
        Proto::F32(f) => float(f64::from(*f)),
        Proto::F64(f) => float(*f),
        Proto::String(s) => json!(s),
        Proto::Bytes(b) => json!(STANDARD.encode(b)),
        Proto::EnumNumber(n) => match kind {
            Kind::Enum(e) => e.get_value(*n).map_or_else(|| json!(n), |v| json!(v.name())),
            _ => json!(n),
        },
        Proto::Message(m) => message(m),
        Proto::List(items) => items.iter().map(|item| value(kind, item)).collect(),
        Proto::Map(entries) => entries.iter().map(|(k, v)| (key(k), value(kind, v))).collect(),
    }
}

fn float(f: f64) -> Value {
    if f.is_nan() {
        json!("NaN")
    } else if f.is_infinite() {
        json!(if f > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        json!(f)
    }
}

fn key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(b) => b.to_string(),
        MapKey::I32(i) => i.to_string(),
        MapKey::I64(i) => i.to_string(),
        MapKey::U32(u) => u.to_string(),
        MapKey::U64(u) => u.to_string(),
        MapKey::String(s) => s.clone(),
    }
}
