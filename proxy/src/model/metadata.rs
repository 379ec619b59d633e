//! `core.v3.Metadata`: what the configuration says about an endpoint or a route, by namespace.

use std::collections::BTreeMap;

use xxhash_rust::xxh64::Xxh64;

/// Fields of one namespace.
pub type Fields = BTreeMap<String, Value>;

/// `filter_metadata`: fields by namespace.
pub type Metadata = BTreeMap<String, Fields>;

/// Namespace of what balancers look at.
pub const LB: &str = "envoy.lb";

/// Namespace of what `transport_socket_matches` looks at.
pub const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// `google.protobuf.Value`
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(f64),
    /// Text.
    Text(String),
    /// Several.
    List(Vec<Self>),
    /// Fields.
    Struct(Fields),
}

impl Value {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same number for equal values, and in practice for no others (xxHash64).
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh64::new(0);
        self.feed(&mut hasher);
        hasher.digest()
    }

    fn feed(&self, hasher: &mut Xxh64) {
        // A byte for the kind and the length of what follows keep apart what would read the same.
        let mut begin = |kind: u8, len: usize| {
            hasher.update(&[kind]);
            hasher.update(&(len as u64).to_le_bytes());
        };
        match self {
            Self::Null => begin(0, 0),
            Self::Bool(yes) => begin(1, usize::from(*yes)),
            Self::Number(number) => {
                begin(2, 0);
                // -0 equals 0.
                let number = if *number == 0.0 { 0.0 } else { *number };
                hasher.update(&number.to_bits().to_le_bytes());
            }
            Self::Text(text) => {
                begin(3, text.len());
                hasher.update(text.as_bytes());
            }
            Self::List(values) => {
                begin(4, values.len());
                values.iter().for_each(|value| value.feed(hasher));
            }
            Self::Struct(fields) => {
                begin(5, fields.len());
                for (name, value) in fields {
                    Self::Text(name.clone()).feed(hasher);
                    value.feed(hasher);
                }
            }
        }
    }
}

/// Whether `fields` has all that is `wanted`, with equal values. A list stands for each of its
/// values, where `list_as_any` says so.
pub fn has_all(fields: Option<&Fields>, wanted: &Fields, list_as_any: bool) -> bool {
    wanted.iter().all(|(name, wanted)| {
        let Some(found) = fields.and_then(|fields| fields.get(name)) else { return false };
        let among = |values: &[Value]| list_as_any && values.contains(wanted);
        found == wanted || matches!(found, Value::List(values) if among(values))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, Value)]) -> Fields {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    #[test]
    fn fingerprints_differ_where_values_do() {
        let text = |text: &str| Value::Text(text.to_owned());
        let all = [
            Value::Null,
            Value::Bool(false),
            Value::Bool(true),
            Value::Number(0.0),
            Value::Number(1.0),
            text(""),
            text("1"),
            text("true"),
            Value::List(vec![]),
            Value::List(vec![text("1")]),
            Value::List(vec![text("1"), text("")]),
            Value::Struct(fields(&[("1", text(""))])),
            Value::Struct(fields(&[("", text("1"))])),
        ];
        for (i, a) in all.iter().enumerate() {
            for (j, b) in all.iter().enumerate() {
                assert_eq!(a.fingerprint() == b.fingerprint(), i == j, "{a:?} {b:?}");
            }
        }
        assert_eq!(Value::Number(-0.0).fingerprint(), Value::Number(0.0).fingerprint());
    }

    #[test]
    fn all_that_is_wanted_must_be_there() {
        let one = |value: &str| Value::Text(value.to_owned());
        let found = fields(&[("a", one("1")), ("b", Value::List(vec![one("2"), one("3")]))]);
        assert!(has_all(Some(&found), &fields(&[("a", one("1"))]), false));
        assert!(!has_all(Some(&found), &fields(&[("b", one("3"))]), false));
        assert!(has_all(Some(&found), &fields(&[("a", one("1")), ("b", one("3"))]), true));
        assert!(!has_all(None, &fields(&[("a", one("1"))]), true));
        assert!(has_all(None, &Fields::new(), false));
    }
}
