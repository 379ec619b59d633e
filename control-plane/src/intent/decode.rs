//! From a tree of YAML nodes to typed data: the small vocabulary that the kinds are written in.
//!
//! A decoder is `fn(&mut Context, &At) -> Option<T>`: `None` means that a problem was noted. Decoders go on
//! after a problem, so that one run names all of them; a document with an error is not used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::document::{Reference, Referent};
use super::duration;
use super::problem::{Cause, Problem, Severity, nearest};
use super::yaml::{Key, Node, Value};

/// Where problems of one document are noted.
#[derive(Debug)]
pub(crate) struct Context {
    file: Arc<str>,
    document: usize,
    /// `Kind namespace/name`, once known.
    pub(crate) object: String,
    /// Unknown fields are warnings (kinds that others define and extend) instead of errors (our own).
    pub(crate) lenient: bool,
    /// Namespace of an object that names none.
    pub(crate) namespace: String,
    pub(crate) problems: Vec<Problem>,
    /// What this document says about others, checked when all are known.
    pub(crate) references: Vec<Reference>,
}

/// A node and the path that leads to it.
#[derive(Debug, Clone)]
pub(crate) struct At<'n> {
    pub(crate) node: &'n Node,
    pub(crate) path: String,
}

/// A map being taken apart field by field.
#[derive(Debug)]
pub(crate) struct Object<'n> {
    path: String,
    line: u32,
    column: u32,
    fields: &'n [(Key, Node)],
    known: Vec<&'static str>,
}

impl Context {
    pub(crate) fn new(file: Arc<str>, document: usize) -> Self {
        Self {
            file,
            document,
            object: String::new(),
            lenient: false,
            namespace: "default".to_owned(),
            problems: Vec::new(),
            references: Vec::new(),
        }
    }

    /// Remembers that the document speaks of another object here.
    pub(crate) fn refer(&mut self, at: &At<'_>, target: Referent) {
        let place = (at.node.line, at.node.column);
        self.references.push(Reference { target, place, path: at.path.clone() });
    }

    pub(crate) fn file(&self) -> Arc<str> {
        Arc::clone(&self.file)
    }

    pub(crate) fn failed(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Notes an error at `at`, and gives `None` so that a decoder can end with it.
    pub(crate) fn error<T>(&mut self, at: &At<'_>, message: impl Into<String>) -> Option<T> {
        self.note(Severity::Error, (at.node.line, at.node.column), &at.path, message.into());
        None
    }

    /// Notes an error that says what was expected and what was found.
    pub(crate) fn expected<T>(&mut self, at: &At<'_>, expected: impl Into<String>) -> Option<T> {
        self.error::<T>(at, format!("found {}", at.node.value.describe()));
        if let Some(last) = self.problems.last_mut() {
            last.expected = Some(expected.into());
        }
        None
    }

    pub(crate) fn warn(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.note(Severity::Warning, (at.node.line, at.node.column), &at.path, message.into());
    }

    pub(crate) fn note(
        &mut self,
        severity: Severity,
        place: (u32, u32),
        path: &str,
        message: String,
    ) {
        self.problems.push(Problem {
            file: Arc::clone(&self.file),
            line: place.0,
            column: place.1,
            document: self.document,
            severity,
            object: self.object.clone(),
            field: path.to_owned(),
            message,
            expected: None,
            cause: Cause::Other,
        });
    }
}

impl<'n> At<'n> {
    pub(crate) fn root(node: &'n Node) -> Self {
        Self { node, path: String::new() }
    }

    /// The elements of a list, each with its index in the path.
    pub(crate) fn items(&self, cx: &mut Context) -> Option<Vec<Self>> {
        match &self.node.value {
            Value::List(items) => {
                let at = |(index, node)| At { node, path: format!("{}[{index}]", self.path) };
                Some(items.iter().enumerate().map(at).collect())
            }
            _ => cx.expected(self, "a list"),
        }
    }
}

impl<'n> Object<'n> {
    pub(crate) fn open(cx: &mut Context, at: &At<'n>) -> Option<Self> {
        match &at.node.value {
            Value::Map(fields) => Some(Self {
                path: at.path.clone(),
                line: at.node.line,
                column: at.node.column,
                fields,
                known: Vec::new(),
            }),
            _ => cx.expected(at, "a map"),
        }
    }

    /// The field's node; `null` counts as absent, as on Kubernetes.
    pub(crate) fn field(&mut self, name: &'static str) -> Option<At<'n>> {
        self.known.push(name);
        let (_, node) = self.fields.iter().find(|(key, _)| key.name == name)?;
        if matches!(node.value, Value::Null) {
            return None;
        }
        Some(At { node, path: join(&self.path, name) })
    }

    pub(crate) fn optional<T>(
        &mut self,
        cx: &mut Context,
        name: &'static str,
        decode: impl FnOnce(&mut Context, &At<'n>) -> Option<T>,
    ) -> Option<T> {
        self.field(name).and_then(|at| decode(cx, &at))
    }

    pub(crate) fn required<T>(
        &mut self,
        cx: &mut Context,
        name: &'static str,
        decode: impl FnOnce(&mut Context, &At<'n>) -> Option<T>,
    ) -> Option<T> {
        if let Some(at) = self.field(name) {
            return decode(cx, &at);
        }
        let message = format!("the field `{name}` is missing");
        cx.note(Severity::Error, (self.line, self.column), &join(&self.path, name), message);
        None
    }

    /// A list; absent is empty. Elements that do not decode are left out (and noted).
    pub(crate) fn list<T>(
        &mut self,
        cx: &mut Context,
        name: &'static str,
        mut decode: impl FnMut(&mut Context, &At<'n>) -> Option<T>,
    ) -> Vec<T> {
        let items = self.optional(cx, name, |cx, at| at.items(cx)).unwrap_or_default();
        items.iter().filter_map(|at| decode(cx, at)).collect()
    }

    /// A map of strings to `T`; absent is empty.
    pub(crate) fn map<T>(
        &mut self,
        cx: &mut Context,
        name: &'static str,
        mut decode: impl FnMut(&mut Context, &At<'n>) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let Some(at) = self.field(name) else { return BTreeMap::new() };
        let Value::Map(fields) = &at.node.value else {
            cx.expected::<()>(&at, "a map");
            return BTreeMap::new();
        };
        let entry = |(key, node): &'n (Key, Node)| {
            let value = decode(cx, &At { node, path: join(&at.path, &key.name) })?;
            Some((key.name.clone(), value))
        };
        fields.iter().filter_map(entry).collect()
    }

    /// Fields that are known and, on purpose, have no effect here.
    pub(crate) fn ignore(&mut self, names: &[&'static str]) {
        self.known.extend(names);
    }

    /// Says which of `names` is present: exactly one, or an error at the object's place.
    pub(crate) fn exactly_one(&self, cx: &mut Context, names: &[&str]) {
        let found =
            self.fields.iter().filter(|(key, _)| names.contains(&key.name.as_str())).count();
        if found != 1 {
            let message = format!("expected exactly one of {}, found {found}", quoted(names));
            cx.note(Severity::Error, (self.line, self.column), &self.path, message);
        }
    }

    /// Notes the fields that nobody asked for.
    pub(crate) fn finish(self, cx: &mut Context) {
        let unknown =
            self.fields.iter().filter(|(key, _)| !self.known.contains(&key.name.as_str()));
        for (key, _) in unknown {
            let mut message = format!("unknown field `{}`", key.name);
            if let Some(name) = nearest(&key.name, self.known.iter().copied()) {
                message.push_str(&format!(", did you mean `{name}`?"));
            } else if cx.lenient {
                message.push_str(": it has no effect");
            }
            let severity = if cx.lenient { Severity::Warning } else { Severity::Error };
            cx.note(severity, (key.line, key.column), &join(&self.path, &key.name), message);
            if let (Severity::Error, Some(last)) = (severity, cx.problems.last_mut()) {
                last.expected = Some(format!("one of {}", quoted(&self.known)));
            }
        }
    }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// `` `a`, `b` `` for messages.
pub(crate) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// A string that is not empty.
pub(crate) fn text(cx: &mut Context, at: &At<'_>) -> Option<String> {
    match &at.node.value {
        Value::Text(text) if !text.is_empty() => Some(text.clone()),
        Value::Text(_) => cx.expected(at, "a string that is not empty"),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
            cx.expected(at, "a string (put it in quotes)")
        }
        _ => cx.expected(at, "a string"),
    }
}

/// A string, which may be empty.
pub(crate) fn any_text(cx: &mut Context, at: &At<'_>) -> Option<String> {
    match &at.node.value {
        Value::Text(text) if text.is_empty() => Some(String::new()),
        _ => text(cx, at),
    }
}

pub(crate) fn boolean(cx: &mut Context, at: &At<'_>) -> Option<bool> {
    match at.node.value {
        Value::Bool(value) => Some(value),
        _ => cx.expected(at, "`true` or `false`"),
    }
}

/// A whole number in `range`.
pub(crate) fn whole(
    range: std::ops::RangeInclusive<u32>,
) -> impl Fn(&mut Context, &At<'_>) -> Option<u32> {
    move |cx, at| {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        match at.node.value {
            Value::Int(value) => match u32::try_from(value) {
                Ok(value) if range.contains(&value) => Some(value),
                _ => cx.expected(at, expected()),
            },
            _ => cx.expected(at, expected()),
        }
    }
}

/// A share in percent, from 0 to 100, with a fraction if need be.
pub(crate) fn percent(cx: &mut Context, at: &At<'_>) -> Option<f64> {
    let value = match at.node.value {
        Value::Int(value) => i32::try_from(value).ok().map(f64::from),
        Value::Float(value) => Some(value),
        _ => None,
    };
    value
        .filter(|value| (0.0..=100.0).contains(value))
        .or_else(|| cx.expected(at, "a number from 0 to 100"))
}

/// A port number, 1 to 65535.
pub(crate) fn port(cx: &mut Context, at: &At<'_>) -> Option<u16> {
    match at.node.value {
        Value::Int(value) => match u16::try_from(value) {
            Ok(port) if port > 0 => Some(port),
            _ => cx.expected(at, "a port number from 1 to 65535"),
        },
        _ => cx.expected(at, "a port number from 1 to 65535"),
    }
}

/// A Gateway API duration, such as `1h30m`, `10s` or `250ms`.
pub(crate) fn duration(cx: &mut Context, at: &At<'_>) -> Option<Duration> {
    let expected = "a duration such as `1h30m`, `10s` or `250ms`";
    match &at.node.value {
        Value::Text(text) => match duration::parse(text) {
            Ok(duration) => Some(duration),
            Err(reason) => {
                cx.error::<()>(at, format!("{text:?} is not a duration: {reason}"));
                if let Some(last) = cx.problems.last_mut() {
                    last.expected = Some(expected.to_owned());
                }
                None
            }
        },
        _ => cx.expected(at, expected),
    }
}

/// One of a few names.
pub(crate) fn choice<T: Copy + 'static>(
    names: &'static [(&'static str, T)],
) -> impl Fn(&mut Context, &At<'_>) -> Option<T> {
    move |cx, at| {
        let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        let expected = format!("one of {}", quoted(&known));
        let Value::Text(written) = &at.node.value else {
            return cx.expected(at, expected);
        };
        if let Some((_, value)) = names.iter().find(|(name, _)| name == written) {
            return Some(*value);
        }
        let mut message = format!("unknown value `{written}`");
        if let Some(name) = nearest(written, known) {
            message.push_str(&format!(", did you mean `{name}`?"));
        }
        cx.error::<()>(at, message);
        if let Some(last) = cx.problems.last_mut() {
            last.expected = Some(expected);
        }
        None
    }
}

/// A name as DNS labels go (RFC 1123): lower-case letters, digits and `-`, at most 63.
pub(crate) fn dns_label(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let name = text(cx, at)?;
    if is_label(&name) {
        return Some(name);
    }
    cx.expected(at, "a DNS label: at most 63 lower-case letters, digits and `-`, with a letter or digit at both ends")
}

/// One or more DNS labels with dots between them, at most 253 characters.
pub(crate) fn dns_name(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let name = text(cx, at)?;
    if name.len() <= 253 && name.split('.').all(is_label) {
        return Some(name);
    }
    cx.expected(at, "a DNS name: lower-case letters, digits, `-` and `.`")
}

pub(crate) fn is_label(name: &str) -> bool {
    let letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = name.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes.iter().all(|c| letter(*c) || *c == b'-')
        && letter(bytes[0])
        && letter(bytes[bytes.len() - 1])
}
