//! What Pillion does with each field: applied, refused, or harmless.
//!
//! The marks are options in the `.proto` files (`pillion.support.v1`). [`check`] finds what a
//! message sets that is refused; [`table`] lists every mark, for the published support table.

mod markdown;
mod schema;
mod walk;
mod wire;

use std::fmt;

use prost::Name;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use prost_types::Any;

use crate::descriptors;
pub use markdown::markdown;
use walk::Walk;

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
    let mut walk = Walk::default();
    if let Some(of) = schema::Message::by_name(&M::full_name())
        && walk.whole(of, &message.encode_to_vec()).is_err()
    {
        // What was just encoded by the same schema is well-formed.
        walk.findings.clear();
    }
    walk.findings
}

/// [`check`] of a received resource, with its unknown fields.
pub fn check_any(resource: &Any) -> Vec<Finding> {
    let mut walk = Walk::default();
    walk.any(&resource.type_url, &resource.value);
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
    let message = schema::Message::by_name(field.parent_message().full_name());
    let known = message.and_then(|message| message.field(field.number()));
    known.map_or(Mark::Applied, schema::Field::mark)
}

/// The mark of a message as a packed extension.
pub fn extension_mark(message: &MessageDescriptor) -> Mark {
    schema::Message::by_name(message.full_name()).map_or(Mark::Applied, schema::Message::mark)
}

#[cfg(test)]
mod tests;
