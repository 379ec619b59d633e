//! Messages as they are on the wire, one field after the other (Protocol Buffers: "Encoding").

use super::schema::{Field, Kind, Message};

/// Bytes that are no message of the type they are said to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'b> {
    Varint(u64),
    /// Eight or four bytes.
    Fixed(&'b [u8]),
    Bytes(&'b [u8]),
    /// Of a group, which only unknown fields can be.
    Group,
}

/// How deep messages may lie in each other, as everywhere.
const DEPTH: usize = 100;

/// What a message sets: the fields that it knows, by number, each with its values in order; and the numbers of those
/// that it does not know.
#[derive(Debug, Default)]
pub(super) struct Content<'b> {
    pub(super) known: Vec<(u32, Value<'b>)>,
    pub(super) unknown: Vec<u32>,
}

/// Takes a message apart. What lies in it is not looked at: [`check`] does that, once.
pub(super) fn content(of: Message, bytes: &[u8]) -> Result<Content<'_>, Malformed> {
    let mut content = Content::default();
    each(bytes, |number, value| {
        let Some(field) = of.field(number) else {
            content.unknown.push(number);
            return Ok(());
        };
        if field.is_repeated() || !field.is_implicit() || !is_default(value) {
            content.known.push((number, value));
        }
        Ok(())
    })?;
    content.known.sort_by_key(|(number, _)| *number);
    Ok(content)
}

/// That bytes are a message, and what lies in it too.
pub(super) fn check(of: Message, bytes: &[u8]) -> Result<(), Malformed> {
    check_at(of, bytes, DEPTH)
}

/// Whether a field may have such a value.
fn fits(field: Field, value: Value<'_>, depth: usize) -> Result<bool, Malformed> {
    Ok(match (field.kind(), value) {
        (Kind::Varint | Kind::Bool | Kind::Signed | Kind::Integer, Value::Varint(_)) => true,
        (Kind::Fixed64, Value::Fixed(bytes)) => bytes.len() == 8,
        (Kind::Fixed32, Value::Fixed(bytes)) => bytes.len() == 4,
        (Kind::Bytes, Value::Bytes(_)) => true,
        (Kind::Text, Value::Bytes(bytes)) => std::str::from_utf8(bytes).is_ok(),
        (Kind::Message(of), Value::Bytes(bytes)) => {
            let depth = depth.checked_sub(1).ok_or(Malformed)?;
            check_at(of, bytes, depth)?;
            true
        }
        // Packed: numbers one after the other.
        (_, Value::Bytes(bytes)) if field.is_repeated() => packed(field.kind(), bytes)?,
        _ => false,
    })
}

fn check_at(of: Message, bytes: &[u8], depth: usize) -> Result<(), Malformed> {
    each(bytes, |number, value| match of.field(number) {
        Some(field) if !fits(field, value, depth)? => Err(Malformed),
        _ => Ok(()),
    })
}

fn packed(kind: Kind, bytes: &[u8]) -> Result<bool, Malformed> {
    Ok(match kind {
        Kind::Fixed64 => bytes.len().is_multiple_of(8),
        Kind::Fixed32 => bytes.len().is_multiple_of(4),
        _ => {
            let mut rest = bytes;
            while !rest.is_empty() {
                varint(&mut rest)?;
            }
            true
        }
    })
}

fn is_default(value: Value<'_>) -> bool {
    match value {
        Value::Varint(number) => number == 0,
        Value::Fixed(bytes) => bytes.iter().all(|byte| *byte == 0),
        Value::Bytes(bytes) => bytes.is_empty(),
        Value::Group => false,
    }
}

/// Every field of a message, in the order in which they are there.
fn each<'b>(
    bytes: &'b [u8],
    mut see: impl FnMut(u32, Value<'b>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (number, wire) = tag(&mut rest)?;
        see(number, value(&mut rest, (number, wire), DEPTH)?)?;
    }
    Ok(())
}

fn tag(rest: &mut &[u8]) -> Result<(u32, u8), Malformed> {
    let tag = u32::try_from(varint(rest)?).map_err(|_| Malformed)?;
    match tag >> 3 {
        0 => Err(Malformed),
        number => Ok((number, (tag & 7) as u8)),
    }
}

fn value<'b>(
    rest: &mut &'b [u8],
    (number, wire): (u32, u8),
    depth: usize,
) -> Result<Value<'b>, Malformed> {
    Ok(match wire {
        0 => Value::Varint(varint(rest)?),
        1 => Value::Fixed(take(rest, 8)?),
        5 => Value::Fixed(take(rest, 4)?),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| Malformed)?;
            Value::Bytes(take(rest, length)?)
        }
        3 => {
            let depth = depth.checked_sub(1).ok_or(Malformed)?;
            loop {
                match tag(rest)? {
                    (end, 4) if end == number => return Ok(Value::Group),
                    inner => value(rest, inner, depth)?,
                };
            }
        }
        _ => return Err(Malformed),
    })
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Result<&'b [u8], Malformed> {
    let (taken, after) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = after;
    Ok(taken)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0_u64;
    for (at, byte) in rest.iter().take(10).enumerate() {
        if at == 9 && *byte > 1 {
            return Err(Malformed);
        }
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            *rest = &rest[at + 1..];
            return Ok(number);
        }
    }
    Err(Malformed)
}
