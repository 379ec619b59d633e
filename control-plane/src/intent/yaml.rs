//! YAML text to a tree of nodes that know their place. The only file that sees the YAML library.
//!
//! A file is cut into documents first, and each document is read on its own, so that one that is not
//! YAML at all cannot take its neighbours with it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DefaultMessageFormatter, MessageFormatter, Spanned};

/// One YAML value and where it stands in its file.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// 1-based line in the file.
    pub(crate) line: u32,
    /// 1-based column.
    pub(crate) column: u32,
    /// The value.
    pub(crate) value: Value,
}

/// A YAML value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Value {
    /// What it is, in words for "expected a …, found …".
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("the boolean `{value}`"),
            Self::Int(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(value) => format!("the string {value:?}"),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a map".to_owned(),
        }
    }
}

/// A JSON value as a tree of nodes without places: what an API hands out has no lines.
pub(crate) fn of_json(value: &serde_json::Value) -> Node {
    use serde_json::Value as Json;
    let key = |name: &String| Key { name: name.clone(), line: 0, column: 0 };
    let value = match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Value::Int(value),
            (None, value) => Value::Float(value.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(of_json).collect()),
        Json::Object(fields) => {
            Value::Map(fields.iter().map(|(name, value)| (key(name), of_json(value))).collect())
        }
    };
    Node { line: 0, column: 0, value }
}

/// One document of a file, not yet read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    /// 1-based number of the document in its file.
    pub(crate) document: usize,
    /// 1-based line and column of the file at which `text` begins.
    pub(crate) line: u32,
    pub(crate) column: u32,
    /// The document's text, without its `---`.
    pub(crate) text: &'a str,
}

/// Text that is not YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) message: String,
}

/// Cuts `text` at its `---` lines. Documents of nothing but comments are left out and not counted.
pub(crate) fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pieces = Vec::new();
    let (mut start, mut line, mut column) = (0, 1, 1);
    let mut offset = 0;
    for (number, content) in (1u32..).zip(text.split_inclusive('\n')) {
        if is_marker(content) {
            pieces.push((line, column, &text[start..offset]));
            // What follows `--- ` on the marker's own line belongs to the document.
            (start, line, column) = (offset + 3, number, 4);
        }
        offset += content.len();
    }
    pieces.push((line, column, &text[start..]));
    pieces.retain(|(.., body)| body.lines().any(is_content));
    let number = |(index, (line, column, text))| Chunk { document: index + 1, line, column, text };
    pieces.into_iter().enumerate().map(number).collect()
}

/// Reads one document. `None` is a document whose whole content is `null`.
///
/// # Errors
/// The text is not YAML, or a map holds a key twice.
pub(crate) fn parse(chunk: Chunk<'_>) -> Result<Option<Node>, SyntaxError> {
    match serde_saphyr::from_str::<Node>(chunk.text) {
        Ok(mut node) => {
            shift(&mut node, chunk);
            Ok(Some(node).filter(|node| !matches!(node.value, Value::Null)))
        }
        Err(error) => {
            let error = error.without_snippet();
            let at = error.location().unwrap_or(serde_saphyr::Location::UNKNOWN);
            let (line, column) = place(chunk, at.line().max(1), at.column().max(1));
            let message = DefaultMessageFormatter.format_message(error).into_owned();
            Err(SyntaxError { line, column, message })
        }
    }
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn is_content(line: &str) -> bool {
    let line = line.trim_start();
    !(line.is_empty() || line.starts_with('#') || line.starts_with('%') || line.trim_end() == "...")
}

/// A place inside a chunk as a place in its file. The library counts lines and columns from 1.
fn place(chunk: Chunk<'_>, line: u64, column: u64) -> (u32, u32) {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let (line, column) = (narrow(line), narrow(column));
    if line == 1 {
        (chunk.line, column + chunk.column - 1)
    } else {
        (chunk.line + line - 1, column)
    }
}

fn shift(node: &mut Node, chunk: Chunk<'_>) {
    (node.line, node.column) = place(chunk, node.line.into(), node.column.into());
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| shift(item, chunk)),
        Value::Map(fields) => {
            for (key, value) in fields {
                (key.line, key.column) = place(chunk, key.line.into(), key.column.into());
                shift(value, chunk);
            }
        }
        _ => {}
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        let (line, column) = line_column(&spanned);
        Ok(Self { line, column, value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

fn line_column<T>(spanned: &Spanned<T>) -> (u32, u32) {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    (narrow(spanned.referenced.line()).max(1), narrow(spanned.referenced.column()).max(1))
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value)
            .map(Value::Int)
            .map_err(|_| E::custom(format!("the number {value} is too large")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut fields: Vec<(Key, Node)> = Vec::new();
        while let Some(key) = access.next_key::<Spanned<String>>()? {
            if fields.iter().any(|(known, _)| known.name == key.value) {
                return Err(A::Error::custom(format!("the key `{}` appears twice", key.value)));
            }
            let (line, column) = line_column(&key);
            fields.push((Key { name: key.value, line, column }, access.next_value()?));
        }
        Ok(Value::Map(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_know_their_place_in_the_file() {
        let text = "# head\n%YAML 1.2\n---\na: 1\nb:\n  - c: \"80\"\n  - [x, true, 1.5, null]\n--- {d: e}\n";
        let found = chunks(text);
        assert_eq!(found.len(), 2);
        let first = parse(found[0]).expect("YAML").expect("content");
        let Value::Map(fields) = &first.value else { panic!("a map") };
        assert_eq!((fields[1].0.line, fields[1].0.column), (5, 1));
        let Value::List(items) = &fields[1].1.value else { panic!("a list") };
        let Value::Map(inner) = &items[0].value else { panic!("a map") };
        assert_eq!((inner[0].0.line, inner[0].0.column), (6, 5));
        assert_eq!((inner[0].1.line, inner[0].1.column), (6, 8));
        assert!(
            matches!(&inner[0].1.value, Value::Text(text) if text == "80"),
            "a quoted number is a string"
        );
        let Value::List(flow) = &items[1].value else { panic!("a list") };
        assert!(matches!(flow[1].value, Value::Bool(true)));
        assert!(matches!(flow[3].value, Value::Null));
        let second = parse(found[1]).expect("YAML").expect("content");
        let Value::Map(fields) = &second.value else { panic!("a map") };
        assert_eq!((fields[0].0.line, fields[0].0.column), (8, 6));
    }

    #[test]
    fn a_syntax_error_names_its_line_in_the_file() {
        let found = chunks("a: 1\n---\nb: 2\nc: [1,\nd: 2\n");
        assert!(parse(found[0]).is_ok());
        let error = parse(found[1]).expect_err("an open bracket");
        assert!((4..=6).contains(&error.line), "{error:?}");
        assert!(!error.message.is_empty());
    }

    #[test]
    fn a_repeated_key_is_an_error() {
        let error = parse(chunks("a: 1\nb: 2\na: 3\n")[0]).expect_err("twice");
        assert_eq!(error.line, 3, "{error:?}");
    }

    #[test]
    fn comments_alone_are_no_document() {
        assert!(chunks("# nothing\n---\n\n# here\n---\n").is_empty());
    }
}
