//! Access logs: sinks, formats and filters.

use pillion_xds::envoy::config::accesslog::v3 as pb;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::access_loggers::{file::v3 as file, stream::v3 as stream};
use prost_types::{Struct, Value, value::Kind};

use super::at::At;
use super::{common, matcher};
use crate::model::access_log::{AccessLog, Compare, JsonFormat, LogFilter, LogFormat, LogSink};
use crate::model::format::{DEFAULT_ACCESS_LOG, Template};

/// All access logs of a listener, connection manager or TCP proxy.
pub(super) fn all(at: &At<'_>, logs: &[pb::AccessLog]) -> Vec<AccessLog> {
    at.each(logs, one)
}

fn one(at: &At<'_>, log: &pb::AccessLog) -> Option<AccessLog> {
    let filter = match &log.filter {
        Some(filter) => Some(self::filter(&at.field("filter"), filter)?),
        None => None,
    };
    let at = at.field("typed_config");
    let Some(pb::access_log::ConfigType::TypedConfig(packed)) = &log.config_type else {
        return at.refuse("is missing");
    };
    let (sink, format) = match common::type_of(packed) {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let log: file::FileAccessLog = common::unpack(&at, packed)?;
            (LogSink::File(log.path.clone().into()), file_format(&at, &log)?)
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            let log: stream::StdoutAccessLog = common::unpack(&at, packed)?;
            let format = log
                .access_log_format
                .as_ref()
                .map(|stream::stdout_access_log::AccessLogFormat::LogFormat(format)| format);
            (LogSink::Stdout, stream_format(&at, format)?)
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let log: stream::StderrAccessLog = common::unpack(&at, packed)?;
            let format = log
                .access_log_format
                .as_ref()
                .map(|stream::stderr_access_log::AccessLogFormat::LogFormat(format)| format);
            (LogSink::Stderr, stream_format(&at, format)?)
        }
        other => return at.refuse(format!("access log `{other}` is not supported")),
    };
    Some(AccessLog { filter, sink, format })
}

fn stream_format(
    at: &At<'_>,
    configured: Option<&core::SubstitutionFormatString>,
) -> Option<LogFormat> {
    match configured {
        Some(configured) => format(&at.field("log_format"), configured),
        None => default(),
    }
}

fn default() -> Option<LogFormat> {
    Template::parse(DEFAULT_ACCESS_LOG).ok().map(LogFormat::Text)
}

fn file_format(at: &At<'_>, log: &file::FileAccessLog) -> Option<LogFormat> {
    use file::file_access_log::AccessLogFormat as Format;
    match &log.access_log_format {
        None => default(),
        Some(Format::Format(text)) if text.is_empty() => default(),
        Some(Format::Format(text)) => template(&at.field("format"), text).map(LogFormat::Text),
        Some(Format::JsonFormat(tree)) => {
            json_object(&at.field("json_format"), tree).map(LogFormat::Json)
        }
        Some(Format::TypedJsonFormat(tree)) => {
            json_object(&at.field("typed_json_format"), tree).map(LogFormat::Json)
        }
        Some(Format::LogFormat(format)) => self::format(&at.field("log_format"), format),
    }
}

fn format(at: &At<'_>, format: &core::SubstitutionFormatString) -> Option<LogFormat> {
    use core::substitution_format_string::Format;
    at.field("omit_empty_values").expect(!format.omit_empty_values, "is not supported")?;
    match &format.format {
        Some(Format::TextFormat(text)) => {
            template(&at.field("text_format"), text).map(LogFormat::Text)
        }
        Some(Format::TextFormatSource(source)) => {
            let at = at.field("text_format_source");
            let text = match &source.specifier {
                Some(core::data_source::Specifier::InlineString(text)) => text.clone(),
                Some(core::data_source::Specifier::InlineBytes(bytes)) => {
                    String::from_utf8_lossy(bytes).into_owned()
                }
                _ => return at.refuse("expected inline_string"),
            };
            template(&at, &text).map(LogFormat::Text)
        }
        Some(Format::JsonFormat(tree)) => {
            json_object(&at.field("json_format"), tree).map(LogFormat::Json)
        }
        None => at.refuse("expected text_format, text_format_source or json_format"),
    }
}

fn template(at: &At<'_>, text: &str) -> Option<Template> {
    match Template::parse(text) {
        Ok(template) => Some(template),
        Err(error) => at.refuse(error),
    }
}

fn json_object(at: &At<'_>, tree: &Struct) -> Option<JsonFormat> {
    let mut fields = Vec::with_capacity(tree.fields.len());
    for (key, value) in &tree.fields {
        fields.push((key.clone(), json(&at.key(key), value)?));
    }
    Some(JsonFormat::Object(fields))
}

fn json(at: &At<'_>, value: &Value) -> Option<JsonFormat> {
    Some(match &value.kind {
        None | Some(Kind::NullValue(_)) => JsonFormat::Null,
        Some(Kind::NumberValue(number)) => JsonFormat::Number(*number),
        Some(Kind::BoolValue(yes)) => JsonFormat::Bool(*yes),
        Some(Kind::StringValue(text)) => JsonFormat::Text(template(at, text)?),
        Some(Kind::StructValue(tree)) => json_object(at, tree)?,
        Some(Kind::ListValue(list)) => JsonFormat::Array(at.each(&list.values, json)),
    })
}

fn filter(at: &At<'_>, filter: &pb::AccessLogFilter) -> Option<LogFilter> {
    use pb::access_log_filter::FilterSpecifier as Spec;
    Some(match filter.filter_specifier.as_ref() {
        Some(Spec::StatusCodeFilter(filter)) => {
            let (op, value) = compare(&at.field("status_code_filter"), filter.comparison.as_ref())?;
            LogFilter::Status(op, value)
        }
        Some(Spec::DurationFilter(filter)) => {
            let (op, value) = compare(&at.field("duration_filter"), filter.comparison.as_ref())?;
            LogFilter::Duration(op, u64::from(value))
        }
        Some(Spec::NotHealthCheckFilter(_)) => LogFilter::NotHealthCheck,
        Some(Spec::RuntimeFilter(filter)) => {
            let share = filter.percent_sampled.as_ref();
            LogFilter::Fraction(share.map_or(0, common::fraction))
        }
        Some(Spec::AndFilter(list)) => LogFilter::And(
            at.field("and_filter").field("filters").each(&list.filters, self::filter),
        ),
        Some(Spec::OrFilter(list)) => {
            LogFilter::Or(at.field("or_filter").field("filters").each(&list.filters, self::filter))
        }
        Some(Spec::HeaderFilter(filter)) => {
            let filter_at = at.field("header_filter");
            let at = filter_at.field("header");
            LogFilter::Header(matcher::header(&at, at.required(filter.header.as_ref())?)?)
        }
        Some(Spec::ResponseFlagFilter(filter)) => {
            LogFilter::ResponseFlags(filter.flags.iter().map(|flag| flag.as_str().into()).collect())
        }
        Some(Spec::GrpcStatusFilter(filter)) => LogFilter::GrpcStatus {
            codes: filter.statuses.iter().filter_map(|code| u32::try_from(*code).ok()).collect(),
            exclude: filter.exclude,
        },
        _ => return at.refuse("this kind of access log filter is not supported"),
    })
}

fn compare(at: &At<'_>, comparison: Option<&pb::ComparisonFilter>) -> Option<(Compare, u32)> {
    use pb::comparison_filter::Op;
    let at = at.field("comparison");
    let comparison = at.required(comparison)?;
    let op = match comparison.op() {
        Op::Eq => Compare::Equal,
        Op::Ge => Compare::AtLeast,
        Op::Le => Compare::AtMost,
        Op::Ne => Compare::NotEqual,
    };
    let value = at.field("value").required(comparison.value.as_ref())?;
    Some((op, value.default_value))
}
