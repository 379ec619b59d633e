//! Writes what `src/support/schema.rs` reads: every message and field as numbers, so that nothing has to be decoded,
//! and nothing be kept in memory, to look at a resource.

use std::error::Error;
use std::fmt::Write as _;

use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind,
    MessageDescriptor,
};

/// Marks, and what else is told of a field in one number: see `src/support/schema.rs`.
const REPEATED: u8 = 4;
const IMPLICIT: u8 = 8;
const MAP: u8 = 16;

/// The tables as Rust.
pub(crate) fn written(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let mut messages: Vec<MessageDescriptor> = pool.all_messages().collect();
    messages.sort_by(|a, b| a.full_name().cmp(b.full_name()));
    let option =
        |name: &str| pool.get_extension_by_name(name).ok_or("support.proto has no options");
    let field_option = option("pillion.support.v1.support")?;
    let message_option = option("pillion.support.v1.extension_support")?;
    let (mut names, mut rows, mut fields) = (String::new(), String::new(), String::new());
    let mut count = 0_u16;
    for message in &messages {
        let (at, length) = put(&mut names, message.full_name())?;
        let mark = mark_in(&message.options(), &message_option);
        let own = u8::try_from(message.fields().len())?;
        writeln!(rows, "M({at}, {length}, {count}, {own}, {mark}),")?;
        count = count.checked_add(u16::from(own)).ok_or("there are too many fields")?;
        let mut sorted: Vec<FieldDescriptor> = message.fields().collect();
        sorted.sort_by_key(FieldDescriptor::number);
        for field in sorted {
            let (at, length) = put(&mut names, field.name())?;
            let (kind, of) = kind(&field, &messages)?;
            let flags = flags(&field) | mark_in(&field.options(), &field_option);
            writeln!(fields, "F({}, {at}, {length}, {kind}, {of}, {flags}),", field.number())?;
        }
    }
    Ok(format!(
        "static NAMES: &str = {names:?};\nstatic MESSAGES: &[M] = &[\n{rows}];\nstatic FIELDS: &[F] = &[\n{fields}];\n"
    ))
}

/// Where a name is, after it was put there if it was not.
fn put(names: &mut String, name: &str) -> Result<(u32, u8), Box<dyn Error>> {
    let at = names.find(name).unwrap_or_else(|| {
        names.push_str(name);
        names.len() - name.len()
    });
    Ok((u32::try_from(at)?, u8::try_from(name.len())?))
}

/// How it is on the wire, and which message it is.
fn kind(
    field: &FieldDescriptor,
    messages: &[MessageDescriptor],
) -> Result<(u8, u16), Box<dyn Error>> {
    Ok(match field.kind() {
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => (1, 0),
        Kind::Fixed32 | Kind::Sfixed32 | Kind::Float => (2, 0),
        Kind::Bytes => (3, 0),
        Kind::String => (4, 0),
        Kind::Message(of) => {
            let of = messages.binary_search_by(|one| one.full_name().cmp(of.full_name()));
            (5, u16::try_from(of.map_err(|_| "a field of an unknown type")?)?)
        }
        Kind::Bool => (6, 0),
        Kind::Sint32 | Kind::Sint64 => (7, 0),
        Kind::Int32 | Kind::Int64 | Kind::Enum(_) => (8, 0),
        Kind::Uint32 | Kind::Uint64 => (0, 0),
    })
}

fn flags(field: &FieldDescriptor) -> u8 {
    let mut flags = 0;
    if field.cardinality() == Cardinality::Repeated {
        flags |= REPEATED;
    }
    if !field.supports_presence() {
        flags |= IMPLICIT;
    }
    if field.is_map() {
        flags |= MAP;
    }
    flags
}

fn mark_in(options: &DynamicMessage, option: &ExtensionDescriptor) -> u8 {
    if !options.has_extension(option) {
        return 0;
    }
    match options.get_extension(option).as_enum_number() {
        Some(number @ (1 | 2)) => u8::try_from(number).unwrap_or_default(),
        _ => 0,
    }
}
