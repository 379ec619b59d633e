//! Services that filters call: `GrpcService` and `HttpUri`.

use std::time::Duration;

use http::{HeaderValue, Uri};
use pillion_xds::envoy::config::core::v3 as core;

use super::at::At;
use super::headers;
use crate::model::format::Template;
use crate::model::service::{GrpcService, HttpService};

/// `GrpcService`: over a cluster of this proxy.
pub(super) fn grpc(at: &At<'_>, service: Option<&core::GrpcService>) -> Option<GrpcService> {
    use core::grpc_service::TargetSpecifier;
    let service = at.required(service)?;
    let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else {
        return at.refuse("expected envoy_grpc");
    };
    let target_at = at.field("envoy_grpc");
    let cluster = &target.cluster_name;
    target_at.field("cluster_name").expect(!cluster.is_empty(), "is empty")?;
    let metadata_at = at.field("initial_metadata");
    let metadata = metadata_at.each(&service.initial_metadata, |at, header| {
        let name = headers::name_of(&at.field("key"), &header.key)?;
        let value_at = at.field("value");
        let template = match Template::parse(&header.value) {
            Ok(template) => template,
            Err(error) => return value_at.refuse(error),
        };
        let literal = template.as_literal().and_then(|text| HeaderValue::from_str(text).ok());
        let value = literal.or_else(|| value_at.refuse("expected plain text"))?;
        Some((name, value))
    });
    Some(GrpcService {
        cluster: cluster.as_str().into(),
        authority: (!target.authority.is_empty()).then(|| target.authority.as_str().into()),
        timeout: at.field("timeout").limit(service.timeout, None),
        metadata,
    })
}

/// `HttpUri`
pub(super) fn http(at: &At<'_>, service: Option<&core::HttpUri>) -> Option<HttpService> {
    use core::http_uri::HttpUpstreamType;
    let service = at.required(service)?;
    let Ok(uri) = service.uri.parse::<Uri>() else {
        return at.field("uri").refuse(format!("`{}` is no URI", service.uri));
    };
    let Some(HttpUpstreamType::Cluster(cluster)) = &service.http_upstream_type else {
        return at.field("cluster").refuse("is missing");
    };
    at.field("cluster").expect(!cluster.is_empty(), "is empty")?;
    let timeout_at = at.field("timeout");
    let timeout = timeout_at.required(timeout_at.duration(service.timeout))?;
    timeout_at.expect(timeout < Duration::from_secs(1 << 32), "is longer than 2^32 seconds")?;
    Some(HttpService { uri, cluster: cluster.as_str().into(), timeout })
}
