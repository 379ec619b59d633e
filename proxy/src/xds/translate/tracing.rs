//! Tracing of a connection manager, and the OpenTelemetry tracer.

use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::config::trace::v3 as trace;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use pillion_xds::envoy::r#type::tracing::v3 as tags;

use super::at::At;
use super::common;
use crate::model::Name;
use crate::model::format::Template;
use crate::model::tracing::{Exporter, Sampler, Tracing};

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
    Some(Some(Tracing {
        exporter: exporter(&config_at, &tracer)?,
        service_name: match tracer.service_name.as_str() {
            "" => "unknown_service:pillion".into(),
            name => name.into(),
        },
        random_sampling: percent(config.random_sampling.as_ref()),
        overall_sampling: percent(config.overall_sampling.as_ref()),
        sampler: match &tracer.sampler {
            Some(sampler) => self::sampler(&config_at.field("sampler"), sampler)?,
            None => Sampler::Manager,
        },
        custom_tags: at.field("custom_tags").each(&config.custom_tags, tag),
        spawn_upstream_span: config.spawn_upstream_span == Some(true),
        max_path_tag_length: config.max_path_tag_length.unwrap_or(256),
    }))
}

fn exporter(at: &At<'_>, tracer: &trace::OpenTelemetryConfig) -> Option<Exporter> {
    use core::grpc_service::TargetSpecifier;
    if let Some(grpc) = &tracer.grpc_service {
        return match &grpc.target_specifier {
            Some(TargetSpecifier::EnvoyGrpc(grpc)) => {
                Some(Exporter::Grpc(grpc.cluster_name.as_str().into()))
            }
            _ => at.field("grpc_service").refuse("expected envoy_grpc"),
        };
    }
    let Some(http) = &tracer.http_service else {
        return at.refuse("expected grpc_service or http_service");
    };
    let at = at.field("http_service").field("http_uri").required(http.http_uri.as_ref());
    let uri = at?;
    let (authority, path) = split_uri(&uri.uri);
    uri.http_upstream_type.as_ref().map(|core::http_uri::HttpUpstreamType::Cluster(cluster)| {
        Exporter::Http { cluster: cluster.as_str().into(), authority, path }
    })
}

fn split_uri(uri: &str) -> (Name, Name) {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    match rest.find('/') {
        Some(at) => (rest[..at].into(), rest[at..].into()),
        None => (rest.into(), "/v1/traces".into()),
    }
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
        other => at.refuse(format!("sampler `{other}` is not supported")),
    }
}

fn tag(at: &At<'_>, tag: &tags::CustomTag) -> Option<(Name, Template)> {
    use tags::custom_tag::Type;
    at.field("tag").expect(!tag.tag.is_empty(), "is empty")?;
    let value = match &tag.r#type {
        Some(Type::Literal(literal)) => Template::literal(literal.value.clone()),
        Some(Type::RequestHeader(header)) => request_header(&at.field("request_header"), header)?,
        Some(Type::Environment(_)) => return at.field("environment").refuse("is not supported"),
        _ => return at.refuse("expected literal or request_header"),
    };
    Some((tag.tag.as_str().into(), value))
}

fn request_header(at: &At<'_>, header: &tags::custom_tag::Header) -> Option<Template> {
    let text = format!("%REQ({})%", header.name);
    let default = &header.default_value;
    at.field("default_value").expect(default.is_empty(), "is not supported")?;
    match Template::parse(&text) {
        Ok(template) => Some(template),
        Err(error) => at.field("name").refuse(error),
    }
}
