//! `RouteConfiguration` and its virtual hosts.

use std::sync::Arc;

use pillion_xds::envoy::config::route::v3 as pb;
use pillion_xds::envoy::r#type::v3::FractionalPercent;

use super::at::At;
use super::common;
use super::filter;
use super::headers;
use super::matcher;
use super::retry;
use super::route_action;
use super::route_match;
use super::tracing;
use crate::model::kept::Kept;
use crate::model::route::{
    Action, Counted, Decorator, Domains, Mirror, RequireTls, Route, RouteTable, VirtualCluster,
    VirtualHost,
};
use crate::model::tracing::RouteTracing;

/// `RouteConfiguration`
pub(super) fn table(at: &At<'_>, config: &pb::RouteConfiguration) -> Option<RouteTable> {
    let hosts_at = at.field("virtual_hosts");
    let mirrors_at = at.field("request_mirror_policies");
    let mirrors = mirrors_at.each(&config.request_mirror_policies, route_action::mirror);
    let given = Inherited {
        body_limit: config.max_direct_response_body_size_bytes.unwrap_or(4096) as usize,
        mirrors: &mirrors,
        buffer_limit: None,
    };
    let hosts: Vec<_> =
        hosts_at.each(&config.virtual_hosts, |at, host| virtual_host(at, host, &given));
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
    let routes = hosts.iter().flat_map(|host| &host.routes);
    let traces =
        routes.into_iter().any(|route| route.tracing.is_some() || route.decorator.is_some());
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
        ignore_path_parameters: config.ignore_path_parameters_in_path_matching,
        traces,
        internal_only: at
            .field("internal_only_headers")
            .each(&config.internal_only_headers, |at, name| headers::name_of(at, name)),
        most_specific_header_mutations_wins: config.most_specific_header_mutations_wins,
        filters,
    })
}

/// What routes have from their virtual host and their table, where they say nothing themselves.
struct Inherited<'a> {
    body_limit: usize,
    mirrors: &'a [Mirror],
    buffer_limit: Option<usize>,
}

/// Bytes of a body that are kept: `request_body_buffer_limit`, or what came before it.
fn buffer_limit(limit: Option<u64>, before: Option<u32>) -> Option<usize> {
    let limit = limit.or_else(|| before.map(u64::from))?;
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
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
    Some(all)
}

fn add_domain(at: &At<'_>, all: &mut Domains, domain: &str, index: usize) -> Option<()> {
    let twice = || format!("domain `{domain}` stands twice in this route configuration");
    if domain == "*" {
        at.expect(all.any.is_none(), twice())?;
        all.any = Some(index);
    } else if let Some(suffix) = domain.strip_prefix('*') {
        at.expect(!suffix.contains('*'), "a wildcard may stand at one end only")?;
        at.expect(all.suffixes.insert(suffix, index), twice())?;
    } else if let Some(prefix) = domain.strip_suffix('*') {
        at.expect(!prefix.contains('*'), "a wildcard may stand at one end only")?;
        at.expect(all.prefixes.insert(prefix, index), twice())?;
    } else {
        at.expect(!domain.contains('*'), "a wildcard may stand at an end only")?;
        at.expect(!domain.is_empty(), "is empty")?;
        at.expect(!all.exact.contains_key(domain), twice())?;
        all.exact.insert_mut(domain.into(), index);
    }
    Some(())
}

fn virtual_host(
    at: &At<'_>,
    host: &pb::VirtualHost,
    given: &Inherited<'_>,
) -> Option<Arc<VirtualHost>> {
    use pb::virtual_host::TlsRequirementType as Tls;
    at.field("name").expect(!host.name.is_empty(), "is empty")?;
    let routes_at = at.field("routes");
    let mirrors_at = at.field("request_mirror_policies");
    let mirrors = mirrors_at.each(&host.request_mirror_policies, route_action::mirror);
    let given = Inherited {
        body_limit: given.body_limit,
        mirrors: if mirrors.is_empty() { given.mirrors } else { &mirrors },
        buffer_limit: buffer_limit(
            host.request_body_buffer_limit,
            host.per_request_buffer_limit_bytes,
        ),
    };
    let routes = routes_at.each(&host.routes, |at, route| one(at, route, &given).map(Arc::new));
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
        virtual_clusters: virtual_clusters(at, &host.virtual_clusters),
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
        index: Kept::default(),
    }))
}

/// The last of them takes what no other one does.
fn virtual_clusters(at: &At<'_>, clusters: &[pb::VirtualCluster]) -> Vec<Arc<VirtualCluster>> {
    let made = |name: &str, headers| {
        Arc::new(VirtualCluster { name: name.into(), headers, kept: Kept::default() })
    };
    let mut all = at.field("virtual_clusters").each(clusters, |at, cluster| {
        at.field("name").expect(!cluster.name.is_empty(), "is empty")?;
        at.field("headers").expect(!cluster.headers.is_empty(), "expected at least one")?;
        let headers = at.field("headers").each(&cluster.headers, matcher::header);
        Some(made(&cluster.name, headers))
    });
    if !all.is_empty() {
        all.push(made("other", Vec::new()));
    }
    all
}

fn decorator(at: &At<'_>, config: &pb::Decorator) -> Option<Decorator> {
    at.field("operation").expect(!config.operation.is_empty(), "is empty")?;
    let operation = config.operation.as_str().into();
    Some(Decorator { operation, propagate: config.propagate != Some(false) })
}

/// Sampling and tags.
fn route_tracing(at: &At<'_>, config: &pb::Tracing) -> RouteTracing {
    let percent = |share: Option<&FractionalPercent>| {
        share.map_or(100.0, |share| f64::from(common::fraction(share)) / 10_000.0)
    };
    RouteTracing {
        client_sampling: percent(config.client_sampling.as_ref()),
        random_sampling: percent(config.random_sampling.as_ref()),
        overall_sampling: percent(config.overall_sampling.as_ref()),
        custom_tags: at.field("custom_tags").each(&config.custom_tags, tracing::tag),
    }
}

fn one(at: &At<'_>, route: &pb::Route, given: &Inherited<'_>) -> Option<Route> {
    let matches_at = at.field("match");
    let matches = route_match::matches(&matches_at, matches_at.required(route.r#match.as_ref())?)?;
    let filters = filter::overrides(at, &route.typed_per_filter_config);
    let response_headers = headers::ops(
        at,
        ("response_headers_to_add", &route.response_headers_to_add),
        ("response_headers_to_remove", &route.response_headers_to_remove),
    );
    route_action::check_template(at, &matches.path, route.action.as_ref())?;
    let mut action = route_action::action(at, route.action.as_ref(), given.body_limit)?;
    if let Action::Forward(forward) = &mut action {
        if forward.mirrors.is_empty() {
            forward.mirrors = given.mirrors.to_vec();
        }
        let own = (route.request_body_buffer_limit, route.per_request_buffer_limit_bytes);
        forward.buffer_limit = buffer_limit(own.0, own.1).or(given.buffer_limit);
    }
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
        decorator: match &route.decorator {
            Some(wanted) => Some(Arc::new(decorator(&at.field("decorator"), wanted)?)),
            None => None,
        },
        tracing: route
            .tracing
            .as_ref()
            .map(|tracing| Arc::new(route_tracing(&at.field("tracing"), tracing))),
        counted: (!route.stat_prefix.is_empty()).then(|| {
            let prefix = route.stat_prefix.as_str().into();
            Arc::new(Counted { prefix, kept: Kept::default() })
        }),
        filters,
    })
}
