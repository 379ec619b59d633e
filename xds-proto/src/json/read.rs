//! A tree of nodes to a message. Goes on after a problem, so that one run shows all of them.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use prost::Message;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

use super::node::{Node, Tree};
use super::{JsonError, Position, Problem, UnknownFields};
use crate::descriptors;

/// What reading yields beside problems.
pub(super) struct Read {
    pub(super) message: DynamicMessage,
    pub(super) unknown: Vec<Problem>,
    pub(super) places: HashMap<String, Position>,
}

/// Reads a whole document.
pub(super) fn read(
    descriptor: &MessageDescriptor,
    root: &Node,
    unknown: UnknownFields,
) -> Result<Read, JsonError> {
    let mut reader = Reader { policy: unknown, ..Reader::default() };
    let message = if matches!(root.tree, Tree::Null) {
        // An empty file is an empty message.
        Some(DynamicMessage::new(descriptor.clone()))
    } else {
        reader.message(descriptor, root)
    };
    match message {
        Some(message) if reader.problems.is_empty() => {
            Ok(Read { message, unknown: reader.unknown, places: reader.places })
        }
        _ => Err(JsonError { problems: reader.problems }),
    }
}

#[derive(Default)]
struct Reader {
    policy: UnknownFields,
    path: String,
    problems: Vec<Problem>,
    unknown: Vec<Problem>,
    places: HashMap<String, Position>,
}

impl Reader {
    /// Runs `f` with the path one step longer.
    fn within<T>(&mut self, step: &str, node: &Node, f: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.path.len();
        if before > 0 && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        if let Some(position) = node.position {
            self.places.insert(self.path.clone(), position);
        }
        let result = f(self);
        self.path.truncate(before);
        result
    }

    fn problem(&mut self, node: &Node, message: impl Into<String>) {
        self.problems.push(Problem {
            path: self.path.clone(),
            position: node.position,
            message: message.into(),
        });
    }

    fn expected<T>(&mut self, node: &Node, what: &str) -> Option<T> {
        self.problem(node, format!("expected {what}, got {}", node.kind()));
        None
    }

    /// Reads a message of any kind, well-known types included.
    fn message(&mut self, descriptor: &MessageDescriptor, node: &Node) -> Option<DynamicMessage> {
        match descriptor.full_name() {
            "google.protobuf.Any" => self.any(descriptor, node),
            "google.protobuf.Duration" => {
                self.well_known(descriptor, node, "a duration such as \"1.5s\"")
            }
            "google.protobuf.Timestamp" => {
                self.well_known(descriptor, node, "a time such as \"2025-01-31T12:00:00Z\"")
            }
            "google.protobuf.FieldMask" => {
                self.well_known(descriptor, node, "field names separated by commas")
            }
            "google.protobuf.Struct" => self.well_known(descriptor, node, "an object"),
            "google.protobuf.ListValue" => self.well_known(descriptor, node, "a list"),
            "google.protobuf.Value" => self.well_known(descriptor, node, "any value"),
            "google.protobuf.BoolValue"
            | "google.protobuf.BytesValue"
            | "google.protobuf.DoubleValue"
            | "google.protobuf.FloatValue"
            | "google.protobuf.Int32Value"
            | "google.protobuf.Int64Value"
            | "google.protobuf.StringValue"
            | "google.protobuf.UInt32Value"
            | "google.protobuf.UInt64Value" => self.wrapper(descriptor, node),
            _ => match &node.tree {
                Tree::Map(entries) => Some(self.fields(descriptor, entries)),
                _ => self.expected(node, "an object"),
            },
        }
    }

    /// Reads the fields of an ordinary message. Problems are noted; the rest is read all the same.
    fn fields(
        &mut self,
        descriptor: &MessageDescriptor,
        entries: &[(String, Node)],
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut seen: Vec<FieldDescriptor> = Vec::with_capacity(entries.len());
        for (key, node) in entries {
            let field = descriptor
                .get_field_by_name(key)
                .or_else(|| descriptor.get_field_by_json_name(key));
            let Some(field) = field else {
                if key != "@type" {
                    self.unknown_field(descriptor, key, node);
                }
                continue;
            };
            if matches!(node.tree, Tree::Null) && !takes_null(&field) {
                continue;
            }
            self.within(field.name(), node, |reader| {
                if let Some(reason) = conflict(&seen, &field) {
                    reader.problem(node, reason);
                } else if let Some(value) = reader.field(&field, node) {
                    message.set_field(&field, value);
                }
            });
            seen.push(field);
        }
        message
    }

    fn unknown_field(&mut self, descriptor: &MessageDescriptor, key: &str, node: &Node) {
        let known = nearest(descriptor, key)
            .map(|name| format!("; did you mean {name}?"))
            .unwrap_or_default();
        let message = format!("unknown field of {}{known}", descriptor.full_name());
        let policy = self.policy;
        self.within(key, node, |reader| {
            let list = match policy {
                UnknownFields::Refuse => &mut reader.problems,
                UnknownFields::List => &mut reader.unknown,
            };
            list.push(Problem { path: reader.path.clone(), position: node.position, message });
        });
    }

    fn field(&mut self, field: &FieldDescriptor, node: &Node) -> Option<Value> {
        if field.is_list() {
            let Tree::List(items) = &node.tree else { return self.expected(node, "a list") };
            let mut values = Vec::with_capacity(items.len());
            for (i, item) in items.iter().enumerate() {
                let value = self.within(&format!("[{i}]"), item, |r| r.value(&field.kind(), item));
                values.extend(value);
            }
            Some(Value::List(values))
        } else if field.is_map() {
            self.map(field, node)
        } else {
            self.value(&field.kind(), node)
        }
    }

    fn map(&mut self, field: &FieldDescriptor, node: &Node) -> Option<Value> {
        let Tree::Map(entries) = &node.tree else { return self.expected(node, "an object") };
        let Kind::Message(entry) = field.kind() else { return None };
        let (key_kind, value_kind) =
            (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut map = HashMap::with_capacity(entries.len());
        for (key, item) in entries {
            self.within(&format!("[\"{key}\"]"), item, |reader| {
                let Some(map_key) = map_key(&key_kind, key) else {
                    reader.problem(item, format!("expected a key of type {key_kind:?}"));
                    return;
                };
                if let Some(value) = reader.value(&value_kind, item) {
                    map.insert(map_key, value);
                }
            });
        }
        Some(Value::Map(map))
    }

    fn value(&mut self, kind: &Kind, node: &Node) -> Option<Value> {
        match kind {
            Kind::Message(descriptor) => self.message(descriptor, node).map(Value::Message),
            Kind::Enum(descriptor) => self.enumeration(descriptor, node),
            scalar => match scalar_value(scalar, &node.tree) {
                Ok(value) => Some(value),
                Err(what) => self.expected(node, what),
            },
        }
    }

    fn enumeration(&mut self, descriptor: &EnumDescriptor, node: &Node) -> Option<Value> {
        if descriptor.full_name() == "google.protobuf.NullValue" {
            return Some(Value::EnumNumber(0));
        }
        let found = match &node.tree {
            Tree::Text(name) => descriptor.get_value_by_name(name),
            Tree::Number(n) => {
                n.as_i64().and_then(|n| i32::try_from(n).ok()).and_then(|n| descriptor.get_value(n))
            }
            _ => None,
        };
        if let Some(value) = found {
            return Some(Value::EnumNumber(value.number()));
        }
        let names: Vec<String> = descriptor.values().map(|v| v.name().to_owned()).collect();
        let got = match &node.tree {
            Tree::Text(name) => format!("{name:?}"),
            _ => node.kind().to_owned(),
        };
        self.problem(node, format!("expected one of {}, got {got}", names.join(", ")));
        None
    }

    fn wrapper(&mut self, descriptor: &MessageDescriptor, node: &Node) -> Option<DynamicMessage> {
        let field = descriptor.get_field_by_name("value")?;
        let value = self.value(&field.kind(), node)?;
        let mut message = DynamicMessage::new(descriptor.clone());
        message.set_field(&field, value);
        Some(message)
    }

    /// Leaves the types whose JSON form is special to prost-reflect.
    fn well_known(
        &mut self,
        descriptor: &MessageDescriptor,
        node: &Node,
        what: &str,
    ) -> Option<DynamicMessage> {
        match DynamicMessage::deserialize(descriptor.clone(), node.to_value()) {
            Ok(message) => Some(message),
            // The error text may quote the value, so it stays out.
            Err(_) => self.expected(node, what),
        }
    }

    fn any(&mut self, descriptor: &MessageDescriptor, node: &Node) -> Option<DynamicMessage> {
        let Tree::Map(entries) = &node.tree else {
            return self.expected(node, "an object with \"@type\"");
        };
        let mut any = DynamicMessage::new(descriptor.clone());
        if entries.is_empty() {
            return Some(any);
        }
        let type_url = entries.iter().find_map(|(k, v)| match &v.tree {
            Tree::Text(url) if k == "@type" => Some(url.clone()),
            _ => None,
        });
        let Some(type_url) = type_url else {
            self.problem(node, "expected \"@type\" with the type URL of the packed message");
            return None;
        };
        if let Some(inner) = descriptors::by_type_url(&type_url) {
            let content = if has_special_form(&inner) {
                let value = entries.iter().find(|(k, _)| k == "value");
                let Some((_, value)) = value else {
                    return self.expected(node, "\"value\" beside \"@type\"");
                };
                self.within("value", value, |r| r.message(&inner, value))?
            } else {
                self.fields(&inner, entries)
            };
            any.set_field_by_name("value", Value::Bytes(content.encode_to_vec().into()));
        }
        any.set_field_by_name("type_url", Value::String(type_url));
        Some(any)
    }
}

/// Whether a packed message of this type stands under `value` instead of spreading its fields.
fn has_special_form(descriptor: &MessageDescriptor) -> bool {
    descriptor.package_name() == "google.protobuf" && descriptor.name() != "Empty"
}

fn takes_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(m) => m.full_name() == "google.protobuf.Value" && !field.is_list(),
        Kind::Enum(e) => e.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

/// Why `field` cannot be set beside those seen already.
fn conflict(seen: &[FieldDescriptor], field: &FieldDescriptor) -> Option<String> {
    if seen.contains(field) {
        return Some("is given twice".into());
    }
    let oneof = field.containing_oneof()?;
    let other = seen.iter().find(|f| f.containing_oneof().as_ref() == Some(&oneof))?;
    Some(format!("cannot be set together with {}", other.name()))
}

/// The field whose name is so close that it was probably meant.
fn nearest(descriptor: &MessageDescriptor, key: &str) -> Option<String> {
    let plain = |s: &str| s.replace(['_', '-'], "").to_ascii_lowercase();
    let wanted = plain(key);
    descriptor
        .fields()
        .map(|f| (distance(&plain(f.name()), &wanted), f.name().to_owned()))
        .min()
        .filter(|(distance, _)| *distance <= 1 + wanted.len() / 6)
        .map(|(_, name)| name)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn map_key(kind: &Kind, key: &str) -> Option<MapKey> {
    Some(match kind {
        Kind::String => MapKey::String(key.to_owned()),
        Kind::Bool => MapKey::Bool(key.parse().ok()?),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => MapKey::I32(key.parse().ok()?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => MapKey::I64(key.parse().ok()?),
        Kind::Uint32 | Kind::Fixed32 => MapKey::U32(key.parse().ok()?),
        Kind::Uint64 | Kind::Fixed64 => MapKey::U64(key.parse().ok()?),
        _ => return None,
    })
}

/// A scalar, or what was expected instead.
fn scalar_value(kind: &Kind, tree: &Tree) -> Result<Value, &'static str> {
    match kind {
        Kind::Bool => match tree {
            Tree::Bool(b) => Some(Value::Bool(*b)),
            Tree::Text(s) => yaml_boolean(s).map(Value::Bool),
            _ => None,
        }
        .ok_or("true or false"),
        Kind::String => match tree {
            Tree::Text(s) => Some(Value::String(s.clone())),
            _ => None,
        }
        .ok_or("a string (quote it)"),
        Kind::Bytes => match tree {
            Tree::Text(s) => decode_base64(s).map(|b| Value::Bytes(b.into())),
            _ => None,
        }
        .ok_or("bytes in base64"),
        Kind::Double => float(tree).map(Value::F64).ok_or("a number"),
        #[expect(clippy::cast_possible_truncation, reason = "a float field keeps 32 bits")]
        Kind::Float => float(tree).map(|f| Value::F32(f as f32)).ok_or("a number"),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer(tree)
            .and_then(|i| i32::try_from(i).ok())
            .map(Value::I32)
            .ok_or("a whole number of 32 bits"),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => integer(tree)
            .and_then(|i| i64::try_from(i).ok())
            .map(Value::I64)
            .ok_or("a whole number of 64 bits"),
        Kind::Uint32 | Kind::Fixed32 => integer(tree)
            .and_then(|i| u32::try_from(i).ok())
            .map(Value::U32)
            .ok_or("a whole number from 0 to 4294967295"),
        Kind::Uint64 | Kind::Fixed64 => integer(tree)
            .and_then(|i| u64::try_from(i).ok())
            .map(Value::U64)
            .ok_or("a whole number from 0 to 2^64-1"),
        Kind::Message(_) | Kind::Enum(_) => Err("a scalar"),
    }
}

/// YAML 1.1, which Envoy reads, has these spellings too.
fn yaml_boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "on" => Some(true),
        "no" | "off" => Some(false),
        _ => None,
    }
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD]
        .iter()
        .find_map(|engine| engine.decode(text).ok())
}

fn float(tree: &Tree) -> Option<f64> {
    match tree {
        Tree::Number(n) => n.as_f64(),
        Tree::Text(s) => match s.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => s.parse().ok().filter(|f: &f64| f.is_finite()),
        },
        _ => None,
    }
}

fn integer(tree: &Tree) -> Option<i128> {
    match tree {
        Tree::Number(n) => n
            .as_i64()
            .map(i128::from)
            .or_else(|| n.as_u64().map(i128::from))
            .or_else(|| n.as_f64().and_then(whole)),
        Tree::Text(s) => s.parse().ok(),
        _ => None,
    }
}

/// The mapping also takes `1e3` and `5.0` for whole numbers.
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
fn whole(f: f64) -> Option<i128> {
    (f.fract() == 0.0 && f.abs() < 9.0e15).then_some(f as i128)
}
