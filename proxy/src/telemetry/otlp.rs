//! Spans as OTLP (OpenTelemetry protocol) messages.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span, status,
};

use super::trace::FinishedSpan;
use crate::model::collector::Detector;
use crate::model::tracing::Tracing;

/// One request for spans that belong to the same tracer.
pub fn encode(spans: &[FinishedSpan]) -> ExportTraceServiceRequest {
    let attributes = spans.first().map_or_else(Vec::new, |span| resource(&span.config));
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "pillion-proxy".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans: spans.iter().map(one).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// Who says so, and what was detected.
fn resource(config: &Tracing) -> Vec<KeyValue> {
    let fixed = |key: &str, value: &str| Detector::Fixed(key.to_owned(), value.to_owned());
    let mut detectors = vec![
        fixed("service.name", &config.service_name),
        fixed("telemetry.sdk.language", "rust"),
        fixed("telemetry.sdk.name", "pillion"),
        fixed("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    detectors.extend(config.resource.iter().cloned());
    let all = super::resource::attributes(&detectors, None);
    all.iter().map(|(key, value)| text(key, value)).collect()
}

fn one(finished: &FinishedSpan) -> Span {
    let kind = if finished.inbound { span::SpanKind::Server } else { span::SpanKind::Client };
    let code = if finished.error { status::StatusCode::Error } else { status::StatusCode::Unset };
    let fixed = finished.attributes.iter().map(|(name, value)| text(name, value));
    let tags = finished.tags.iter().map(|(name, value)| text(name, value));
    Span {
        trace_id: finished.context.trace_id.to_bytes().to_vec(),
        span_id: finished.context.span_id.to_be_bytes().to_vec(),
        parent_span_id: finished.parent.map_or_else(Vec::new, |id| id.to_be_bytes().to_vec()),
        trace_state: finished.context.state.clone(),
        name: finished.name.clone(),
        kind: kind.into(),
        start_time_unix_nano: nanos(finished.start),
        end_time_unix_nano: nanos(finished.end),
        attributes: fixed.chain(tags).collect(),
        status: Some(Status { code: code.into(), message: String::new() }),
        ..Span::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.to_owned()))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    let value = Some(AnyValue { value: Some(value) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
