//! `ReferenceGrant` (Gateway API): who of another namespace may lead to objects of this one.

use std::sync::Arc;

use super::assemble::Intent;
use super::backend::BackendTarget;
use super::decode::{At, Context, Object, any_text, dns_label, dns_name, text};
use super::document::Object as Said;
use super::gateway::Gateway;
use super::http_route::HttpRoute;
use super::l4_route::L4Route;
use super::meta::{Kind, Meta, Name};
use crate::map;

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// A grant. Its own namespace is that of the objects that it opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Namespace and name.
    pub name: Name,
    /// Who may; any of these.
    pub from: Vec<GrantFrom>,
    /// Where to; any of these.
    pub to: Vec<GrantTo>,
}

/// Whose references are permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantFrom {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
}

/// What may be referred to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantTo {
    /// API group; empty is the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Only the one of this name; `None` is every one.
    pub name: Option<String>,
}

impl ReferenceGrant {
    pub(crate) fn decode(cx: &mut Context, meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let from = object.list(cx, "from", from);
        let to = object.list(cx, "to", to);
        object.finish(cx);
        if from.is_empty() || to.is_empty() {
            return cx.expected(spec, "at least one element in each of `from` and `to`");
        }
        Some(Self { name: meta.name.clone(), from, to })
    }
}

fn from(cx: &mut Context, at: &At<'_>) -> Option<GrantFrom> {
    let mut object = Object::open(cx, at)?;
    let group = object.optional(cx, "group", any_text).unwrap_or_default();
    let kind = object.required(cx, "kind", text);
    let namespace = object.required(cx, "namespace", dns_label);
    object.finish(cx);
    Some(GrantFrom { group, kind: kind?, namespace: namespace? })
}

fn to(cx: &mut Context, at: &At<'_>) -> Option<GrantTo> {
    let mut object = Object::open(cx, at)?;
    let group = object.optional(cx, "group", any_text).unwrap_or_default();
    let kind = object.required(cx, "kind", text);
    let name = object.optional(cx, "name", dns_name);
    object.finish(cx);
    // `core` is how some write the group without a name.
    let group = if group == "core" { String::new() } else { group };
    Some(GrantTo { group, kind: kind?, name })
}

/// Whether an object of this kind and namespace may lead to `to`.
pub(crate) fn permits(
    intent: &Intent,
    (kind, namespace): (Kind, &str),
    (group, of, to): (&str, &str, &Name),
) -> bool {
    if to.namespace == namespace {
        return true;
    }
    let start = Name::new(to.namespace.as_str(), "");
    let there = intent.grants.range(start..).take_while(|(name, _)| name.namespace == to.namespace);
    there.map(|(_, grant)| grant).any(|grant| {
        let who = grant.from.iter().any(|from| {
            from.group == GATEWAY_API && from.kind == kind.as_str() && from.namespace == namespace
        });
        let what = grant.to.iter().any(|one| {
            one.group == group
                && one.kind == of
                && one.name.as_ref().is_none_or(|name| *name == to.name)
        });
        who && what
    })
}

/// Whether what a document says may lead to a backend. A route may always lead back to a Service that it is attached
/// to: the requests were on their way there.
pub(crate) fn permits_backend(intent: &Intent, said: &Said, target: &BackendTarget) -> bool {
    let (kind, name) = match said {
        Said::Route(route) => (route.kind.kind(), &route.name),
        Said::L4Route(route) => (route.kind.kind(), &route.name),
        _ => return true,
    };
    let from = (kind, name.namespace.as_str());
    match target {
        BackendTarget::Service { service, .. } => {
            let is_parent = matches!(said, Said::Route(route)
                if route.parents.iter().any(|parent| parent.service == *service));
            is_parent || permits(intent, from, ("", "Service", service))
        }
        BackendTarget::External { service, .. } => {
            permits(intent, from, ("pillion.io", "ExternalService", service))
        }
        BackendTarget::Unsupported(_) | BackendTarget::NotPermitted(_) => true,
    }
}

/// Takes out of the intent what leads to another namespace without a grant of it.
pub(crate) fn enforce(intent: &mut Intent) {
    let mut routes = std::mem::take(&mut intent.routes);
    map::change_values(&mut routes, |route| permitted(intent, route));
    intent.routes = routes;
    let mut routes = std::mem::take(&mut intent.l4_routes);
    map::change_values(&mut routes, |route| {
        let said = Said::L4Route(Arc::clone(route));
        let refused = |target: &BackendTarget| !permits_backend(intent, &said, target);
        route.backends.iter().any(|one| refused(&one.target)).then(|| {
            let mut changed = L4Route::clone(route);
            for backend in &mut changed.backends {
                refuse(intent, &said, &mut backend.target);
            }
            Arc::new(changed)
        })
    });
    intent.l4_routes = routes;
    enforce_certificates(intent);
}

/// What is left of a route without what leads to another namespace without a grant of it; `None` if that is all of it.
pub(crate) fn permitted(intent: &Intent, route: &Arc<HttpRoute>) -> Option<Arc<HttpRoute>> {
    let said = Said::Route(Arc::clone(route));
    let refused = |target: &BackendTarget| !permits_backend(intent, &said, target);
    super::http_route::targets(route).any(refused).then(|| {
        let mut changed = route.as_ref().clone();
        for target in super::http_route::targets_mut(&mut changed) {
            refuse(intent, &said, target);
        }
        Arc::new(changed)
    })
}

fn refuse(intent: &Intent, said: &Said, target: &mut BackendTarget) {
    if permits_backend(intent, said, target) {
        return;
    }
    *target = BackendTarget::NotPermitted(match target {
        BackendTarget::Service { service, .. } => format!("Service {service}"),
        BackendTarget::External { service, .. } => format!("ExternalService {service}"),
        BackendTarget::Unsupported(what) | BackendTarget::NotPermitted(what) => what.clone(),
    });
}

fn enforce_certificates(intent: &mut Intent) {
    let mut gateways = std::mem::take(&mut intent.gateways);
    map::change_values(&mut gateways, |gateway| {
        let from = (Kind::Gateway, gateway.name.namespace.as_str());
        let permitted = |secret: &Name| permits(intent, from, ("", "Secret", secret));
        let mut secrets = gateway.listeners.iter().flat_map(|one| &one.certificates);
        (!secrets.all(permitted)).then(|| {
            let mut changed = Gateway::clone(gateway);
            for listener in &mut changed.listeners {
                listener.certificates.retain(permitted);
            }
            Arc::new(changed)
        })
    });
    intent.gateways = gateways;
}

#[cfg(test)]
mod tests {
    use super::super::{Cause, Parsed, assemble, read};
    use super::*;

    const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: back}
spec: {ports: [{port: 80, appProtocol: http}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: front}
spec:
  gatewayClassName: pillion
  listeners:
  - {name: a, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: shop, namespace: back}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: front}
spec:
  parentRefs: [{name: edge}]
  rules:
  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: catalog, namespace: back, port: 80}}}]
    backendRefs: [{name: catalog, namespace: back, port: 80}]
";

    fn with(more: &str) -> Parsed {
        let read = read("mesh.yaml", &format!("{SHOP}---\n{more}"));
        assemble(read.documents, read.problems)
    }

    fn grant(kind: &str, to: &str) -> String {
        format!(
            "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{name: {}, namespace: back}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: front}}]
  to: [{to}]
",
            kind.to_lowercase()
        )
    }

    fn refused(parsed: &Parsed) -> Vec<&str> {
        assert!(parsed.problems.iter().all(|one| one.cause == Cause::NotPermitted), "{parsed:?}");
        parsed.problems.iter().map(|one| one.field.as_str()).collect()
    }

    #[test]
    fn nothing_leads_to_another_namespace_without_its_grant() {
        let closed = with("");
        assert_eq!(
            refused(&closed),
            [
                "spec.listeners[0].tls.certificateRefs[0].name",
                "spec.rules[0].filters[0].requestMirror.backendRef.name",
                "spec.rules[0].backendRefs[0].name",
            ]
        );
        let route = closed.intent.routes.values().next().unwrap();
        let not = BackendTarget::NotPermitted("Service back/catalog".to_owned());
        assert!(super::super::http_route::targets(route).all(|target| *target == not));
        let gateway = closed.intent.gateways.values().next().unwrap();
        assert!(gateway.listeners[0].certificates.is_empty());
    }

    #[test]
    fn a_grant_opens_what_it_names() {
        let other = grant("HTTPRoute", "{kind: Service, name: other}");
        assert_eq!(refused(&with(&other)).len(), 3);
        let routes = grant("HTTPRoute", "{group: '', kind: Service}");
        assert_eq!(refused(&with(&routes)), ["spec.listeners[0].tls.certificateRefs[0].name"]);
        let secret = grant("Gateway", "{group: '', kind: Secret, name: shop}");
        let open = with(&format!("{routes}---{secret}"));
        assert_eq!(refused(&open), [""; 0]);
        let gateway = open.intent.gateways.values().next().unwrap();
        assert_eq!(gateway.listeners[0].certificates, [Name::new("back", "shop")]);
    }

    #[test]
    fn a_route_may_lead_back_to_the_service_that_it_is_attached_to() {
        let consumer = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: consumer, namespace: front}
spec:
  parentRefs: [{group: '', kind: Service, name: catalog, namespace: back}]
  rules: [{backendRefs: [{name: catalog, namespace: back, port: 80}]}]
";
        let found = with(consumer);
        assert!(found.problems.iter().all(|one| !one.object.contains("consumer")), "{found:?}");
    }
}
