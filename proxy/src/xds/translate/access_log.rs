//! Access logs: sinks, formats and filters.

use std::sync::Arc;
use std::time::Duration;

use pillion_xds::envoy::config::accesslog::v3 as pb;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::access_loggers::{file::v3 as file, stream::v3 as stream};
use prost_types::{Struct, Value, value::Kind};

use super::at::At;
use super::{common, matcher};
use crate::model::access_log::{
    AccessLog, Compare, JsonFormat, LogFilter, LogFormat, LogMoments, LogOutput, LogSink,
};
use crate::model::format::{DEFAULT_ACCESS_LOG, Template};

mod service;

/// Envoy's response flags (Envoy: `%RESPONSE_FLAGS%`).
const FLAGS: [&str; 29] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC",
    "URX", "SI", "IH", "DPE", "UPE", "UMSDR", "OM", "DF", "DO", "DR", "DT", "NC", "NFCF", "RFCF",
];

/// All access logs of a listener, connection manager or TCP proxy.
pub(super) fn all(at: &At<'_>, logs: &[pb::AccessLog]) -> Vec<AccessLog> {
    at.each(logs, one)
}

/// When else lines are written: `access_log_options`, or the deprecated fields beside it.
pub(super) fn moments(
    at: &At<'_>,
    (interval, deprecated): (Option<prost_types::Duration>, Option<prost_types::Duration>),
    (start, tunnel): (bool, bool),
) -> Option<LogMoments> {
    let interval = interval.or(deprecated);
    let interval = at.field("access_log_flush_interval").duration(interval);
    let short = interval.is_some_and(|interval| interval < Duration::from_millis(1));
    at.field("access_log_flush_interval").expect(!short, "expected 1 ms or more")?;
    Some(LogMoments { interval, start, tunnel })
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
    let output = match common::type_of(packed) {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let log: file::FileAccessLog = common::unpack(&at, packed)?;
            LogOutput::Lines(place(&log.path), file_format(&at, &log)?)
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            let log: stream::StdoutAccessLog = common::unpack(&at, packed)?;
            let format = log
                .access_log_format
                .as_ref()
                .map(|stream::stdout_access_log::AccessLogFormat::LogFormat(format)| format);
            LogOutput::Lines(LogSink::Stdout, stream_format(&at, format)?)
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let log: stream::StderrAccessLog = common::unpack(&at, packed)?;
            let format = log
                .access_log_format
                .as_ref()
                .map(|stream::stderr_access_log::AccessLogFormat::LogFormat(format)| format);
            LogOutput::Lines(LogSink::Stderr, stream_format(&at, format)?)
        }
        _ => LogOutput::Service(Arc::new(service::of(&at, packed)?)),
    };
    Some(AccessLog { filter, output })
}

fn place(path: &str) -> LogSink {
    match path {
        "/dev/stdout" => LogSink::Stdout,
        "/dev/stderr" => LogSink::Stderr,
        path => LogSink::File(path.into()),
    }
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
            json_object(&at.field("json_format"), tree, false).map(LogFormat::Json)
        }
        Some(Format::TypedJsonFormat(tree)) => {
            json_object(&at.field("typed_json_format"), tree, false).map(LogFormat::Json)
        }
        Some(Format::LogFormat(format)) => self::format(&at.field("log_format"), format),
    }
}

pub(super) fn format(at: &At<'_>, format: &core::SubstitutionFormatString) -> Option<LogFormat> {
    use core::substitution_format_string::Format;
    let omit = format.omit_empty_values;
    let parse = |at: &At<'_>, text: &str| {
        let template = template(at, text)?;
        Some(if omit { template.omitting() } else { template })
    };
    match &format.format {
        Some(Format::TextFormat(text)) => {
            parse(&at.field("text_format"), text).map(LogFormat::Text)
        }
        Some(Format::TextFormatSource(source)) => {
            let at = at.field("text_format_source");
            let text = match &source.specifier {
                Some(core::data_source::Specifier::InlineString(text)) => text.clone(),
                Some(core::data_source::Specifier::InlineBytes(bytes)) => {
                    String::from_utf8_lossy(bytes).into_owned()
                }
                Some(core::data_source::Specifier::Filename(path)) => {
                    match std::fs::read_to_string(path) {
                        Ok(text) => text,
                        Err(error) => return at.field("filename").refuse(error),
                    }
                }
                _ => return at.refuse("expected inline_string, inline_bytes or filename"),
            };
            parse(&at, &text).map(LogFormat::Text)
        }
        Some(Format::JsonFormat(tree)) => {
            json_object(&at.field("json_format"), tree, omit).map(LogFormat::Json)
        }
        None => at.refuse("expected text_format, text_format_source or json_format"),
    }
}

/// A format string.
pub(super) fn template(at: &At<'_>, text: &str) -> Option<Template> {
    match Template::parse(text) {
        Ok(template) => Some(template),
        Err(error) => at.refuse(error),
    }
}

fn json_object(at: &At<'_>, tree: &Struct, omit: bool) -> Option<JsonFormat> {
    let mut fields = Vec::with_capacity(tree.fields.len());
    for (key, value) in &tree.fields {
        fields.push((key.clone(), json(&at.key(key), value, omit)?));
    }
    Some(JsonFormat::Object(fields))
}

fn json(at: &At<'_>, value: &Value, omit: bool) -> Option<JsonFormat> {
    Some(match &value.kind {
        None | Some(Kind::NullValue(_)) => JsonFormat::Null,
        Some(Kind::NumberValue(number)) => JsonFormat::Number(*number),
        Some(Kind::BoolValue(yes)) => JsonFormat::Bool(*yes),
        Some(Kind::StringValue(text)) => {
            let template = template(at, text)?;
            JsonFormat::Text(if omit { template.omitting() } else { template })
        }
        Some(Kind::StructValue(tree)) => json_object(at, tree, omit)?,
        Some(Kind::ListValue(list)) => {
            JsonFormat::Array(at.each(&list.values, |at, value| json(at, value, omit)))
        }
    })
}

/// `AccessLogFilter`
pub(super) fn filter(at: &At<'_>, filter: &pb::AccessLogFilter) -> Option<LogFilter> {
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
        Some(Spec::TraceableFilter(_)) => LogFilter::Traceable,
        Some(Spec::LogTypeFilter(filter)) => LogFilter::Kind {
            kinds: filter.types().map(|kind| kind.as_str_name().into()).collect(),
            exclude: filter.exclude,
        },
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
            let filter_at = at.field("response_flag_filter");
            let at = filter_at.field("flags");
            let flags = at.each(&filter.flags, |at, flag| {
                at.expect(FLAGS.contains(&flag.as_str()), format!("`{flag}` is no response flag"))?;
                Some(flag.as_str().into())
            });
            LogFilter::ResponseFlags(flags)
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
