//! JSON formats: a tree with format strings as leaves.

use serde_json::Value;

use crate::model::access_log::JsonFormat;
use crate::model::format::{Piece, Template};
use crate::telemetry::format::{self, Record};

/// The tree filled in. None: it has no value, and is to be left out.
pub(super) fn json(tree: &JsonFormat, record: &Record<'_>) -> Option<Value> {
    Some(match tree {
        JsonFormat::Null => Value::Null,
        JsonFormat::Bool(yes) => Value::Bool(*yes),
        JsonFormat::Integer(number) => Value::from(*number),
        JsonFormat::Number(number) => self::number(*number),
        JsonFormat::Array(items) => items.iter().filter_map(|item| json(item, record)).collect(),
        JsonFormat::Object(fields) => {
            let filled = fields.iter().filter_map(|(key, item)| {
                let value = json(item, record)?;
                // An object of which everything was left out.
                let gone = matches!((item, &value), (JsonFormat::Object(inner), Value::Object(left))
                    if left.is_empty() && !inner.is_empty());
                (!gone).then(|| (key.clone(), value))
            });
            Value::Object(filled.collect())
        }
        JsonFormat::Text(template) => return leaf(template, record),
    })
}

/// Whole numbers without a point, as protobuf writes them.
#[expect(
    clippy::cast_possible_truncation,
    clippy::float_cmp,
    reason = "taken only where nothing is lost"
)]
fn number(number: f64) -> Value {
    let whole = number as i64;
    if whole as f64 == number { Value::from(whole) } else { Value::from(number) }
}

/// One operator by itself keeps its type; without a value it is null, or left out
/// (Envoy: JSON formats).
fn leaf(template: &Template, record: &Record<'_>) -> Option<Value> {
    let mut text = String::new();
    if let [Piece::Operator(operator, limit)] = template.pieces.as_slice() {
        if limit.is_some() {
            format::write(template, record, &mut text);
            let found = format::value(operator, record, &mut String::new()).is_some();
            return if found { Some(text.into()) } else { nothing(template) };
        }
        if let Some(noted) = format::json(operator, record) {
            return noted.or_else(|| nothing(template));
        }
        return match format::value(operator, record, &mut text) {
            None => nothing(template),
            Some(()) if format::is_number(operator) => {
                Some(text.parse::<u64>().map_or(Value::Null, Into::into))
            }
            Some(()) => Some(text.into()),
        };
    }
    format::write(template, record, &mut text);
    Some(text.into())
}

fn nothing(template: &Template) -> Option<Value> {
    if template.omit_empty { None } else { Some(Value::Null) }
}
