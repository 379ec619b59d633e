//! `LabelSelector` (`meta/v1`): which labels an object must have.

use std::collections::BTreeMap;

use super::decode::{At, Context, Object, any_text, choice, text};

/// Everything in it must hold; one that says nothing matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// Labels with these values.
    pub labels: BTreeMap<String, String>,
    /// What else must hold.
    pub expressions: Vec<Requirement>,
}

/// One of `matchExpressions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// What must hold of it.
    pub operator: Operator,
    /// The values of [`Operator::In`] and [`Operator::NotIn`].
    pub values: Vec<String>,
}

/// What must hold of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// It is there, with one of the values.
    In,
    /// It is not there, or has another value.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(|one| one.holds(labels.get(&one.key)))
    }
}

impl Requirement {
    fn holds(&self, value: Option<&String>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

pub(crate) fn label_selector(cx: &mut Context, at: &At<'_>) -> Option<LabelSelector> {
    let mut object = Object::open(cx, at)?;
    let labels = object.map(cx, "matchLabels", any_text);
    let expressions = object.list(cx, "matchExpressions", requirement);
    object.finish(cx);
    Some(LabelSelector { labels, expressions })
}

fn requirement(cx: &mut Context, at: &At<'_>) -> Option<Requirement> {
    let mut object = Object::open(cx, at)?;
    let key = object.required(cx, "key", text);
    let operators = choice(&[
        ("In", Operator::In),
        ("NotIn", Operator::NotIn),
        ("Exists", Operator::Exists),
        ("DoesNotExist", Operator::DoesNotExist),
    ]);
    let operator = object.required(cx, "operator", operators);
    let values = object.list(cx, "values", any_text);
    object.finish(cx);
    let (key, operator) = (key?, operator?);
    let lists = matches!(operator, Operator::In | Operator::NotIn);
    match (lists, values.is_empty()) {
        (true, true) => cx.error(at, "`values` must not be empty for `In` and `NotIn`"),
        (false, false) => cx.error(at, "`values` must be empty for `Exists` and `DoesNotExist`"),
        _ => Some(Requirement { key, operator, values }),
    }
}
