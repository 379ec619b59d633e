//! Tracing of a connection manager, and the OpenTelemetry tracer.

use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::config::trace::v3 as trace;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use pillion_xds::envoy::r#type::tracing::v3 as tags;
use pillion_xds::pillion::trace::v1::TailSampler;

use super::at::At;
use super::{collector, common, detectors};
use crate::model::Name;
use crate::model::collector::Collector;
use crate::model::format::Template;
use crate::model::tracing::{Sampler, Tail, Tracing};

/// Spans that a tail sampler keeps in a second, if it does not say.
const TAIL_PER_SECOND: u32 = 100;

/// `HttpConnectionManager.Tracing`. None inside: there is no provider, so nothing is traced.
pub(super) fn tracing(at: &At<'_>, config: &hcm::Tracing) -> Option<Option<Tracing>> {
    use trace::tracing::http::ConfigType;
    let Some(provider) = &config.provider else { return Some(None) };
    let provider_at = at.field("provider");
    let config_at = provider_at.field("typed_config");
    let Some(ConfigType::TypedConfig(packed)) = &provider.config_type else {
        return config_at.refuse("is missing");
    };
    if common::type_of(packed) != "envoy.config.trace.v3.OpenTelemetryConfig" {
        let kind = common::type_of(packed);
        return config_at
            .refuse(format!("`{kind}` is not supported: expected an OpenTelemetryConfig"));
    }
    let tracer: trace::OpenTelemetryConfig = common::unpack(&config_at, packed)?;
    let percent = |value: Option<&pillion_xds::envoy::r#type::v3::Percent>| {
        value.map_or(100.0, |percent| percent.value)
    };
    let (sampler, tail) = match &tracer.sampler {
        Some(config) => both_ends(&config_at.field("sampler"), config)?,
        None => (Sampler::Manager, None),
    };
    Some(Some(Tracing {
        exporter: exporter(&config_at, &tracer)?,
        service_name: match tracer.service_name.as_str() {
            "" => "unknown_service:pillion".into(),
            name => name.into(),
        },
        resource: detectors::all(
            &config_at.field("resource_detectors"),
            &tracer.resource_detectors,
        ),
        client_sampling: percent(config.client_sampling.as_ref()),
        random_sampling: percent(config.random_sampling.as_ref()),
        overall_sampling: percent(config.overall_sampling.as_ref()),
        sampler,
        tail,
        custom_tags: at.field("custom_tags").each(&config.custom_tags, tag),
        spawn_upstream_span: config.spawn_upstream_span == Some(true),
        max_path_tag_length: config.max_path_tag_length.unwrap_or(256),
    }))
}

fn exporter(at: &At<'_>, tracer: &trace::OpenTelemetryConfig) -> Option<Collector> {
    match (&tracer.grpc_service, &tracer.http_service) {
        (Some(grpc), None) => collector::grpc(&at.field("grpc_service"), grpc),
        (None, Some(http)) => collector::http(&at.field("http_service"), http, "/v1/traces"),
        (Some(_), Some(_)) => at.refuse("expected either grpc_service or http_service, not both"),
        (None, None) => at.refuse("expected grpc_service or http_service"),
    }
}

/// A sampler, which decides at the head, and perhaps has a second look at the end.
fn both_ends(at: &At<'_>, config: &core::TypedExtensionConfig) -> Option<(Sampler, Option<Tail>)> {
    let packed = config.typed_config.as_ref();
    let Some(packed) = packed.filter(|one| common::type_of(one) == "pillion.trace.v1.TailSampler")
    else {
        return Some((sampler(at, config)?, None));
    };
    let at = at.field("typed_config");
    let tail: TailSampler = common::unpack(&at, packed)?;
    let head = match &tail.head {
        Some(head) => sampler(&at.field("head"), head)?,
        None => Sampler::Manager,
    };
    let slower_at = at.field("slower_than");
    let slower_than = slower_at.duration(tail.slower_than);
    slower_at.expect(slower_than.is_none_or(|limit| !limit.is_zero()), "expected more than 0 s")?;
    at.expect(
        tail.failed || slower_than.is_some(),
        "keeps nothing: expected slower_than or failed",
    )?;
    let per_second = tail.per_second.unwrap_or(TAIL_PER_SECOND);
    at.field("per_second").expect(per_second > 0, "expected at least 1")?;
    Some((head, Some(Tail { slower_than, failed: tail.failed, per_second })))
}

fn sampler(at: &At<'_>, config: &core::TypedExtensionConfig) -> Option<Sampler> {
    use pillion_xds::envoy::extensions::tracers::opentelemetry::samplers::v3 as pb;
    let at = at.field("typed_config");
    let packed = at.required(config.typed_config.as_ref())?;
    match common::type_of(packed) {
        "envoy.extensions.tracers.opentelemetry.samplers.v3.AlwaysOnSamplerConfig" => {
            Some(Sampler::AlwaysOn)
        }
        "envoy.extensions.tracers.opentelemetry.samplers.v3.ParentBasedSamplerConfig" => {
            let parent: pb::ParentBasedSamplerConfig = common::unpack(&at, packed)?;
            let at = at.field("wrapped_sampler");
            let inner = at.required(parent.wrapped_sampler.as_ref())?;
            Some(Sampler::ParentBased(Box::new(sampler(&at, inner)?)))
        }
        "envoy.extensions.tracers.opentelemetry.samplers.v3.TraceIdRatioBasedSamplerConfig" => {
            let ratio: pb::TraceIdRatioBasedSamplerConfig = common::unpack(&at, packed)?;
            let share = ratio.sampling_percentage.as_ref();
            Some(Sampler::TraceIdRatio(share.map_or(1_000_000, common::fraction)))
        }
        "pillion.trace.v1.TailSampler" => at.refuse("a tail sampler stands outermost only"),
        other => at.refuse(format!("sampler `{other}` is not supported")),
    }
}

/// A custom tag: its name, and where its value comes from.
pub(super) fn tag(at: &At<'_>, tag: &tags::CustomTag) -> Option<(Name, Template)> {
    use tags::custom_tag::Type;
    at.field("tag").expect(!tag.tag.is_empty(), "is empty")?;
    let template = |at: &At<'_>, text: &str| match Template::parse(text) {
        Ok(template) => Some(template),
        Err(error) => at.refuse(error),
    };
    let value = match &tag.r#type {
        Some(Type::Literal(literal)) => Template::literal(literal.value.clone()),
        Some(Type::RequestHeader(header)) => {
            let operator = format!("%REQ({})%", header.name);
            template(&at.field("request_header").field("name"), &operator)?
                .or_literal(&header.default_value)
        }
        Some(Type::Environment(variable)) => {
            let operator = format!("%ENVIRONMENT({})%", variable.name);
            template(&at.field("environment").field("name"), &operator)?
                .or_literal(&variable.default_value)
        }
        Some(Type::Value(text)) => template(&at.field("value"), text)?,
        _ => return at.refuse("expected literal, request_header, environment or value"),
    };
    Some((tag.tag.as_str().into(), value))
}

#[cfg(test)]
#[path = "tracing_tests.rs"]
mod tests;
