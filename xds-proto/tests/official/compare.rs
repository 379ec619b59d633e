//! Our descriptors held against the official ones. Ours may have fewer messages, fields and
//! methods; what is there has to be the same.

use std::collections::{BTreeMap, HashMap};

use prost_types::field_descriptor_proto::Type;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
};

/// Every definition by full name, with the file that holds it.
#[derive(Default)]
struct Index<'a> {
    messages: HashMap<String, (&'a str, &'a DescriptorProto)>,
    enums: HashMap<String, (&'a str, &'a EnumDescriptorProto)>,
    services: HashMap<String, (&'a str, &'a ServiceDescriptorProto)>,
}

impl<'a> Index<'a> {
    fn of(set: &'a FileDescriptorSet) -> Self {
        let mut index = Self::default();
        for file in &set.file {
            let (name, package) = (file.name(), file.package());
            for e in &file.enum_type {
                index.enums.insert(format!("{package}.{}", e.name()), (name, e));
            }
            for service in &file.service {
                index.services.insert(format!("{package}.{}", service.name()), (name, service));
            }
            for message in &file.message_type {
                index.message(name, package, message);
            }
        }
        index
    }

    fn message(&mut self, file: &'a str, scope: &str, message: &'a DescriptorProto) {
        let full = format!("{scope}.{}", message.name());
        for e in &message.enum_type {
            self.enums.insert(format!("{full}.{}", e.name()), (file, e));
        }
        for nested in &message.nested_type {
            self.message(file, &full, nested);
        }
        self.messages.insert(full, (file, message));
    }
}

/// How much was compared, so that a test can tell an empty comparison from a clean one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) messages: usize,
    pub(crate) fields: usize,
    pub(crate) enums: usize,
    pub(crate) services: usize,
}

/// All differences, sorted, and how much was looked at.
pub(crate) fn differences(
    ours: &FileDescriptorSet,
    official: &FileDescriptorSet,
) -> (Vec<String>, Counts) {
    let (mine, theirs) = (Index::of(ours), Index::of(official));
    let mut found = Vec::new();
    let mut counts = Counts::default();
    let syntax: HashMap<&str, &FileDescriptorProto> =
        official.file.iter().map(|f| (f.name(), f)).collect();
    for file in &ours.file {
        match syntax.get(file.name()) {
            None => found.push(format!("{}: no such file", file.name())),
            Some(other) => {
                let place = file.name().to_owned();
                differ(&mut found, &place, "package", file.package(), other.package());
                differ(&mut found, &place, "syntax", file.syntax(), other.syntax());
            }
        }
    }
    for (name, (file, message)) in &mine.messages {
        counts.messages += 1;
        counts.fields += message.field.len();
        let Some((other_file, other)) = theirs.messages.get(name) else {
            found.push(format!("{name}: no such message"));
            continue;
        };
        differ(&mut found, name, "file", *file, *other_file);
        compare_message(name, message, other, &mut found);
    }
    for (name, (_, e)) in &mine.enums {
        counts.enums += 1;
        match theirs.enums.get(name) {
            None => found.push(format!("{name}: no such enum")),
            Some((_, other)) => differ(&mut found, name, "values", values(e), values(other)),
        }
    }
    for (name, (_, service)) in &mine.services {
        counts.services += 1;
        match theirs.services.get(name) {
            None => found.push(format!("{name}: no such service")),
            Some((_, other)) => compare_service(name, service, other, &mut found),
        }
    }
    found.sort();
    (found, counts)
}

fn differ<T: PartialEq + std::fmt::Debug>(
    found: &mut Vec<String>,
    place: &str,
    what: &str,
    ours: T,
    official: T,
) {
    if ours != official {
        found.push(format!("{place}: {what} is {ours:?}, officially {official:?}"));
    }
}

fn compare_message(
    name: &str,
    ours: &DescriptorProto,
    official: &DescriptorProto,
    found: &mut Vec<String>,
) {
    let is_map = |m: &DescriptorProto| m.options.as_ref().is_some_and(|o| o.map_entry());
    differ(found, name, "map entry", is_map(ours), is_map(official));
    for field in &ours.field {
        let place = format!("{name}.{}", field.name());
        let Some(other) = official.field.iter().find(|f| f.name() == field.name()) else {
            found.push(format!("{place}: no such field"));
            continue;
        };
        differ(found, &place, "number", field.number(), other.number());
        differ(found, &place, "type", field.r#type(), other.r#type());
        if matches!(field.r#type(), Type::Message | Type::Enum) {
            differ(found, &place, "type name", field.type_name(), other.type_name());
        }
        differ(found, &place, "label", field.label(), other.label());
        differ(found, &place, "oneof", oneof(ours, field), oneof(official, other));
        differ(found, &place, "optional", field.proto3_optional(), other.proto3_optional());
        differ(found, &place, "JSON name", json_name(field), json_name(other));
    }
}

/// The oneof that a field stands in; those that `optional` makes do not count.
fn oneof<'a>(message: &'a DescriptorProto, field: &FieldDescriptorProto) -> Option<&'a str> {
    if field.proto3_optional() {
        return None;
    }
    let index = usize::try_from(field.oneof_index?).ok()?;
    message.oneof_decl.get(index).map(prost_types::OneofDescriptorProto::name)
}

/// The name in JSON; descriptors may leave the usual one out.
fn json_name(field: &FieldDescriptorProto) -> String {
    if let Some(name) = &field.json_name {
        return name.clone();
    }
    let mut name = String::new();
    let mut upper = false;
    for c in field.name().chars() {
        if c == '_' {
            upper = true;
        } else {
            name.push(if upper { c.to_ascii_uppercase() } else { c });
            upper = false;
        }
    }
    name
}

fn values(e: &EnumDescriptorProto) -> BTreeMap<&str, i32> {
    e.value.iter().map(|v| (v.name(), v.number())).collect()
}

fn compare_service(
    name: &str,
    ours: &ServiceDescriptorProto,
    official: &ServiceDescriptorProto,
    found: &mut Vec<String>,
) {
    for method in &ours.method {
        let place = format!("{name}.{}", method.name());
        let Some(other) = official.method.iter().find(|m| m.name() == method.name()) else {
            found.push(format!("{place}: no such method"));
            continue;
        };
        differ(found, &place, "request", method.input_type(), other.input_type());
        differ(found, &place, "response", method.output_type(), other.output_type());
        let (up, other_up) = (method.client_streaming(), other.client_streaming());
        differ(found, &place, "request stream", up, other_up);
        let (down, other_down) = (method.server_streaming(), other.server_streaming());
        differ(found, &place, "response stream", down, other_down);
    }
}
