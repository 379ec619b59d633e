//! Access logs of which a service takes the entries.

use std::time::Duration;

use http::HeaderName;
use pillion_xds::envoy::extensions::access_loggers::grpc::v3 as grpc;
use pillion_xds::envoy::extensions::access_loggers::open_telemetry::v3 as otlp;
use pillion_xds::opentelemetry::proto::common::v1 as any;
use prost_types::Any;

use super::super::at::At;
use super::super::{collector, common, detectors, tracing};
use super::template;
use crate::model::access_log::{JsonFormat, LogEntries, LogService};
use crate::model::collector::{Collector, Detector};

/// By its type.
pub(super) fn of(at: &At<'_>, packed: &Any) -> Option<LogService> {
    match common::type_of(packed) {
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig" => {
            let log: grpc::HttpGrpcAccessLogConfig = common::unpack(at, packed)?;
            let entries = LogEntries::Http {
                request_headers: at
                    .field("additional_request_headers_to_log")
                    .each(&log.additional_request_headers_to_log, name),
                response_headers: at
                    .field("additional_response_headers_to_log")
                    .each(&log.additional_response_headers_to_log, name),
                response_trailers: at
                    .field("additional_response_trailers_to_log")
                    .each(&log.additional_response_trailers_to_log, name),
            };
            common_config(at, log.common_config.as_ref(), entries)
        }
        "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig" => {
            let log: grpc::TcpGrpcAccessLogConfig = common::unpack(at, packed)?;
            common_config(at, log.common_config.as_ref(), LogEntries::Tcp)
        }
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig" => {
            open_telemetry(at, &common::unpack(at, packed)?)
        }
        other => at.refuse(format!("access log `{other}` is not supported")),
    }
}

fn common_config(
    at: &At<'_>,
    config: Option<&grpc::CommonGrpcAccessLogConfig>,
    entries: LogEntries,
) -> Option<LogService> {
    let at = at.field("common_config");
    let config = at.required(config)?;
    at.field("log_name").expect(!config.log_name.is_empty(), "is empty")?;
    let service = at.field("grpc_service");
    let to = collector::grpc(&service, service.required(config.grpc_service.as_ref())?)?;
    let service =
        Batches { interval: config.buffer_flush_interval, bytes: config.buffer_size_bytes }
            .service(&at, (to, &config.log_name), entries)?;
    let tags = at.field("custom_tags").each(&config.custom_tags, tracing::tag);
    Some(LogService { tags, ..service })
}

fn open_telemetry(at: &At<'_>, log: &otlp::OpenTelemetryAccessLogConfig) -> Option<LogService> {
    let common = log.common_config.clone().unwrap_or_default();
    let name = if log.log_name.is_empty() { common.log_name } else { log.log_name.clone() };
    let to = where_to(at, log)?;
    let attributes = log.attributes.as_ref().map_or(&[][..], |list| &list.values);
    let body = match &log.body {
        Some(body) => Some(value(&at.field("body"), body)?),
        None => None,
    };
    let entries = LogEntries::OpenTelemetry {
        body,
        attributes: at.field("attributes").field("values").each(attributes, attribute),
        resource: resource(at, log)?,
    };
    let batches = Batches {
        interval: log.buffer_flush_interval.or(common.buffer_flush_interval),
        bytes: log.buffer_size_bytes.or(common.buffer_size_bytes),
    };
    let service = batches.service(at, (to, &name), entries)?;
    let tags = at.field("custom_tags").each(&log.custom_tags, tracing::tag);
    let more =
        at.field("common_config").field("custom_tags").each(&common.custom_tags, tracing::tag);
    Some(LogService { tags: tags.into_iter().chain(more).collect(), ..service })
}

fn where_to(at: &At<'_>, log: &otlp::OpenTelemetryAccessLogConfig) -> Option<Collector> {
    let common = log.common_config.as_ref().and_then(|common| common.grpc_service.as_ref());
    match (&log.grpc_service, &log.http_service, common) {
        (Some(grpc), None, None) => collector::grpc(&at.field("grpc_service"), grpc),
        (None, Some(http), None) => collector::http(&at.field("http_service"), http, "/v1/logs"),
        (None, None, Some(grpc)) => {
            collector::grpc(&at.field("common_config").field("grpc_service"), grpc)
        }
        _ => at.refuse("expected one of common_config, grpc_service and http_service"),
    }
}

/// Built-in labels, what is detected, and what is configured; the later ones win.
fn resource(at: &At<'_>, log: &otlp::OpenTelemetryAccessLogConfig) -> Option<Vec<Detector>> {
    let mut all = if log.disable_builtin_labels { Vec::new() } else { vec![Detector::Node] };
    all.extend(detectors::all(&at.field("resource_detectors"), &log.resource_detectors));
    let at = at.field("resource_attributes");
    for pair in log.resource_attributes.iter().flat_map(|list| &list.values) {
        match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(any::any_value::Value::StringValue(text)) => {
                all.push(Detector::Fixed(pair.key.clone(), text.clone()));
            }
            _ => return at.key(&pair.key).refuse("expected a string_value"),
        }
    }
    Some(all)
}

/// How entries are gathered.
struct Batches {
    interval: Option<prost_types::Duration>,
    bytes: Option<u32>,
}

impl Batches {
    fn service(
        self,
        at: &At<'_>,
        (collector, name): (Collector, &str),
        entries: LogEntries,
    ) -> Option<LogService> {
        let at = at.field("buffer_flush_interval");
        let interval = at.duration(self.interval).unwrap_or(Duration::from_secs(1));
        at.expect(!interval.is_zero(), "expected more than 0 s")?;
        Some(LogService {
            collector,
            name: name.into(),
            flush_interval: interval,
            buffer_bytes: self.bytes.map_or(16 * 1024, |bytes| bytes as usize),
            entries,
            tags: Vec::new(),
        })
    }
}

fn name(at: &At<'_>, name: &String) -> Option<HeaderName> {
    match name.parse() {
        Ok(name) => Some(name),
        Err(_) => at.refuse(format!("`{name}` is no header name")),
    }
}

fn attribute(at: &At<'_>, pair: &any::KeyValue) -> Option<(String, JsonFormat)> {
    let value_at = at.field("value");
    let value = value(&value_at, value_at.required(pair.value.as_ref())?)?;
    Some((pair.key.clone(), value))
}

fn value(at: &At<'_>, value: &any::AnyValue) -> Option<JsonFormat> {
    use any::any_value::Value;
    Some(match value.value.as_ref() {
        None => JsonFormat::Null,
        Some(Value::StringValue(text)) => {
            JsonFormat::Text(template(&at.field("string_value"), text)?)
        }
        Some(Value::BoolValue(yes)) => JsonFormat::Bool(*yes),
        Some(Value::IntValue(number)) => JsonFormat::Integer(*number),
        Some(Value::DoubleValue(number)) => JsonFormat::Number(*number),
        Some(Value::ArrayValue(list)) => JsonFormat::Array(
            at.field("array_value").field("values").each(&list.values, self::value),
        ),
        Some(Value::KvlistValue(list)) => JsonFormat::Object(
            at.field("kvlist_value").field("values").each(&list.values, attribute),
        ),
        Some(Value::BytesValue(_)) => return at.field("bytes_value").refuse("is not supported"),
    })
}
