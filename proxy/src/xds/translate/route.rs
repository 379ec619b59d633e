//! `RouteConfiguration` and its virtual hosts.

use std::sync::Arc;

use pillion_xds::envoy::config::route::v3 as pb;

use super::at::At;
use super::filter;
use super::headers;
use super::retry;
use super::route_action;
use super::route_match;
use crate::model::route::{Domains, RequireTls, Route, RouteTable, VirtualHost};

/// `RouteConfiguration`
pub(super) fn table(at: &At<'_>, config: &pb::RouteConfiguration) -> Option<RouteTable> {
    let hosts_at = at.field("virtual_hosts");
    let limit = config.max_direct_response_body_size_bytes.unwrap_or(4096) as usize;
    let hosts: Vec<_> =
        hosts_at.each(&config.virtual_hosts, |at, host| virtual_host(at, host, limit));
    if hosts.len() != config.virtual_hosts.len() {
        // What was refused is noted; indices would not fit any more.
        return None;
    }
    let filters = filter::overrides(at, &config.typed_per_filter_config);
    let response_headers = headers::ops(
        at,
        ("response_headers_to_add", &config.response_headers_to_add),
        ("response_headers_to_remove", &config.response_headers_to_remove),
    );
    Some(RouteTable {
        name: config.name.as_str().into(),
        domains: domains(&hosts_at, &config.virtual_hosts)?,
        hosts,
        ignore_port_in_host_matching: config.ignore_port_in_host_matching,
        request_headers: headers::ops(
            at,
            ("request_headers_to_add", &config.request_headers_to_add),
            ("request_headers_to_remove", &config.request_headers_to_remove),
        ),
        tells_request: headers::tell_request(&response_headers, &filters),
        response_headers,
        most_specific_header_mutations_wins: config.most_specific_header_mutations_wins,
        filters,
    })
}

/// Which host serves which domain. A domain may stand once in the whole table.
fn domains(at: &At<'_>, hosts: &[pb::VirtualHost]) -> Option<Domains> {
    let mut all = Domains::default();
    for (index, host) in hosts.iter().enumerate() {
        let host_at = at.index(index);
        let list_at = host_at.field("domains");
        list_at.expect(!host.domains.is_empty(), "expected at least one domain")?;
        for (i, domain) in host.domains.iter().enumerate() {
            add_domain(&list_at.index(i), &mut all, &domain.to_ascii_lowercase(), index)?;
        }
    }
    let longest_first = |a: &(String, usize), b: &(String, usize)| b.0.len().cmp(&a.0.len());
    all.suffixes.sort_by(longest_first);
    all.prefixes.sort_by(longest_first);
    Some(all)
}

fn add_domain(at: &At<'_>, all: &mut Domains, domain: &str, index: usize) -> Option<()> {
    let twice = || format!("domain `{domain}` stands twice in this route configuration");
    if domain == "*" {
        at.expect(all.any.is_none(), twice())?;
        all.any = Some(index);
    } else if let Some(suffix) = domain.strip_prefix('*') {
        at.expect(!suffix.contains('*'), "a wildcard may stand at one end only")?;
        at.expect(all.suffixes.iter().all(|(have, _)| have != suffix), twice())?;
        all.suffixes.push((suffix.to_owned(), index));
    } else if let Some(prefix) = domain.strip_suffix('*') {
        at.expect(!prefix.contains('*'), "a wildcard may stand at one end only")?;
        at.expect(all.prefixes.iter().all(|(have, _)| have != prefix), twice())?;
        all.prefixes.push((prefix.to_owned(), index));
    } else {
        at.expect(!domain.contains('*'), "a wildcard may stand at an end only")?;
        at.expect(!domain.is_empty(), "is empty")?;
        at.expect(!all.exact.contains_key(domain), twice())?;
        all.exact.insert_mut(domain.into(), index);
    }
    Some(())
}

fn virtual_host(at: &At<'_>, host: &pb::VirtualHost, limit: usize) -> Option<Arc<VirtualHost>> {
    use pb::virtual_host::TlsRequirementType as Tls;
    at.field("name").expect(!host.name.is_empty(), "is empty")?;
    let routes_at = at.field("routes");
    let routes = routes_at.each(&host.routes, |at, route| one(at, route, limit).map(Arc::new));
    let retry = match &host.retry_policy {
        Some(policy) => Some(Arc::new(retry::policy(&at.field("retry_policy"), policy)?)),
        None => None,
    };
    let filters = filter::overrides(at, &host.typed_per_filter_config);
    let response_headers = headers::ops(
        at,
        ("response_headers_to_add", &host.response_headers_to_add),
        ("response_headers_to_remove", &host.response_headers_to_remove),
    );
    Some(Arc::new(VirtualHost {
        name: host.name.as_str().into(),
        routes,
        request_headers: headers::ops(
            at,
            ("request_headers_to_add", &host.request_headers_to_add),
            ("request_headers_to_remove", &host.request_headers_to_remove),
        ),
        tells_request: headers::tell_request(&response_headers, &filters),
        response_headers,
        retry,
        hedge: retry::hedges(host.hedge_policy.as_ref()) == Some(true),
        require_tls: match host.require_tls() {
            Tls::None => RequireTls::None,
            Tls::ExternalOnly => RequireTls::ExternalOnly,
            Tls::All => RequireTls::All,
        },
        include_request_attempt_count: host.include_request_attempt_count,
        include_is_timeout_retry: host.include_is_timeout_retry_header,
        include_attempt_count_in_response: host.include_attempt_count_in_response,
        rate_limits: at.field("rate_limits").each(&host.rate_limits, filter::describe::rule),
        filters,
    }))
}

fn one(at: &At<'_>, route: &pb::Route, limit: usize) -> Option<Route> {
    let matches_at = at.field("match");
    let matches = route_match::matches(&matches_at, matches_at.required(route.r#match.as_ref())?)?;
    let filters = filter::overrides(at, &route.typed_per_filter_config);
    let response_headers = headers::ops(
        at,
        ("response_headers_to_add", &route.response_headers_to_add),
        ("response_headers_to_remove", &route.response_headers_to_remove),
    );
    let action = route_action::action(at, route.action.as_ref(), limit)?;
    Some(Route {
        name: route.name.as_str().into(),
        matches,
        request_headers: headers::ops(
            at,
            ("request_headers_to_add", &route.request_headers_to_add),
            ("request_headers_to_remove", &route.request_headers_to_remove),
        ),
        tells_request: headers::tell_request(&response_headers, &filters) || action.tells_request(),
        action,
        response_headers,
        operation: route.decorator.as_ref().map(|decorator| decorator.operation.as_str().into()),
        filters,
    })
}
