//! Which routes are attached to which listeners of gateways, and for which hosts. Pure.

use std::collections::BTreeSet;

use super::gateway::{AllowedNamespaces, Gateway, GatewayRef, Listener};
use super::hostname::intersection;
use super::meta::Name;
use super::problem::Cause;

/// The part of a route that decides where it is attached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// `HTTPRoute`, `GRPCRoute`, `TLSRoute` or `TCPRoute`.
    pub(crate) kind: &'static str,
    /// Namespace and name of the route.
    pub(crate) name: &'a Name,
    /// `hostnames`; empty is every host.
    pub(crate) hostnames: &'a [String],
    /// Its parents that are gateways.
    pub(crate) gateways: &'a [GatewayRef],
}

/// The hosts for which a route is attached to a listener (`None` is every host). Empty: it is not attached.
pub(crate) fn hosts(
    gateway: &Gateway,
    listener: &Listener,
    claim: Claim<'_>,
) -> BTreeSet<Option<String>> {
    let mut refs = claim.gateways.iter().filter(|one| one.gateway == gateway.name);
    let is_meant = refs.any(|one| one.means(listener));
    if !is_meant || !gateway.is_ours() || !allows(gateway, listener, claim) {
        return BTreeSet::new();
    }
    common_hosts(listener.hostname.as_deref(), claim.hostnames)
}

fn allows(gateway: &Gateway, listener: &Listener, claim: Claim<'_>) -> bool {
    let namespace = &claim.name.namespace;
    let from = match &listener.allowed {
        AllowedNamespaces::Same => *namespace == gateway.name.namespace,
        AllowedNamespaces::All => true,
        AllowedNamespaces::Chosen { names, .. } => names.contains(namespace),
    };
    let fits = listener.protocol.kinds().contains(&claim.kind);
    let kinds = listener.allowed_kinds.as_ref();
    from && fits && kinds.is_none_or(|kinds| kinds.iter().any(|kind| kind == claim.kind))
}

fn common_hosts(listener: Option<&str>, route: &[String]) -> BTreeSet<Option<String>> {
    match (listener, route) {
        (None, []) => BTreeSet::from([None]),
        (Some(host), []) => BTreeSet::from([Some(host.to_owned())]),
        (None, hosts) => hosts.iter().cloned().map(Some).collect(),
        (Some(host), hosts) => {
            let met = hosts.iter().filter_map(|other| intersection(host, other));
            met.map(|met| Some(met.to_owned())).collect()
        }
    }
}

/// Why a reference to a gateway that exists attaches its route nowhere; `None` if it does.
pub(crate) fn obstacle(
    gateway: &Gateway,
    reference: &GatewayRef,
    claim: Claim<'_>,
) -> Option<(Cause, String)> {
    if !gateway.is_ours() {
        return None;
    }
    let name = &gateway.name;
    let meant: Vec<&Listener> =
        gateway.listeners.iter().filter(|one| reference.means(one)).collect();
    if meant.is_empty() {
        let message = match (&reference.section, reference.port) {
            (Some(section), None) => format!("Gateway {name} has no listener named `{section}`"),
            (Some(section), Some(port)) => {
                format!("Gateway {name} has no listener named `{section}` on port {port}")
            }
            (None, Some(port)) => format!("Gateway {name} has no listener on port {port}"),
            (None, None) => format!("Gateway {name} has no listeners"),
        };
        return Some((Cause::Other, message));
    }
    let allowed: Vec<&&Listener> = meant.iter().filter(|one| allows(gateway, one, claim)).collect();
    if allowed.is_empty() {
        let message = format!(
            "no listener of Gateway {name} that is meant takes a {} of namespace `{}` (its protocol, or `allowedRoutes`)",
            claim.kind, claim.name.namespace
        );
        return Some((Cause::NotAllowed, message));
    }
    let meets =
        |one: &&&Listener| !common_hosts(one.hostname.as_deref(), claim.hostnames).is_empty();
    (!allowed.iter().any(meets)).then(|| {
        let message = format!(
            "no listener of Gateway {name} that is meant is for any of the route's `hostnames`"
        );
        (Cause::NoMatchingHostname, message)
    })
}
