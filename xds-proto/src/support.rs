//! What Pillion does with each field: applied, refused, or harmless.
//!
//! The marks are options in the `.proto` files (`pillion.support.v1`). [`check`] finds what a
//! message sets that is refused; [`table`] lists every mark, for the published support table.

mod markdown;

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use prost::Name;
use prost_reflect::{
    DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value,
};
use prost_types::Any;

use crate::descriptors;
pub use markdown::markdown;

/// The mark of a field, or of a message as a packed extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mark {
    /// It has the effect that Envoy documents.
    #[default]
    Applied,
    /// Setting it is an error.
    Refused,
    /// It is read and ignored.
    Harmless,
}

/// Something in a message that Pillion does not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Path of the field, such as `filter_chains[0].filters[1].typed_config.stream_idle_timeout`.
    pub path: String,
    /// What was found there.
    pub kind: FindingKind,
    /// It stands in something marked `is_optional`, or in a list of load-balancing policies of
    /// which another one is supported: skip it instead of refusing the resource.
    pub optional: bool,
}

/// What a [`Finding`] is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindingKind {
    /// A field that is marked as refused is set.
    RefusedField,
    /// An extension of a type that is known and refused.
    RefusedExtension {
        /// Its type URL.
        type_url: String,
    },
    /// An extension of a type that is not known at all.
    UnknownExtension {
        /// Its type URL.
        type_url: String,
    },
    /// An extension whose bytes do not decode.
    MalformedExtension {
        /// Its type URL.
        type_url: String,
    },
    /// A field that our `.proto` files do not have.
    UnknownField {
        /// Its number.
        number: u32,
    },
}

impl Finding {
    /// Whether the resource has to be refused for it. Unknown fields are only worth a warning.
    pub fn refuses(&self) -> bool {
        !self.optional && !matches!(self.kind, FindingKind::UnknownField { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        match &self.kind {
            FindingKind::RefusedField => f.write_str("is not supported"),
            FindingKind::RefusedExtension { type_url } => {
                write!(f, "extension {} is not supported", crate::any::type_name(type_url))
            }
            FindingKind::UnknownExtension { type_url } => {
                write!(f, "unknown extension type {type_url:?}")
            }
            FindingKind::MalformedExtension { type_url } => {
                write!(f, "malformed {}", crate::any::type_name(type_url))
            }
            FindingKind::UnknownField { number } => write!(f, "unknown field number {number}"),
        }
    }
}

/// Everything in a typed message that Pillion does not apply, in field order. Fields that prost
/// does not know were dropped when the message was decoded; use [`check_any`] on received bytes
/// to see those too.
pub fn check<M: Name>(message: &M) -> Vec<Finding> {
    check_dynamic(&descriptors::to_dynamic(message))
}

/// [`check`] of a received resource, with its unknown fields.
pub fn check_any(resource: &Any) -> Vec<Finding> {
    let mut walk = Walk::default();
    walk.any(&resource.type_url, &resource.value);
    walk.findings
}

/// [`check`] of a message that is known only by its descriptor.
pub fn check_dynamic(message: &DynamicMessage) -> Vec<Finding> {
    let mut walk = Walk::default();
    walk.message(message);
    walk.findings
}

/// Paths of the fields of a received resource that our `.proto` files do not have, such as
/// `filter_chains[0].<field 99>`. Empty if the type itself is unknown.
pub fn unknown_fields(type_url: &str, bytes: &[u8]) -> Vec<String> {
    let mut walk = Walk::default();
    walk.any(type_url, bytes);
    let unknown = walk.findings.into_iter().filter_map(|finding| match finding.kind {
        FindingKind::UnknownField { .. } => Some(finding.path),
        _ => None,
    });
    unknown.collect()
}

/// One message of the support table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageSupport {
    /// Full name, such as `envoy.config.listener.v3.Listener`.
    pub name: String,
    /// File that defines it, relative to `proto/`.
    pub file: String,
    /// Its mark where it stands as a packed extension.
    pub extension: Mark,
    /// Its fields by number.
    pub fields: Vec<FieldSupport>,
}

/// One field of the support table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSupport {
    /// Name in the `.proto` file.
    pub name: String,
    /// Field number.
    pub number: u32,
    /// Type as one writes it: `string`, `envoy.config.core.v3.Address`, `map<string, bytes>`.
    pub type_name: String,
    /// Whether it is a list.
    pub repeated: bool,
    /// What Pillion does with it.
    pub mark: Mark,
}

/// Every message and field of Envoy's API that Pillion knows, with its mark, sorted by name.
pub fn table() -> Vec<MessageSupport> {
    let mut messages: Vec<MessageSupport> = descriptors::pool()
        .all_messages()
        .filter(|m| !m.is_map_entry() && !m.package_name().starts_with("google.protobuf"))
        .filter(|m| !m.package_name().starts_with("pillion."))
        .map(|m| MessageSupport {
            name: m.full_name().to_owned(),
            file: m.parent_file().name().to_owned(),
            extension: extension_mark(&m),
            fields: fields_of(&m),
        })
        .collect();
    messages.sort_by(|a, b| a.name.cmp(&b.name));
    messages
}

fn fields_of(message: &MessageDescriptor) -> Vec<FieldSupport> {
    let mut fields: Vec<FieldSupport> = message
        .fields()
        .map(|f| FieldSupport {
            name: f.name().to_owned(),
            number: f.number(),
            type_name: type_name(&f),
            repeated: f.is_list(),
            mark: field_mark(&f),
        })
        .collect();
    fields.sort_by_key(|f| f.number);
    fields
}

fn type_name(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => format!(
            "map<{}, {}>",
            type_name(&entry.map_entry_key_field()),
            type_name(&entry.map_entry_value_field())
        ),
        Kind::Message(m) => m.full_name().to_owned(),
        Kind::Enum(e) => e.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_ascii_lowercase(),
    }
}

/// The mark of a field.
pub fn field_mark(field: &FieldDescriptor) -> Mark {
    let message = field.parent_message();
    let of_message = MARKS.fields.get(message.full_name());
    of_message.and_then(|fields| fields.get(&field.number())).copied().unwrap_or_default()
}

/// The mark of a message as a packed extension.
pub fn extension_mark(message: &MessageDescriptor) -> Mark {
    MARKS.extensions.get(message.full_name()).copied().unwrap_or_default()
}

/// Marks other than [`Mark::Applied`].
struct Marks {
    fields: HashMap<String, HashMap<u32, Mark>>,
    extensions: HashMap<String, Mark>,
}

static MARKS: LazyLock<Marks> = LazyLock::new(|| {
    let option = |name: &str| {
        descriptors::pool().get_extension_by_name(name).expect("support.proto defines the options")
    };
    let field_option = option("pillion.support.v1.support");
    let message_option = option("pillion.support.v1.extension_support");
    let mut marks = Marks { fields: HashMap::new(), extensions: HashMap::new() };
    for message in descriptors::pool().all_messages() {
        if let Some(mark) = mark_in(&message.options(), &message_option) {
            marks.extensions.insert(message.full_name().to_owned(), mark);
        }
        let fields: HashMap<u32, Mark> = message
            .fields()
            .filter_map(|f| Some((f.number(), mark_in(&f.options(), &field_option)?)))
            .collect();
        if !fields.is_empty() {
            marks.fields.insert(message.full_name().to_owned(), fields);
        }
    }
    marks
});

fn mark_in(options: &DynamicMessage, option: &ExtensionDescriptor) -> Option<Mark> {
    if !options.has_extension(option) {
        return None;
    }
    match options.get_extension(option).as_enum_number()? {
        1 => Some(Mark::Refused),
        2 => Some(Mark::Harmless),
        _ => None,
    }
}

/// Extensions of these types are alternatives: the first supported one counts.
const ALTERNATIVES: &str = "envoy.config.cluster.v3.LoadBalancingPolicy";

#[derive(Default)]
struct Walk {
    path: String,
    optional: bool,
    findings: Vec<Finding>,
}

impl Walk {
    fn found(&mut self, kind: FindingKind) {
        self.findings.push(Finding { path: self.path.clone(), kind, optional: self.optional });
    }

    fn within(&mut self, step: &str, f: impl FnOnce(&mut Self)) {
        let before = self.path.len();
        if before > 0 && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        f(self);
        self.path.truncate(before);
    }

    fn message(&mut self, message: &DynamicMessage) {
        for unknown in message.unknown_fields() {
            let number = unknown.number();
            self.within(&format!("<field {number}>"), |walk| {
                walk.found(FindingKind::UnknownField { number });
            });
        }
        for (field, value) in message.fields() {
            self.within(field.name(), |walk| match field_mark(&field) {
                Mark::Refused => walk.found(FindingKind::RefusedField),
                Mark::Harmless => {}
                Mark::Applied => walk.value(value, is_optional(message)),
            });
        }
        if message.descriptor().full_name() == ALTERNATIVES {
            self.settle_alternatives(message);
        }
    }

    fn value(&mut self, value: &Value, optional: bool) {
        match value {
            Value::Message(message) => self.nested(message, optional),
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.within(&format!("[{i}]"), |walk| walk.value(item, optional));
                }
            }
            Value::Map(entries) => {
                let mut entries: Vec<(String, &Value)> =
                    entries.iter().map(|(key, value)| (map_key(key), value)).collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                for (key, item) in entries {
                    self.within(&format!("[{key}]"), |walk| walk.value(item, optional));
                }
            }
            _ => {}
        }
    }

    fn nested(&mut self, message: &DynamicMessage, optional: bool) {
        if message.descriptor().full_name() != "google.protobuf.Any" {
            return self.message(message);
        }
        let type_url = message.get_field_by_name("type_url");
        let bytes = message.get_field_by_name("value");
        let type_url = type_url.as_ref().and_then(|v| v.as_str()).unwrap_or_default();
        let bytes = bytes.as_ref().and_then(|v| v.as_bytes()).map_or(&[][..], |b| &b[..]);
        let outer = self.optional;
        self.optional |= optional;
        let known = self.extension(type_url, bytes);
        // A supported extension is refused for what it sets, whether or not it is optional.
        self.optional = outer;
        if let Some(content) = known {
            self.message(&content);
        }
    }

    /// Judges the type of an extension, and decodes it if it is supported.
    fn extension(&mut self, type_url: &str, bytes: &[u8]) -> Option<DynamicMessage> {
        let url = || type_url.to_owned();
        // Nothing is packed: `config: {}`.
        if type_url.is_empty() && bytes.is_empty() {
            return None;
        }
        let Some(descriptor) = descriptors::by_type_url(type_url) else {
            self.found(FindingKind::UnknownExtension { type_url: url() });
            return None;
        };
        match extension_mark(&descriptor) {
            Mark::Refused => {
                self.found(FindingKind::RefusedExtension { type_url: url() });
                None
            }
            Mark::Harmless => None,
            Mark::Applied => match DynamicMessage::decode(descriptor, bytes) {
                Ok(content) => Some(content),
                Err(_) => {
                    self.found(FindingKind::MalformedExtension { type_url: url() });
                    None
                }
            },
        }
    }

    fn any(&mut self, type_url: &str, bytes: &[u8]) {
        if let Some(content) = self.extension(type_url, bytes) {
            self.message(&content);
        }
    }

    /// Of alternatives only the first supported one has to be right.
    fn settle_alternatives(&mut self, message: &DynamicMessage) {
        let policies = message.get_field_by_name("policies");
        let count = policies.as_ref().and_then(|p| p.as_list()).map_or(0, <[Value]>::len);
        let dot = if self.path.is_empty() { "" } else { "." };
        let all = format!("{}{dot}policies[", self.path);
        let supported = |i: usize| {
            let extension = format!("{all}{i}].typed_extension_config.typed_config");
            !self.findings.iter().any(|f| f.path == extension)
        };
        let Some(chosen) = (0..count).find(|i| supported(*i)) else { return };
        let kept = format!("{all}{chosen}]");
        for finding in &mut self.findings {
            if finding.path.starts_with(&all) && !finding.path.starts_with(&kept) {
                finding.optional = true;
            }
        }
    }
}

fn is_optional(message: &DynamicMessage) -> bool {
    message.get_field_by_name("is_optional").is_some_and(|v| v.as_bool() == Some(true))
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::String(s) => format!("{s:?}"),
        MapKey::Bool(b) => b.to_string(),
        MapKey::I32(i) => i.to_string(),
        MapKey::I64(i) => i.to_string(),
        MapKey::U32(u) => u.to_string(),
        MapKey::U64(u) => u.to_string(),
    }
}

#[cfg(test)]
mod tests;
