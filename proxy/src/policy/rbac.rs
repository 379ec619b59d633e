//! Whether a set of policies lets a request, or a connection, pass.

mod matcher;

use std::net::{IpAddr, SocketAddr};

use crate::model::Name;
use crate::model::dynamic::Dynamic;
use crate::model::matcher::{RequestView, StringMatcher};
use crate::model::rbac::{Action, Matcher, Permission, Policy, Principal, Rbac};
use crate::tls::PeerIdentity;

/// What policies may ask about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// None: a connection without requests; whatever asks about headers or paths does not match.
    pub request: Option<RequestView<'a>>,
    /// The client, as far as `x-forwarded-for` is trusted.
    pub remote: Option<IpAddr>,
    /// The peer of the connection.
    pub direct: Option<IpAddr>,
    /// What it connected to.
    pub destination: Option<SocketAddr>,
    /// Name of its TLS hello.
    pub server_name: Option<&'a str>,
    /// What filters noted about the request.
    pub dynamic: Option<&'a Dynamic>,
    /// Its verified certificate.
    pub peer: Option<&'a PeerIdentity>,
    /// `tls` or `raw_buffer`, while a filter chain is chosen.
    pub transport: Option<&'a str>,
    /// What it speaks, while a filter chain is chosen.
    pub protocols: &'a [String],
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// It may pass.
    pub allowed: bool,
    /// The first policy that matched.
    pub policy: Option<&'a Name>,
}

/// What the tree comes to (`filter_chain_matcher`: the name of a chain). None: nothing matches.
pub fn outcome<'a>(tree: &'a Matcher, subject: &Subject<'_>) -> Option<&'a Name> {
    matcher::decide(tree, subject).map(|(name, _)| name)
}

/// The decision of `rules` about `subject`.
pub fn decide<'a>(rules: &'a Rbac, subject: &Subject<'_>) -> Decision<'a> {
    if let Some(tree) = &rules.matcher {
        // Who matches nothing may not pass.
        let Some((name, action)) = matcher::decide(tree, subject) else {
            return Decision { allowed: false, policy: None };
        };
        return Decision { allowed: action != Action::Deny, policy: Some(name) };
    }
    let matched = rules.policies.iter().find(|policy| applies(policy, subject));
    let allowed = match rules.action {
        Action::Allow => matched.is_some(),
        Action::Deny => matched.is_none(),
        Action::Log => true,
    };
    Decision { allowed, policy: matched.map(|policy| &policy.name) }
}

fn applies(policy: &Policy, subject: &Subject<'_>) -> bool {
    policy.permissions.iter().any(|permission| permits(permission, subject))
        && policy.principals.iter().any(|principal| is(principal, subject))
}

fn permits(permission: &Permission, subject: &Subject<'_>) -> bool {
    match permission {
        Permission::Any => true,
        Permission::And(all) => all.iter().all(|one| permits(one, subject)),
        Permission::Or(any) => any.iter().any(|one| permits(one, subject)),
        Permission::Not(one) => !permits(one, subject),
        Permission::Header(matcher) => {
            subject.request.as_ref().is_some_and(|request| matcher.matches(request))
        }
        Permission::Path(matcher) => path(subject, matcher),
        Permission::DestinationIp(net) => {
            subject.destination.is_some_and(|address| net.contains(&address.ip()))
        }
        Permission::DestinationPort(from, to) => subject
            .destination
            .is_some_and(|address| (*from..*to).contains(&u32::from(address.port()))),
        Permission::Metadata(matcher) => matcher.matches(subject.dynamic),
        Permission::ServerName(matcher) => matcher.matches(subject.server_name.unwrap_or("")),
    }
}

fn is(principal: &Principal, subject: &Subject<'_>) -> bool {
    match principal {
        Principal::Any => true,
        Principal::And(all) => all.iter().all(|one| is(one, subject)),
        Principal::Or(any) => any.iter().any(|one| is(one, subject)),
        Principal::Not(one) => !is(one, subject),
        Principal::Authenticated(name) => {
            subject.peer.is_some_and(|peer| name.as_ref().is_none_or(|name| named(peer, name)))
        }
        Principal::RemoteIp(net) => subject.remote.is_some_and(|ip| net.contains(&ip)),
        Principal::DirectRemoteIp(net) => subject.direct.is_some_and(|ip| net.contains(&ip)),
        Principal::Header(matcher) => {
            subject.request.as_ref().is_some_and(|request| matcher.matches(request))
        }
        Principal::Path(matcher) => path(subject, matcher),
        Principal::Metadata(matcher) => matcher.matches(subject.dynamic),
        Principal::State(matcher) => matcher.matches(subject.dynamic),
    }
}

/// URI names, else DNS names, else the subject (`Principal.Authenticated.principal_name`).
fn named(peer: &PeerIdentity, name: &StringMatcher) -> bool {
    let any = |names: &[String]| names.iter().any(|one| name.matches(one));
    if !peer.uri_sans.is_empty() {
        any(&peer.uri_sans)
    } else if !peer.dns_sans.is_empty() {
        any(&peer.dns_sans)
    } else {
        name.matches(&peer.subject)
    }
}

fn path(subject: &Subject<'_>, matcher: &StringMatcher) -> bool {
    subject.request.is_some_and(|request| {
        let path = request.path.split(['?', '#']).next().unwrap_or("");
        matcher.matches(path)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::model::matcher::StringMatch;

    fn prefix(text: &str) -> StringMatcher {
        StringMatcher { kind: StringMatch::Prefix(text.to_owned()), ignore_case: false }
    }

    fn rules(action: Action) -> Rbac {
        let principal = Principal::Authenticated(Some(prefix("spiffe://shop/ns/default/sa/web")));
        Rbac {
            action,
            matcher: None,
            policies: vec![Policy {
                name: Name::from("web-reads"),
                permissions: vec![Permission::And(vec![
                    Permission::Path(prefix("/catalog")),
                    Permission::DestinationPort(80, 81),
                ])],
                principals: vec![principal],
            }],
        }
    }

    fn ask(rules: &Rbac, peer: Option<&PeerIdentity>, path: &str) -> bool {
        let headers = HeaderMap::new();
        let request = RequestView {
            method: "GET",
            path,
            authority: Some("a"),
            scheme: None,
            headers: &headers,
        };
        let destination = Some(SocketAddr::from(([10, 0, 0, 1], 80)));
        let subject = Subject { request: Some(request), destination, peer, ..Subject::default() };
        decide(rules, &subject).allowed
    }

    fn peer(uris: &[&str], dns: &[&str]) -> PeerIdentity {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut peer = PeerIdentity::default();
        peer.uri_sans = owned(uris);
        peer.dns_sans = owned(dns);
        peer
    }

    #[test]
    fn who_and_what_have_to_match() {
        let web = peer(&["spiffe://shop/ns/default/sa/web"], &[]);
        let rules = rules(Action::Allow);
        assert!(ask(&rules, Some(&web), "/catalog/1?x=/"));
        assert!(!ask(&rules, Some(&web), "/cart?/catalog"));
        assert!(!ask(&rules, None, "/catalog/1"));
    }

    #[test]
    fn deny_is_the_opposite_and_log_refuses_nothing() {
        let web = peer(&["spiffe://shop/ns/default/sa/web"], &[]);
        assert!(!ask(&rules(Action::Deny), Some(&web), "/catalog"));
        assert!(ask(&rules(Action::Deny), None, "/catalog"));
        assert!(ask(&rules(Action::Log), Some(&web), "/cart"));
    }

    #[test]
    fn a_uri_name_hides_the_other_names() {
        assert!(!named(&peer(&["spiffe://shop/other"], &["web.shop"]), &prefix("web")));
        assert!(named(&peer(&[], &["web.shop"]), &prefix("web")));
    }

    #[test]
    fn a_connection_without_requests_matches_no_path() {
        let rules = rules(Action::Allow);
        let decision = decide(&rules, &Subject::default());
        assert_eq!(decision, Decision { allowed: false, policy: None });
    }
}
