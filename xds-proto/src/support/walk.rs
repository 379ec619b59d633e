//! Finds what a resource sets that Pillion does not apply.

use std::borrow::Cow;

use super::schema::{Field, Kind, Message};
use super::wire::{self, Content, Malformed, Value};
use super::{Finding, FindingKind, Mark};

/// Extensions of these types are alternatives: the first supported one counts.
const ALTERNATIVES: &str = "envoy.config.cluster.v3.LoadBalancingPolicy";
const ANY: &str = "google.protobuf.Any";

#[derive(Default)]
pub(super) struct Walk {
    path: String,
    optional: bool,
    pub(super) findings: Vec<Finding>,
}

impl Walk {
    fn found(&mut self, kind: FindingKind) {
        self.findings.push(Finding { path: self.path.clone(), kind, optional: self.optional });
    }

    fn within<T>(&mut self, step: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.path.len();
        if before > 0 && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        let result = f(self);
        self.path.truncate(before);
        result
    }

    /// A packed message.
    pub(super) fn any(&mut self, type_url: &str, bytes: &[u8]) {
        let Some(of) = self.extension(type_url, bytes) else { return };
        if self.whole(of, bytes).is_err() {
            self.found(FindingKind::MalformedExtension { type_url: type_url.to_owned() });
        }
    }

    /// Judges the type of an extension. Some: its content is to be looked at.
    fn extension(&mut self, type_url: &str, bytes: &[u8]) -> Option<Message> {
        let url = || type_url.to_owned();
        // Nothing is packed: `config: {}`.
        if type_url.is_empty() && bytes.is_empty() {
            return None;
        }
        let Some(of) = Message::by_name(crate::any::type_name(type_url)) else {
            self.found(FindingKind::UnknownExtension { type_url: url() });
            return None;
        };
        match of.mark() {
            Mark::Refused => {
                self.found(FindingKind::RefusedExtension { type_url: url() });
                None
            }
            Mark::Harmless => None,
            Mark::Applied => Some(of),
        }
    }

    /// A message whose type is known. It is seen to be well-formed before anything is said about it.
    pub(super) fn whole(&mut self, of: Message, bytes: &[u8]) -> Result<(), Malformed> {
        wire::check(of, bytes)?;
        self.message(of, bytes)
    }

    fn message(&mut self, of: Message, bytes: &[u8]) -> Result<(), Malformed> {
        let content = wire::content(of, bytes)?;
        for number in &content.unknown {
            self.within(&format!("<field {number}>"), |walk| {
                walk.found(FindingKind::UnknownField { number: *number });
            });
        }
        let optional = is_optional(of, &content);
        for values in content.known.chunk_by(|(one, _), (other, _)| one == other) {
            let Some(field) = values.first().and_then(|(number, _)| of.field(*number)) else {
                continue;
            };
            self.within(field.name(), |walk| match field.mark() {
                Mark::Refused => {
                    walk.found(FindingKind::RefusedField);
                    Ok(())
                }
                Mark::Harmless => Ok(()),
                Mark::Applied => walk.values(field, values, optional),
            })?;
        }
        if of.name() == ALTERNATIVES {
            let policies = of.fields().find(|field| field.name() == "policies");
            let count = |field: Field| {
                content.known.iter().filter(|(number, _)| *number == field.number()).count()
            };
            self.settle_alternatives(policies.map_or(0, count));
        }
        Ok(())
    }

    /// All values of a field.
    fn values(
        &mut self,
        field: Field,
        values: &[(u32, Value<'_>)],
        optional: bool,
    ) -> Result<(), Malformed> {
        let Kind::Message(of) = field.kind() else { return Ok(()) };
        let bytes = values.iter().filter_map(|(_, value)| match value {
            Value::Bytes(bytes) => Some(*bytes),
            _ => None,
        });
        if field.is_map() {
            return self.map(of, bytes, optional);
        }
        if field.is_repeated() {
            for (at, one) in bytes.enumerate() {
                self.within(&format!("[{at}]"), |walk| walk.nested(of, one, optional))?;
            }
            return Ok(());
        }
        // A message that comes in pieces is all of them (Protocol Buffers: "Last One Wins").
        let pieces: Vec<&[u8]> = bytes.collect();
        let whole = match pieces.as_slice() {
            [one] => Cow::Borrowed(*one),
            _ => Cow::Owned(pieces.concat()),
        };
        self.nested(of, &whole, optional)
    }

    fn map<'b>(
        &mut self,
        entry: Message,
        entries: impl Iterator<Item = &'b [u8]>,
        optional: bool,
    ) -> Result<(), Malformed> {
        let (Some(key), Some(value)) = (entry.field(1), entry.field(2)) else { return Ok(()) };
        let Kind::Message(of) = value.kind() else { return Ok(()) };
        let mut items: Vec<(String, &[u8])> = Vec::new();
        for bytes in entries {
            let content = wire::content(entry, bytes)?;
            let last = |number: u32| {
                content.known.iter().rev().find(|(of, _)| *of == number).map(|(_, value)| *value)
            };
            let content = match last(2) {
                Some(Value::Bytes(bytes)) => bytes,
                _ => &[],
            };
            let key = key_text(key, last(1));
            // The last of several with the same key counts.
            items.retain(|(other, _)| *other != key);
            items.push((key, content));
        }
        items.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, bytes) in items {
            self.within(&format!("[{key}]"), |walk| walk.nested(of, bytes, optional))?;
        }
        Ok(())
    }

    fn nested(&mut self, of: Message, bytes: &[u8], optional: bool) -> Result<(), Malformed> {
        if of.name() != ANY {
            return self.message(of, bytes);
        }
        let content = wire::content(of, bytes)?;
        let last = |number: u32| {
            content.known.iter().rev().find_map(|(of, value)| match value {
                Value::Bytes(bytes) if *of == number => Some(*bytes),
                _ => None,
            })
        };
        let type_url =
            last(1).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
        let packed = last(2).unwrap_or_default();
        let outer = self.optional;
        self.optional |= optional;
        let known = self.extension(type_url, packed);
        // What it is is judged with `is_optional`; what a supported one sets is not.
        let inner = std::mem::replace(&mut self.optional, outer);
        let Some(known) = known else { return Ok(()) };
        if self.whole(known, packed).is_err() {
            self.optional = inner;
            self.found(FindingKind::MalformedExtension { type_url: type_url.to_owned() });
            self.optional = outer;
        }
        Ok(())
    }

    /// Of alternatives only the first supported one has to be right.
    fn settle_alternatives(&mut self, count: usize) {
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

fn is_optional(of: Message, content: &Content<'_>) -> bool {
    let field = of.fields().find(|field| field.name() == "is_optional");
    let told = |field: Field| {
        let mut values = content.known.iter().filter(|(number, _)| *number == field.number());
        matches!(values.next_back(), Some((_, Value::Varint(1..))))
    };
    field.is_some_and(told)
}

fn key_text(key: Field, value: Option<Value<'_>>) -> String {
    let number = match value {
        Some(Value::Varint(number)) => number,
        Some(Value::Fixed(bytes)) => {
            bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
        }
        _ => 0,
    };
    match (key.kind(), value) {
        (Kind::Text, Some(Value::Bytes(bytes))) => format!("{:?}", String::from_utf8_lossy(bytes)),
        (Kind::Text, _) => "\"\"".to_owned(),
        (Kind::Bool, _) => (number != 0).to_string(),
        (Kind::Signed, _) => {
            ((number >> 1).cast_signed() ^ -(number & 1).cast_signed()).to_string()
        }
        (Kind::Integer, _) => number.cast_signed().to_string(),
        _ => number.to_string(),
    }
}
