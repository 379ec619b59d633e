//! Header changes of routes, on the way up and on the way down.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::admit::{self, Plan};
use super::exchange::Exchange;
use super::record;
use crate::http::body::RequestBody;
use crate::http::target;
use crate::model::format::Template;
use crate::model::headers::{HeaderAdd, HeaderAppend, HeaderOps};
use crate::model::route::RouteTable;
use crate::telemetry::format;

/// Apply every level's changes to a request: the weighted cluster's, the route's, the virtual
/// host's, the table's; or the other way round where the most specific shall win.
pub(super) fn to_upstream(
    exchange: &Exchange,
    plan: &Plan<'_>,
    request: &mut Request<RequestBody>,
) {
    let weighted = plan.weighted.map(|entry| &entry.request_headers);
    let levels = [
        weighted,
        Some(&plan.route.request_headers),
        Some(&plan.host.request_headers),
        Some(&plan.table.request_headers),
    ];
    for ops in ordered(plan.table, levels) {
        let values = values(exchange, ops, Some(request), None);
        for (add, value) in ops.add.iter().zip(values) {
            if add.name == HOST {
                target::set_authority(request, &value);
            } else {
                add_one(request.headers_mut(), add, value);
            }
        }
        remove(request.headers_mut(), ops);
    }
}

/// The same for a response.
pub(super) fn to_downstream(exchange: &Exchange, plan: &Plan<'_>, headers: &mut HeaderMap) {
    let weighted = plan.weighted.map(|entry| &entry.response_headers);
    let levels = [
        weighted,
        Some(&plan.route.response_headers),
        Some(&plan.host.response_headers),
        Some(&plan.table.response_headers),
    ];
    change(exchange, ordered(plan.table, levels), headers);
}

/// The same for an answer of our own: once there is a route, its changes hold for that as well.
pub(super) fn to_own_answer(exchange: &Exchange, headers: &mut HeaderMap) {
    let (Some(host), Some(route)) = (&exchange.facts.host, &exchange.facts.route) else { return };
    let routes = &exchange.connection.http.manager.routes;
    let Ok(table) = admit::route_table(&exchange.live, routes) else { return };
    let levels = [
        None,
        Some(&route.response_headers),
        Some(&host.response_headers),
        Some(&table.response_headers),
    ];
    change(exchange, ordered(table, levels), headers);
}

/// Changes of a filter to a request that goes on.
pub(super) fn to_request(exchange: &Exchange, ops: &HeaderOps, request: &mut Request<RequestBody>) {
    let values = values(exchange, ops, Some(request), None);
    for (add, value) in ops.add.iter().zip(values) {
        add_one(request.headers_mut(), add, value);
    }
    remove(request.headers_mut(), ops);
}

/// Changes to the headers of an answer, level by level.
pub(super) fn change<'a>(
    exchange: &Exchange,
    levels: impl Iterator<Item = &'a HeaderOps>,
    headers: &mut HeaderMap,
) {
    for ops in levels {
        let values = values(exchange, ops, None, Some(headers));
        for (add, value) in ops.add.iter().zip(values) {
            add_one(headers, add, value);
        }
        remove(headers, ops);
    }
}

fn ordered<'a>(
    table: &RouteTable,
    mut levels: [Option<&'a HeaderOps>; 4],
) -> impl Iterator<Item = &'a HeaderOps> {
    if table.most_specific_header_mutations_wins {
        levels.reverse();
    }
    levels.into_iter().flatten().filter(|ops| !ops.is_empty())
}

/// The values to add, worked out before anything is changed.
fn values(
    exchange: &Exchange,
    ops: &HeaderOps,
    request: Option<&Request<RequestBody>>,
    response: Option<&HeaderMap>,
) -> Vec<HeaderValue> {
    ops.add.iter().map(|add| value_of(exchange, &add.value, request, response)).collect()
}

/// A value, worked out now.
pub(super) fn value_of(
    exchange: &Exchange,
    template: &Template,
    request: Option<&Request<RequestBody>>,
    response: Option<&HeaderMap>,
) -> HeaderValue {
    if let Some(literal) = template.as_literal() {
        return value(literal);
    }
    let mut text = String::new();
    record::with(exchange, request, response, |record| {
        format::write(template, record, &mut text);
    });
    value(&text)
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn add_one(headers: &mut HeaderMap, add: &HeaderAdd, value: HeaderValue) {
    if !value.is_empty() || add.keep_empty {
        put(headers, (&add.name, add.action), value);
    }
}

/// A value into a header, with regard to what is there.
pub(super) fn put(
    headers: &mut HeaderMap,
    (name, action): (&HeaderName, HeaderAppend),
    value: HeaderValue,
) {
    match action {
        HeaderAppend::AppendIfExistsOrAdd => {
            headers.append(name, value);
        }
        HeaderAppend::AddIfAbsent => {
            headers.entry(name).or_insert(value);
        }
        HeaderAppend::OverwriteIfExistsOrAdd => {
            headers.insert(name, value);
        }
        HeaderAppend::OverwriteIfExists => {
            if headers.contains_key(name) {
                headers.insert(name, value);
            }
        }
    }
}

fn remove(headers: &mut HeaderMap, ops: &HeaderOps) {
    for name in &ops.remove {
        headers.remove(name);
    }
}
