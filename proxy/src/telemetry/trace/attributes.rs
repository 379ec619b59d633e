//! Attributes of spans, named and written as Envoy's are.

use std::sync::Arc;

use http::{HeaderName, header};

use crate::model::names;
use crate::model::tracing::Tracing;
use crate::telemetry::format::{self, Record};

type Attributes = Vec<(&'static str, String)>;

/// Of the span of a request.
pub(super) fn of_request(record: &Record<'_>, path_limit: usize) -> Attributes {
    let node = crate::telemetry::environment::node();
    let header = |name: &str| {
        let value = record.request_headers?.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let dash = |value: Option<String>| Some(value.unwrap_or_else(|| "-".to_owned()));
    let peer = record.downstream_direct_remote.map(|address| address.ip().to_string());
    let first = [
        ("node_id", Some(node.id).filter(|id| !id.is_empty())),
        ("zone", Some(node.zone).filter(|zone| !zone.is_empty())),
        ("guid:x-request-id", header("x-request-id")),
        ("http.url", Some(url(record, path_limit))),
        ("http.method", record.method.map(str::to_owned)),
        ("downstream_cluster", dash(header("x-envoy-downstream-service-cluster"))),
        ("user_agent", dash(header("user-agent"))),
        ("http.protocol", record.protocol.map(str::to_owned)),
        ("peer.address", peer),
        ("guid:x-client-trace-id", header("x-client-trace-id")),
        ("request_size", Some(record.bytes_received.to_string())),
        ("response_size", Some(record.bytes_sent.to_string())),
    ];
    let route = record.route.filter(|route| !route.is_empty());
    let ours = [
        ("http.route", route.map(str::to_owned)),
        ("peer.uri_san", record.peer.and_then(|peer| peer.uris().first().cloned())),
        ("upstream_address", record.upstream_host.map(str::to_owned)),
        ("retry_count", retries(record)),
    ];
    let all = first.into_iter().chain(common(record)).chain(ours);
    all.filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Headers of the request that [`of_request`] and the custom tags are made of. None: there is no second look, or the
/// tags want more than that.
pub(super) fn tail_head(config: &Tracing) -> Option<Arc<[HeaderName]>> {
    config.tail?;
    let mut all = vec![
        names::X_REQUEST_ID,
        HeaderName::from_static("x-envoy-downstream-service-cluster"),
        header::USER_AGENT,
        names::X_CLIENT_TRACE_ID,
        HeaderName::from_static("x-envoy-original-path"),
        names::X_FORWARDED_PROTO,
        header::HOST,
    ];
    for (_, template) in &config.custom_tags {
        all.extend(template.only_request_headers()?);
    }
    all.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    all.dedup();
    Some(all.into())
}

/// Of the span of one try.
pub(super) fn of_try(record: &Record<'_>) -> Attributes {
    let host = record.upstream_host.map(str::to_owned);
    let protocol = record.upstream.and_then(|upstream| upstream.protocol);
    let first = [
        ("http.protocol", protocol.map(str::to_owned)),
        ("upstream_address", host.clone()),
        ("peer.address", host),
    ];
    let all = first.into_iter().chain(common(record));
    all.filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Whether a span says that it failed.
pub(super) fn failed(record: &Record<'_>) -> bool {
    let status = record.status.unwrap_or(0);
    status >= 500 || status == 0 || format::grpc_status(record).is_some_and(|code| code != 0)
}

fn common(record: &Record<'_>) -> [(&'static str, Option<String>); 7] {
    let cluster = record.upstream_cluster.map(str::to_owned);
    let flags = if record.flags.is_empty() { "-".to_owned() } else { record.flags.join(",") };
    [
        ("component", Some("proxy".to_owned())),
        ("upstream_cluster", cluster.clone()),
        ("upstream_cluster.name", cluster),
        ("http.status_code", Some(record.status.unwrap_or(0).to_string())),
        ("response_flags", Some(flags)),
        ("grpc.status_code", format::grpc_status(record).map(|code| code.to_string())),
        ("error", failed(record).then(|| "true".to_owned())),
    ]
}

fn retries(record: &Record<'_>) -> Option<String> {
    (record.upstream_attempts > 1).then(|| (record.upstream_attempts - 1).to_string())
}

/// `scheme://authority/path`; the path is cut.
fn url(record: &Record<'_>, path_limit: usize) -> String {
    let original = record.request_headers.and_then(|headers| headers.get("x-envoy-original-path"));
    let path = original.and_then(|path| path.to_str().ok()).or(record.path).unwrap_or_default();
    let path = path.get(..path_limit).unwrap_or(path);
    let scheme = record.scheme.unwrap_or("http");
    format!("{scheme}://{}{path}", record.authority.unwrap_or_default())
}
