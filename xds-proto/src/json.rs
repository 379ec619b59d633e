//! YAML and JSON text to messages and back, by the protobuf JSON mapping.
//!
//! Reading takes both spellings of a field name (`connect_timeout` and `connectTimeout`), packed
//! extensions as objects with `@type`, durations as `1.5s`. Every problem carries the path of its
//! field and, for YAML and for JSON that is also YAML, its line and column. Problems never quote
//! values (they may be secret), except the names of enum values.

mod node;
mod read;
mod redact;
mod write;

use std::collections::HashMap;
use std::fmt;

use prost::Name;
use prost_reflect::DynamicMessage;
use serde_json::Value;

use crate::descriptors;

pub(crate) use redact::is_secret_header;
pub use redact::redact;

/// A place in a text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column, in characters.
    pub column: u64,
}

/// One thing that is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, such as `static_resources.clusters[0].connect_timeout`; empty for the
    /// document itself.
    pub path: String,
    /// Where it stands in the text, if that is known.
    pub position: Option<Position>,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.position {
            write!(f, "line {line} column {column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Why a text is not the message that it should be: all problems, in the order of the text's
/// structure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct JsonError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// What to do with fields that the message does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownFields {
    /// Each is a problem. Envoy's habit for a static bootstrap, and the default.
    #[default]
    Refuse,
    /// Each is skipped and listed in [`Parsed::unknown`].
    List,
}

/// A message and what is known about the text it came from.
#[derive(Debug, Clone)]
pub struct Parsed<M> {
    /// The message.
    pub message: M,
    /// Fields that were skipped under [`UnknownFields::List`].
    pub unknown: Vec<Problem>,
    /// Where each field stands.
    pub places: Places,
}

/// Positions of the fields of a text, by path.
#[derive(Debug, Clone, Default)]
pub struct Places {
    by_path: HashMap<String, Position>,
}

impl Places {
    /// The position of a field, or else of the nearest field around it.
    pub fn find(&self, path: &str) -> Option<Position> {
        let mut path = path;
        loop {
            if let Some(position) = self.by_path.get(path) {
                return Some(*position);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// Reads one message from YAML or JSON text. Unknown fields are problems.
pub fn from_text<M: Name + Default>(text: &str) -> Result<M, JsonError> {
    parse(text, UnknownFields::Refuse).map(|parsed| parsed.message)
}

/// Reads one message from YAML or JSON text.
///
/// A packed extension whose type is not known here is kept with its type URL and without content;
/// [`crate::support::check`] finds it, and so can its owner skip it if it is optional.
pub fn parse<M>(text: &str, unknown: UnknownFields) -> Result<Parsed<M>, JsonError>
where
    M: Name + Default,
{
    let root = node::from_text(text).map_err(|p| JsonError { problems: vec![p] })?;
    finish(read::read(&descriptors::of::<M>(), &root, unknown)?)
}

/// Reads one message from a JSON value; problems have paths, but no positions.
pub fn from_value<M: Name + Default>(value: &Value) -> Result<M, JsonError> {
    let root = node::from_value(value);
    let read = read::read(&descriptors::of::<M>(), &root, UnknownFields::Refuse)?;
    finish(read).map(|parsed| parsed.message)
}

fn finish<M: Name + Default>(read: read::Read) -> Result<Parsed<M>, JsonError> {
    let message = read.message.transcode_to().map_err(|error| JsonError {
        problems: vec![Problem {
            path: String::new(),
            position: None,
            message: format!("cannot be represented: {error}"),
        }],
    })?;
    Ok(Parsed { message, unknown: read.unknown, places: Places { by_path: read.places } })
}

/// A message as JSON with the field names of the `.proto` files, as Envoy's dumps have them.
/// Fields that are not set are left out. Secrets are in it: see [`to_redacted_json`].
pub fn to_json<M: Name>(message: &M) -> Value {
    dynamic_to_json(&descriptors::to_dynamic(message))
}

/// [`to_json`] without secrets: for logs, dumps and answers of the administration endpoint.
pub fn to_redacted_json<M: Name>(message: &M) -> Value {
    let mut value = to_json(message);
    redact(&mut value);
    value
}

/// [`to_json`] of a message that is known only by its descriptor.
pub fn dynamic_to_json(message: &DynamicMessage) -> Value {
    write::message(message)
}

/// A packed message as JSON with `@type`. A type that is not known here, or damaged bytes, give an
/// object that tells only the type and the size.
pub fn any_to_json(any: &prost_types::Any) -> Value {
    write::any(&any.type_url, &any.value)
}

#[cfg(test)]
mod tests;
