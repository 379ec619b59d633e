//! `Namespace` (core v1): only its labels count, where something chooses namespaces by them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::assemble::Intent;
use super::gateway::{AllowedNamespaces, Gateway, Listener};
use super::meta::Meta;
use crate::map;

/// The label that every namespace bears, with its own name
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-metadata-name>).
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels, with the one that bears its name.
    pub labels: BTreeMap<String, String>,
}

impl Namespace {
    pub(crate) fn of(meta: &Meta) -> Self {
        Self::with(&meta.name.name, meta.labels.clone())
    }

    fn with(name: &str, mut labels: BTreeMap<String, String>) -> Self {
        labels.insert(NAME_LABEL.to_owned(), name.to_owned());
        Self { name: name.to_owned(), labels }
    }
}

/// Finds out which namespaces the selectors of listeners choose. One that nobody described, but that a route is in, has
/// its name and no other label.
pub(crate) fn choose(intent: &mut Intent) {
    if !intent.gateways.values().any(|gateway| gateway.listeners.iter().any(is_choosing)) {
        return;
    }
    let of_requests = intent.routes.keys().map(|(_, name)| &name.namespace);
    let of_connections = intent.l4_routes.keys().map(|(_, name)| &name.namespace);
    let used: BTreeSet<&String> = of_requests.chain(of_connections).collect();
    let unknown = used.into_iter().filter(|name| !intent.namespaces.contains_key(*name));
    let plain = unknown.map(|name| Arc::new(Namespace::with(name, BTreeMap::new())));
    let all: Vec<Arc<Namespace>> = plain.chain(intent.namespaces.values().cloned()).collect();
    map::change_values(&mut intent.gateways, |gateway| {
        gateway.listeners.iter().any(is_choosing).then(|| {
            let mut gateway = Gateway::clone(gateway);
            choose_for(&mut gateway, &all);
            Arc::new(gateway)
        })
    });
}

fn choose_for(gateway: &mut Gateway, all: &[Arc<Namespace>]) {
    for listener in &mut gateway.listeners {
        if let AllowedNamespaces::Chosen { selector, names } = &mut listener.allowed {
            let chosen = all.iter().filter(|one| selector.matches(&one.labels));
            *names = chosen.map(|one| one.name.clone()).collect();
        }
    }
}

fn is_choosing(listener: &Listener) -> bool {
    matches!(listener.allowed, AllowedNamespaces::Chosen { .. })
}

#[cfg(test)]
mod tests {
    use super::super::{assemble, read};

    fn problems(selector: &str, more: &str) -> Vec<String> {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: front, namespace: edge}}
spec:
  gatewayClassName: pillion
  listeners:
  - {{name: http, port: 80, protocol: HTTP, allowedRoutes: {{namespaces: {{from: Selector, selector: {selector}}}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: shop}}
spec: {{parentRefs: [{{name: front, namespace: edge}}], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: shop}}
spec: {{ports: [{{port: 80}}]}}
---
{more}"
        );
        let found = read("a.yaml", &text);
        let parsed = assemble(found.documents, found.problems);
        parsed.problems.iter().map(ToString::to_string).collect()
    }

    const SHOP: &str = "apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a, stage: prod}}
spec: {finalizers: [kubernetes]}
";

    #[test]
    fn a_selector_is_matched_whole() {
        for good in [
            "{matchLabels: {team: a}}",
            "{matchLabels: {team: a, stage: prod}}",
            "{matchLabels: {kubernetes.io/metadata.name: shop}}",
            "{matchExpressions: [{key: team, operator: In, values: [a, b]}]}",
            "{matchExpressions: [{key: team, operator: Exists}, {key: old, operator: DoesNotExist}]}",
            "{matchExpressions: [{key: team, operator: NotIn, values: [b]}]}",
            "{matchExpressions: [{key: absent, operator: NotIn, values: [b]}]}",
            "{}",
        ] {
            assert_eq!(problems(good, SHOP), [""; 0], "{good}");
        }
        for bad in [
            "{matchLabels: {team: b}}",
            "{matchLabels: {team: a, stage: test}}",
            "{matchExpressions: [{key: team, operator: DoesNotExist}]}",
            "{matchExpressions: [{key: team, operator: NotIn, values: [a]}]}",
            "{matchLabels: {team: a}, matchExpressions: [{key: stage, operator: In, values: [test]}]}",
        ] {
            let said = problems(bad, SHOP);
            assert!(said.iter().any(|one| one.contains("allowedRoutes")), "{bad}: {said:?}");
        }
    }

    #[test]
    fn a_namespace_that_nobody_described_has_its_name() {
        assert_eq!(problems("{matchLabels: {kubernetes.io/metadata.name: shop}}", ""), [""; 0]);
        assert!(!problems("{matchLabels: {team: a}}", "").is_empty());
    }

    #[test]
    fn a_selector_that_is_none_is_told_with_its_place() {
        for (bad, part) in [
            ("{matchExpressions: [{key: team, operator: Is, values: [a]}]}", "operator"),
            ("{matchExpressions: [{key: team, operator: In}]}", "values"),
            ("{matchExpressions: [{key: team, operator: Exists, values: [a]}]}", "values"),
        ] {
            let said = problems(bad, SHOP);
            assert!(said.iter().any(|one| one.contains(part)), "{bad}: {said:?}");
        }
    }
}
