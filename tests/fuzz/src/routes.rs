//! Route matching against a table of small pieces, held against the plainest reading of Envoy's
//! documentation: the best domain, then the first route in order.

use std::fmt::Write as _;

use http::HeaderMap;
use pillion_proxy::model::matcher::RequestView;
use pillion_proxy::route;
use pillion_proxy::xds::kind::Kind;
use pillion_proxy::xds::translate::{self, Resource};
use pillion_xds::envoy::config::route::v3::RouteConfiguration;
use pillion_xds::json;
use prost::Message;

const DOMAINS: &[&str] = &["a.b", "*.b", "*.a.b", "a.*", "a.b.*", "*", "A.B:80", "c", "*-x.b"];
const AUTHORITIES: &[&str] =
    &["a.b", "x.b", "x.a.b", "a.c", "a.b.c", "q", "a.b:80", "C", "y-x.b", ".b", "", "x.a.b:80"];
const PATHS: &[&str] = &["/", "/a", "/a/", "/a/b", "/A", "/ab", "/a?b=c", "/b#f", "/a/b/c"];

/// A host: its domains, and its routes as (kind, path).
type Host<'a> = (Vec<&'a str>, Vec<(u8, &'a str)>);

pub(super) fn target(data: &[u8]) {
    let mut bytes = data.iter().copied();
    let hosts = hosts(&mut bytes);
    let Some(table) = table(&hosts) else { return };
    for _ in 0..4 {
        let (Some(authority), Some(path)) = (bytes.next(), bytes.next()) else { return };
        let authority = AUTHORITIES[usize::from(authority) % AUTHORITIES.len()];
        let path = PATHS[usize::from(path) % PATHS.len()];
        let headers = HeaderMap::new();
        let view = RequestView {
            method: "GET",
            path,
            authority: Some(authority),
            scheme: None,
            headers: &headers,
        };
        let found = route::select(&table, &view, route::Given::default());
        let ours = found.map(|found| {
            (found.host.name.to_string(), found.route.map(|route| route.name.to_string()))
        });
        assert_eq!(ours, plainly(&hosts, authority, path), "{authority} {path} in {hosts:?}");
    }
}

fn hosts<'a>(bytes: &mut impl Iterator<Item = u8>) -> Vec<Host<'a>> {
    let mut taken = Vec::new();
    let mut hosts = Vec::new();
    for _ in 0..bytes.next().unwrap_or(0) % 4 {
        let mut domains = Vec::new();
        for _ in 0..=bytes.next().unwrap_or(0) % 3 {
            let domain = DOMAINS[usize::from(bytes.next().unwrap_or(0)) % DOMAINS.len()];
            // A domain stands in one host only.
            if !taken.contains(&domain) {
                taken.push(domain);
                domains.push(domain);
            }
        }
        let routes = (0..bytes.next().unwrap_or(0) % 4)
            .map(|_| {
                let kind = bytes.next().unwrap_or(0) % 5;
                let path = PATHS[usize::from(bytes.next().unwrap_or(0)) % 6];
                (kind, path)
            })
            .collect();
        if !domains.is_empty() {
            hosts.push((domains, routes));
        }
    }
    hosts
}

/// None: a table that is refused, such as for a separated prefix that ends in a slash.
fn table(hosts: &[Host<'_>]) -> Option<std::sync::Arc<pillion_proxy::model::route::RouteTable>> {
    let mut text = String::from("{name: t, virtual_hosts: [");
    for (index, (domains, routes)) in hosts.iter().enumerate() {
        let _ = write!(text, "{{name: h{index}, domains: [");
        for domain in domains {
            let _ = write!(text, "'{domain}', ");
        }
        text.push_str("], routes: [");
        for (number, (kind, path)) in routes.iter().enumerate() {
            let matches = match kind {
                0 => format!("prefix: '{path}'"),
                1 => format!("path: '{path}'"),
                2 => format!("path_separated_prefix: '{path}'"),
                3 => format!("prefix: '{path}', case_sensitive: false"),
                _ => format!("safe_regex: {{regex: '{path}'}}"),
            };
            let _ = write!(
                text,
                "{{name: r{number}, match: {{{matches}}}, direct_response: {{status: 200}}}}, "
            );
        }
        text.push_str("]}, ");
    }
    text.push_str("]}");
    let message: RouteConfiguration = json::from_text(&text).expect("a table of known pieces");
    match translate::resource(Kind::Routes, &message.encode_to_vec()).1 {
        Ok(Resource::Routes(table)) => Some(table),
        _ => None,
    }
}

/// The host and the route, by name, as the documentation has it.
fn plainly(hosts: &[Host<'_>], authority: &str, path: &str) -> Option<(String, Option<String>)> {
    let authority = authority.to_ascii_lowercase();
    // Exact, longest suffix, longest prefix, everything.
    let rank = |domain: &str| {
        let domain = domain.to_ascii_lowercase();
        if domain == "*" {
            return Some((0, 0));
        }
        if let Some(suffix) = domain.strip_prefix('*') {
            let fits = authority.ends_with(suffix) && authority.len() > suffix.len();
            return fits.then_some((2, suffix.len()));
        }
        if let Some(prefix) = domain.strip_suffix('*') {
            let fits = authority.starts_with(prefix) && authority.len() > prefix.len();
            return fits.then_some((1, prefix.len()));
        }
        (domain == authority).then_some((3, 0))
    };
    let best = |domains: &[&str]| domains.iter().filter_map(|domain| rank(domain)).max();
    let ranked = hosts
        .iter()
        .enumerate()
        .filter_map(|(index, (domains, routes))| best(domains).map(|rank| (rank, index, routes)));
    let (_, index, routes) = ranked.max_by_key(|(rank, _, _)| *rank)?;
    let path = path.split(['?', '#']).next().unwrap_or(path);
    let fits = |(kind, want): &(u8, &str)| match kind {
        0 => path.starts_with(want),
        2 => path == *want || path.starts_with(&format!("{want}/")),
        3 => path.to_ascii_lowercase().starts_with(&want.to_ascii_lowercase()),
        _ => path == *want,
    };
    let route = routes.iter().position(fits).map(|number| format!("r{number}"));
    Some((format!("h{index}"), route))
}
