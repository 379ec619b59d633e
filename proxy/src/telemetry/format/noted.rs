//! What filters noted, and what the configuration says of endpoints: `DYNAMIC_METADATA`, `UPSTREAM_METADATA`
//! and `FILTER_STATE`.

use std::fmt::Write;

use super::{Operator, Record};
use crate::model::dynamic::find;
use crate::model::metadata::{Fields, Metadata, Value};

/// A text as it stands, anything else as JSON.
pub(super) fn metadata(
    metadata: &Metadata,
    namespace: &str,
    path: &[String],
    out: &mut String,
) -> Option<()> {
    if path.is_empty() {
        out.push_str(&object(metadata.get(namespace)?).to_string());
        return Some(());
    }
    match find(metadata, namespace, path)? {
        Value::Null => return None,
        Value::Text(text) => out.push_str(text),
        other => out.push_str(&value(other).to_string()),
    }
    Some(())
}

pub(super) fn state(record: &Record<'_>, key: &str, plain: bool, out: &mut String) -> Option<()> {
    let text = &record.dynamic?.state.get(key)?.value;
    if plain {
        out.push_str(text);
        return Some(());
    }
    write!(out, "{}", serde_json::Value::from(text.as_str())).ok()
}

/// The same for JSON formats, where values keep their types. None: this operator is of another kind.
pub fn json(operator: &Operator, record: &Record<'_>) -> Option<Option<serde_json::Value>> {
    let (metadata, namespace, path) = match operator {
        Operator::DynamicMetadata(namespace, path) => {
            (record.dynamic.map(|noted| &noted.metadata), namespace, path)
        }
        Operator::UpstreamMetadata(namespace, path) => (record.upstream_metadata, namespace, path),
        _ => return None,
    };
    let found = || {
        let metadata = metadata?;
        match path.as_slice() {
            [] => metadata.get(namespace).map(object),
            path => find(metadata, namespace, path).map(value),
        }
    };
    Some(found())
}

fn object(fields: &Fields) -> serde_json::Value {
    fields.iter().map(|(name, one)| (name.clone(), value(one))).collect()
}

/// Whole numbers without a point, as protobuf writes them.
fn value(of: &Value) -> serde_json::Value {
    match of {
        Value::Null => serde_json::Value::Null,
        Value::Bool(yes) => (*yes).into(),
        Value::Number(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            (*number as i64).into()
        }
        Value::Number(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(all) => all.iter().map(value).collect(),
        Value::Struct(fields) => object(fields),
    }
}
