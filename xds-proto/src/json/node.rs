//! Text to a tree of nodes that know where they stand.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::Spanned;

use super::{Position, Problem};

/// A value and its position.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) position: Option<Position>,
    pub(super) tree: Tree,
}

/// The JSON data model; map entries stay in order.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    /// What it is, for error messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.tree {
            Tree::Null => "null",
            Tree::Bool(_) => "a boolean",
            Tree::Number(_) => "a number",
            Tree::Text(_) => "a string",
            Tree::List(_) => "a list",
            Tree::Map(_) => "an object",
        }
    }

    /// The same without positions.
    pub(super) fn to_value(&self) -> Value {
        match &self.tree {
            Tree::Null => Value::Null,
            Tree::Bool(b) => Value::Bool(*b),
            Tree::Number(n) => Value::Number(n.clone()),
            Tree::Text(s) => Value::String(s.clone()),
            Tree::List(items) => items.iter().map(Self::to_value).collect(),
            Tree::Map(entries) => entries.iter().map(|(k, v)| (k.clone(), v.to_value())).collect(),
        }
    }
}

/// Parses YAML, which most JSON is too; JSON that YAML does not take is parsed as JSON.
pub(super) fn from_text(text: &str) -> Result<Node, Problem> {
    let options = serde_saphyr::options! {
        // A snippet would copy the text around an error, and that may be a private key.
        with_snippet: false,
        // `no` is a boolean only where a boolean is expected; the reader decides.
        strict_booleans: true,
        budget: serde_saphyr::budget! { max_nodes: 4_000_000, max_events: 16_000_000 },
    };
    match serde_saphyr::from_str_with_options::<Node>(text, options) {
        Ok(node) => Ok(node),
        Err(error) => {
            if text.trim_start().starts_with('{')
                && let Ok(value) = serde_json::from_str::<Value>(text)
            {
                return Ok(from_value(&value));
            }
            let position = error
                .location()
                .filter(|at| at.line() > 0)
                .map(|at| Position { line: at.line(), column: at.column() });
            Err(Problem {
                path: String::new(),
                position,
                message: format!("not valid YAML: {}", error.without_snippet()),
            })
        }
    }
}

/// The tree of a JSON value, without positions.
pub(super) fn from_value(value: &Value) -> Node {
    let tree = match value {
        Value::Null => Tree::Null,
        Value::Bool(b) => Tree::Bool(*b),
        Value::Number(n) => Tree::Number(n.clone()),
        Value::String(s) => Tree::Text(s.clone()),
        Value::Array(items) => Tree::List(items.iter().map(from_value).collect()),
        Value::Object(entries) => {
            Tree::Map(entries.iter().map(|(k, v)| (k.clone(), from_value(v))).collect())
        }
    };
    Node { position: None, tree }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tree>::deserialize(deserializer)?;
        let at = spanned.referenced;
        let position = (at.line() > 0).then(|| Position { line: at.line(), column: at.column() });
        Ok(Self { position, tree: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Tree, E> {
        Ok(Tree::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Tree, E> {
        Ok(Tree::Number(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Tree, E> {
        // JSON has no number for these; protobuf JSON spells them as strings.
        Ok(Number::from_f64(v).map_or_else(|| Tree::Text(v.to_string()), Tree::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Tree, E> {
        Ok(Tree::Text(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Tree, E> {
        Ok(Tree::Text(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<Key>()? {
            entries.push((key.0, access.next_value()?));
        }
        Ok(Tree::Map(entries))
    }
}

/// A map key; YAML also allows numbers and booleans.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Tree::deserialize(deserializer)? {
            Tree::Text(s) => s,
            Tree::Number(n) => n.to_string(),
            Tree::Bool(b) => b.to_string(),
            Tree::Null => "null".into(),
            Tree::List(_) | Tree::Map(_) => {
                return Err(serde::de::Error::custom("a key has to be a string"));
            }
        }))
    }
}
