//! What filters note about a request for those who come after them: dynamic metadata and filter
//! state, and tests of both.

use std::collections::BTreeMap;

use http::HeaderName;
use regex::Regex;

use super::format::Template;
use super::matcher::StringMatcher;
use super::metadata::{Fields, Metadata, Value};

/// What filters noted. Only made when one of them notes something.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dynamic {
    /// By the namespace, which mostly is the filter's name.
    pub metadata: Metadata,
    /// Objects of the filter state, which are texts here.
    pub state: BTreeMap<String, State>,
}

/// An object of the filter state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// As text.
    pub value: String,
    /// Nobody may replace it.
    pub read_only: bool,
}

impl Dynamic {
    /// Note fields; those of the same name are replaced.
    pub fn note(&mut self, namespace: &str, fields: Fields) {
        match self.metadata.get_mut(namespace) {
            Some(known) => known.extend(fields),
            None => {
                self.metadata.insert(namespace.to_owned(), fields);
            }
        }
    }

    /// Set an object, unless it is there and may not be replaced.
    pub fn set(&mut self, key: &str, state: State) {
        if self.state.get(key).is_none_or(|known| !known.read_only) {
            self.state.insert(key.to_owned(), state);
        }
    }
}

/// The value at a path in a namespace. Without a path: all of it, which has to be copied.
pub fn find<'a>(metadata: &'a Metadata, namespace: &str, path: &[String]) -> Option<&'a Value> {
    let mut fields = metadata.get(namespace)?;
    let (last, way) = path.split_last()?;
    for name in way {
        match fields.get(name)? {
            Value::Struct(inner) => fields = inner,
            _ => return None,
        }
    }
    fields.get(last)
}

/// `MetadataMatcher`
#[derive(Clone, Debug)]
pub struct MetadataMatcher {
    /// Namespace.
    pub namespace: String,
    /// Where in it. Not empty.
    pub path: Vec<String>,
    /// What is wanted there.
    pub value: ValueMatcher,
    /// The opposite is wanted.
    pub invert: bool,
}

impl MetadataMatcher {
    /// Whether what was noted is as wanted.
    pub fn matches(&self, dynamic: Option<&Dynamic>) -> bool {
        let found =
            dynamic.and_then(|dynamic| find(&dynamic.metadata, &self.namespace, &self.path));
        self.value.matches(found) != self.invert
    }
}

/// `ValueMatcher`
#[derive(Clone, Debug)]
pub enum ValueMatcher {
    /// `null`
    Null,
    /// This number.
    Number(f64),
    /// A number from the first on, less than the second.
    Range(f64, f64),
    /// A text.
    Text(StringMatcher),
    /// This.
    Bool(bool),
    /// There is a value, or there is none.
    Present(bool),
    /// A list with such a value.
    OneOf(Box<Self>),
    /// One of these.
    Or(Vec<Self>),
}

impl ValueMatcher {
    /// Whether a value is as wanted. None: it is not there.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Present(wanted), value) => value.is_some() == *wanted,
            (Self::Or(any), value) => any.iter().any(|one| one.matches(value)),
            (Self::Null, Some(Value::Null)) => true,
            (Self::Number(wanted), Some(Value::Number(number))) => wanted == number,
            (Self::Range(from, to), Some(Value::Number(number))) => (*from..*to).contains(number),
            (Self::Text(matcher), Some(Value::Text(text))) => matcher.matches(text),
            (Self::Bool(wanted), Some(Value::Bool(found))) => wanted == found,
            (Self::OneOf(matcher), Some(Value::List(all))) => {
                all.iter().any(|one| matcher.matches(Some(one)))
            }
            _ => false,
        }
    }
}

/// `FilterStateMatcher`
#[derive(Clone, Debug)]
pub struct StateMatcher {
    /// Of the object.
    pub key: String,
    /// Its text.
    pub value: StringMatcher,
}

impl StateMatcher {
    /// Whether the object is there, and as wanted.
    pub fn matches(&self, dynamic: Option<&Dynamic>) -> bool {
        let found = dynamic.and_then(|dynamic| dynamic.state.get(&self.key));
        found.is_some_and(|state| self.value.matches(&state.value))
    }
}

/// `FilterStateValue`: an object that `set_filter_state` sets.
#[derive(Clone, Debug)]
pub struct SetState {
    /// Its key.
    pub key: String,
    /// Its text.
    pub value: Template,
    /// Nobody may replace it.
    pub read_only: bool,
    /// An empty text is not set.
    pub skip_if_empty: bool,
}

/// `header_to_metadata.v3.Config.Rule`
#[derive(Clone, Debug)]
pub struct HeaderRule {
    /// What is looked at.
    pub from: HeaderOrCookie,
    /// What is noted if it is there.
    pub present: Option<Noted>,
    /// What is noted if it is not.
    pub missing: Option<Noted>,
    /// The header is taken out.
    pub remove: bool,
}

/// What a rule looks at.
#[derive(Clone, Debug)]
pub enum HeaderOrCookie {
    /// A header.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
}

/// `header_to_metadata.v3.Config.KeyValuePair`
#[derive(Clone, Debug)]
pub struct Noted {
    /// Namespace.
    pub namespace: String,
    /// Field.
    pub key: String,
    /// In place of the header's value. Empty: that.
    pub value: String,
    /// The header's value is rewritten so.
    pub rewrite: Option<(Regex, String)>,
    /// What it becomes.
    pub kind: NotedKind,
    /// It comes in base64.
    pub base64: bool,
}

/// What a header's value becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotedKind {
    /// A text.
    Text,
    /// A number.
    Number,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::matcher::StringMatch;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn noted() -> Dynamic {
        let mut dynamic = Dynamic::default();
        let inner = Fields::from([("c".to_owned(), Value::Number(2.0))]);
        dynamic.note(
            "ns",
            Fields::from([("a".to_owned(), text("1")), ("b".to_owned(), Value::Struct(inner))]),
        );
        dynamic.note("ns", Fields::from([("a".to_owned(), text("2"))]));
        dynamic
    }

    fn matcher(path: &[&str], value: ValueMatcher) -> MetadataMatcher {
        let path = path.iter().map(|name| (*name).to_owned()).collect();
        MetadataMatcher { namespace: "ns".to_owned(), path, value, invert: false }
    }

    #[test]
    fn values_are_found_by_their_path() {
        let dynamic = noted();
        let exact = |text: &str| {
            let kind = StringMatch::Exact(text.to_owned());
            ValueMatcher::Text(StringMatcher { kind, ignore_case: false })
        };
        assert!(matcher(&["a"], exact("2")).matches(Some(&dynamic)));
        assert!(!matcher(&["a"], exact("1")).matches(Some(&dynamic)));
        assert!(matcher(&["b", "c"], ValueMatcher::Range(1.0, 3.0)).matches(Some(&dynamic)));
        assert!(!matcher(&["a", "c"], ValueMatcher::Present(true)).matches(Some(&dynamic)));
        assert!(matcher(&["x"], ValueMatcher::Present(false)).matches(Some(&dynamic)));
        assert!(matcher(&["x"], ValueMatcher::Present(false)).matches(None));
        let not = MetadataMatcher { invert: true, ..matcher(&["a"], exact("1")) };
        assert!(not.matches(Some(&dynamic)) && not.matches(None));
        let list = Value::List(vec![text("x"), Value::Bool(true)]);
        assert!(ValueMatcher::OneOf(Box::new(ValueMatcher::Bool(true))).matches(Some(&list)));
    }

    #[test]
    fn what_is_read_only_stays() {
        let mut dynamic = Dynamic::default();
        let state = |value: &str, read_only| State { value: value.to_owned(), read_only };
        dynamic.set("a", state("1", false));
        dynamic.set("a", state("2", true));
        dynamic.set("a", state("3", false));
        assert_eq!(dynamic.state["a"].value, "2");
    }
}
