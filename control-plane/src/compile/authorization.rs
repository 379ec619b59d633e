//! Who may ask the workload of a sidecar for what: RBAC filters of its inbound listener.

use std::collections::HashMap;

use pillion_xds::any::pack;
use pillion_xds::envoy::config::listener::v3::Filter;
use pillion_xds::envoy::config::rbac::v3::rbac::Action as RbacAction;
use pillion_xds::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, permission, principal};
use pillion_xds::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::PathWithEscapedSlashesAction;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use pillion_xds::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use pillion_xds::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};

use super::listeners::network_filter;
use super::proto::{exact, prefix};
use super::route_match::header_matcher;
use crate::intent::{AccessRule, Action, AuthorizationPolicy, Mesh, PathRule, Peer};

/// The policies that hold for a workload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guard<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) policies: &'a [&'a AuthorizationPolicy],
}

impl Guard<'_> {
    /// Before requests reach the workload's port: what is refused first, then what is let in. Where paths decide, they
    /// are brought to one form before, so that nobody gets around a rule by another way to write a path.
    pub(crate) fn requests(&self, manager: &mut HttpConnectionManager, port: u16) {
        let mut filters = Vec::new();
        for (action, name) in [(Action::Deny, "deny"), (Action::Allow, "allow")] {
            let Some(rules) = self.rules(action, port, true) else { continue };
            let config = HttpRbac { rules: Some(rules), ..HttpRbac::default() };
            filters.push(HttpFilter {
                name: format!("envoy.filters.http.rbac.{name}"),
                config_type: Some(http_filter::ConfigType::TypedConfig(pack(&config))),
                ..HttpFilter::default()
            });
        }
        let mut all = self.policies.iter().flat_map(|policy| &policy.rules);
        if all.any(|rule| !rule.paths.is_empty()) {
            manager.normalize_path = Some(true);
            manager.merge_slashes = true;
            manager.path_with_escaped_slashes_action =
                PathWithEscapedSlashesAction::RejectRequest.into();
        }
        manager.http_filters.splice(0..0, filters);
    }

    /// The same for a port whose bytes nobody understands: a rule of `Allow` about requests lets no connection in, and
    /// one of `Deny` refuses all of its peers.
    pub(crate) fn connections(&self, port: u16) -> Vec<Filter> {
        let one = |action: Action| {
            let config = NetworkRbac {
                rules: Some(self.rules(action, port, false)?),
                stat_prefix: "inbound_authorization".to_owned(),
                ..NetworkRbac::default()
            };
            Some(network_filter("envoy.filters.network.rbac", &config))
        };
        [Action::Deny, Action::Allow].into_iter().filter_map(one).collect()
    }

    /// `None`: nobody has to be asked.
    fn rules(&self, action: Action, port: u16, requests: bool) -> Option<Rbac> {
        let mut policies = HashMap::new();
        let mut count = 0;
        for policy in self.policies.iter().filter(|policy| policy.action == action) {
            count += 1;
            for (index, rule) in policy.rules.iter().enumerate() {
                let elsewhere = !rule.ports.is_empty() && !rule.ports.contains(&port);
                let of_requests = !rule.methods.is_empty() || !rule.paths.is_empty();
                if elsewhere || (of_requests && !requests && action == Action::Allow) {
                    continue;
                }
                let made = Policy {
                    permissions: vec![permission(rule, requests)],
                    principals: vec![self.principal(rule)],
                    ..Policy::default()
                };
                policies.insert(format!("{}[{index}]", policy.name), made);
            }
        }
        let action = match action {
            Action::Allow => RbacAction::Allow,
            Action::Deny => RbacAction::Deny,
        };
        let decides = count > 0 && (action == RbacAction::Allow || !policies.is_empty());
        decides.then(|| Rbac { action: action.into(), policies, ..Rbac::default() })
    }

    fn principal(&self, rule: &AccessRule) -> Principal {
        if rule.from.is_empty() {
            return Principal { identifier: Some(principal::Identifier::Any(true)) };
        }
        let trust_domain = &self.mesh.trust_domain;
        let one = |peer: &Peer| {
            let name = match peer {
                Peer::Account(name) => {
                    let (namespace, name) = (&name.namespace, &name.name);
                    exact(&format!("spiffe://{trust_domain}/ns/{namespace}/sa/{name}"))
                }
                Peer::Namespace(namespace) => {
                    prefix(&format!("spiffe://{trust_domain}/ns/{namespace}/sa/"))
                }
            };
            let authenticated = principal::Authenticated { principal_name: Some(name) };
            Principal { identifier: Some(principal::Identifier::Authenticated(authenticated)) }
        };
        let ids = rule.from.iter().map(one).collect();
        Principal { identifier: Some(principal::Identifier::OrIds(principal::Set { ids })) }
    }
}

fn permission(rule: &AccessRule, requests: bool) -> Permission {
    let of = |rule| Permission { rule: Some(rule) };
    let any_of = |rules| of(permission::Rule::OrRules(permission::Set { rules }));
    let mut all = Vec::new();
    if requests && !rule.methods.is_empty() {
        let method =
            |one: &String| of(permission::Rule::Header(header_matcher(":method", exact(one))));
        all.push(any_of(rule.methods.iter().map(method).collect()));
    }
    if requests && !rule.paths.is_empty() {
        let path = |one: &PathRule| {
            let text = match one {
                PathRule::Exact(path) => exact(path),
                PathRule::Prefix(path) => prefix(path),
            };
            let rule = Some(path_matcher::Rule::Path(text));
            of(permission::Rule::UrlPath(PathMatcher { rule }))
        };
        all.push(any_of(rule.paths.iter().map(path).collect()));
    }
    if all.is_empty() {
        return of(permission::Rule::Any(true));
    }
    of(permission::Rule::AndRules(permission::Set { rules: all }))
}
