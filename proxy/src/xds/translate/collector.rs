//! Services that telemetry is sent to.

use http::{HeaderName, HeaderValue};
use pillion_xds::envoy::config::core::v3 as core;

use super::at::At;
use crate::model::Name;
use crate::model::collector::{Collector, CollectorProtocol};

/// `GrpcService`
pub(super) fn grpc(at: &At<'_>, service: &core::GrpcService) -> Option<Collector> {
    use core::grpc_service::TargetSpecifier;
    let Some(TargetSpecifier::EnvoyGrpc(target)) = &service.target_specifier else {
        return at.refuse("expected envoy_grpc");
    };
    let cluster = target.cluster_name.as_str();
    at.field("envoy_grpc").field("cluster_name").expect(!cluster.is_empty(), "is empty")?;
    let authority = if target.authority.is_empty() {
        // A cluster may be called what no host may.
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        cluster.chars().map(|c| if fine(c) { c } else { '-' }).collect::<String>().into()
    } else {
        Name::from(target.authority.as_str())
    };
    let headers = at.field("initial_metadata").each(&service.initial_metadata, header);
    Some(Collector {
        cluster: cluster.into(),
        authority,
        protocol: CollectorProtocol::Grpc,
        headers,
    })
}

/// `HttpService`; `path` is where its URI has none.
pub(super) fn http(at: &At<'_>, service: &core::HttpService, path: &str) -> Option<Collector> {
    let uri_at = at.field("http_uri");
    let uri = uri_at.required(service.http_uri.as_ref())?;
    let Some(core::http_uri::HttpUpstreamType::Cluster(cluster)) = &uri.http_upstream_type else {
        return uri_at.field("cluster").refuse("is missing");
    };
    let (authority, path) = split_uri(&uri.uri, path);
    let add = |at: &At<'_>, option: &core::HeaderValueOption| {
        header(&at.field("header"), at.required(option.header.as_ref())?)
    };
    Some(Collector {
        cluster: cluster.as_str().into(),
        authority,
        protocol: CollectorProtocol::Http(path),
        headers: at.field("request_headers_to_add").each(&service.request_headers_to_add, add),
    })
}

fn split_uri(uri: &str, path: &str) -> (Name, Name) {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    match rest.find('/') {
        Some(at) => (rest[..at].into(), rest[at..].into()),
        None => (rest.into(), path.into()),
    }
}

fn header(at: &At<'_>, header: &core::HeaderValue) -> Option<(HeaderName, HeaderValue)> {
    let Ok(name) = header.key.parse() else {
        return at.field("key").refuse(format!("`{}` is no header name", header.key));
    };
    let bytes =
        if header.value.is_empty() { &header.raw_value[..] } else { header.value.as_bytes() };
    match HeaderValue::from_bytes(bytes) {
        Ok(value) => Some((name, value)),
        Err(_) => at.field("value").refuse("is no header value"),
    }
}
