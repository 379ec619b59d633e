//! Access log entries as OTLP log records.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::model::access_log::{JsonFormat, LogService};
use crate::model::collector::Detector;
use crate::telemetry::format::{self, Record};
use crate::telemetry::resource;

/// One record: the body and the attributes filled in, with the ids of the span.
pub(super) fn record(
    service: &LogService,
    (body, attributes): (Option<&JsonFormat>, &[(String, JsonFormat)]),
    record: &Record<'_>,
) -> LogRecord {
    let tags = super::tags(service, record);
    let tags = tags.into_iter().map(|(key, value)| pair(key, text(value)));
    let attributes = attributes.iter().map(|(key, tree)| pair(key.clone(), value(tree, record)));
    let ids = record.span.map(crate::telemetry::trace::Span::ids);
    LogRecord {
        time_unix_nano: nanos(record.start),
        body: body.map(|tree| value(tree, record)),
        attributes: attributes.chain(tags).collect(),
        trace_id: ids.map_or_else(Vec::new, |(trace, _)| trace.to_bytes().to_vec()),
        span_id: ids.map_or_else(Vec::new, |(_, span)| span.to_be_bytes().to_vec()),
        ..LogRecord::default()
    }
}

/// A request of such records.
pub(super) fn request(
    service: &LogService,
    resource: &[Detector],
    records: Vec<LogRecord>,
) -> ExportLogsServiceRequest {
    let attributes = resource::attributes(resource, Some(&service.name));
    let attributes = attributes.into_iter().map(|(key, value)| pair(key, text(value))).collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_logs: vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    }
}

fn value(tree: &JsonFormat, record: &Record<'_>) -> AnyValue {
    let value = match tree {
        JsonFormat::Null => None,
        JsonFormat::Bool(yes) => Some(Value::BoolValue(*yes)),
        JsonFormat::Integer(number) => Some(Value::IntValue(*number)),
        JsonFormat::Number(number) => Some(Value::DoubleValue(*number)),
        JsonFormat::Text(template) => {
            let mut out = String::new();
            format::write(template, record, &mut out);
            Some(Value::StringValue(out))
        }
        JsonFormat::Array(items) => {
            let values = items.iter().map(|item| value(item, record)).collect();
            Some(Value::ArrayValue(ArrayValue { values }))
        }
        JsonFormat::Object(fields) => {
            let one = |(key, item): &(String, JsonFormat)| pair(key.clone(), value(item, record));
            Some(Value::KvlistValue(KeyValueList { values: fields.iter().map(one).collect() }))
        }
    };
    AnyValue { value }
}

fn pair(key: String, value: AnyValue) -> KeyValue {
    KeyValue { key, value: Some(value), ..KeyValue::default() }
}

fn text(value: String) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value)) }
}

fn nanos(time: Option<SystemTime>) -> u64 {
    let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
