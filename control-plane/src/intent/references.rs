//! What documents say about each other.

use super::assemble::{Intent, describe, of_document};
use super::attach::{Claim, obstacle};
use super::backend::BackendTarget;
use super::document::{Document, Object, Reference, Referent};
use super::gateway::GatewayRef;
use super::grant::{permits, permits_backend};
use super::http_route::ParentRef;
use super::meta::{Kind, Name};
use super::policy::Target;
use super::problem::{Cause, Problem, Severity, nearest};
use super::selection::Selection;

/// What is wrong with the references of a document: such as one to an object that does not exist. The documents stay in
/// force: what they say about objects that do exist is applied.
pub(crate) fn check(intent: &Intent, selection: &Selection, document: &Document) -> Vec<Problem> {
    let mut found = Vec::new();
    for reference in &document.references {
        if let Some(message) = forbidden(intent, document, &reference.target) {
            let problem = of_reference(document, reference, message);
            found.push(Problem { cause: Cause::NotPermitted, ..problem });
        } else if let Some(message) = missing(intent, document, &reference.target) {
            let problem = of_reference(document, reference, message.1);
            let severity = severity(&problem, intent, &reference.target);
            found.push(Problem { severity, cause: message.0, ..problem });
        }
    }
    if let Object::Workload(workload) = &document.object
        && selection.of(workload).next().is_none()
    {
        let message = "no Service selects this workload, so nobody can call it".to_owned();
        found.push(of_document(document, Severity::Warning, message));
    }
    found
}

fn of_reference(document: &Document, reference: &Reference, message: String) -> Problem {
    Problem {
        line: reference.place.0,
        column: reference.place.1,
        field: reference.path.clone(),
        ..of_document(document, Severity::Error, message)
    }
}

/// In a cluster, a gateway that does not exist may be another controller's business.
fn severity(problem: &Problem, intent: &Intent, target: &Referent) -> Severity {
    match target {
        Referent::Gateway(one)
            if problem.document == 0 && !intent.gateways.contains_key(&one.gateway) =>
        {
            Severity::Warning
        }
        _ => Severity::Error,
    }
}

/// A reference to another namespace that nobody there permits.
fn forbidden(intent: &Intent, document: &Document, target: &Referent) -> Option<String> {
    let namespace = &document.id.name.namespace;
    let (what, name, consequence) = match target {
        Referent::Backend { service, port } => {
            let backend = BackendTarget::Service { service: service.clone(), port: *port };
            let permitted = permits_backend(intent, &document.object, &backend);
            (!permitted).then_some(("Service", service, "its share of the requests gets a 500"))?
        }
        Referent::External { service, port } => {
            let backend = BackendTarget::External { service: service.clone(), port: *port };
            let permitted = permits_backend(intent, &document.object, &backend);
            let consequence = "its share of the requests gets a 500";
            (!permitted).then_some(("ExternalService", service, consequence))?
        }
        Referent::Certificate(name) => {
            let from = (Kind::Gateway, namespace.as_str());
            let permitted = permits(intent, from, ("", "Secret", name));
            (!permitted).then_some(("Secret", name, "the certificate is not used"))?
        }
        _ => return None,
    };
    Some(format!(
        "no ReferenceGrant of namespace `{}` lets a {} of `{namespace}` lead to {what} {name}: {consequence}",
        name.namespace, document.id.kind
    ))
}

/// What is wrong with a reference, if anything.
fn missing(intent: &Intent, document: &Document, target: &Referent) -> Option<(Cause, String)> {
    if let Referent::Gateway(reference) = target {
        return missing_gateway(intent, document, reference);
    }
    missing_object(intent, target).map(|message| (Cause::Other, message))
}

fn missing_object(intent: &Intent, target: &Referent) -> Option<String> {
    match target {
        // Depends on the route too.
        Referent::Gateway(_) => None,
        Referent::Egress(name) => {
            let exists = intent.gateways.contains_key(name);
            (!exists)
                .then(|| format!("there is no Gateway {name}: requests for these hosts will fail"))
        }
        Referent::External { service, port } => {
            let found = intent.externals.get(service);
            match found.map(|found| found.port(*port).is_some()) {
                Some(true) => None,
                Some(false) => Some(format!(
                    "ExternalService {service} has no such port: its share of the requests gets a 500"
                )),
                None => Some(format!(
                    "there is no ExternalService {service}: its share of the requests gets a 500"
                )),
            }
        }
        Referent::Certificate(name) => missing_certificate(intent, name),
        Referent::Parent(parent) => {
            missing_service(intent, &parent.service, "the route is attached to nothing here")
                .or_else(|| missing_parent_port(intent, parent))
        }
        Referent::Backend { service, port } => {
            missing_service(intent, service, "its share of the requests gets a 500")
                .or_else(|| missing_backend_port(intent, service, *port))
        }
        Referent::PolicyTarget(Target::Service(name)) => {
            missing_service(intent, name, "the policy has no effect there")
        }
        Referent::PolicyTarget(Target::Gateway(name)) => {
            let exists = intent.gateways.contains_key(name);
            (!exists).then(|| format!("there is no Gateway {name}: the policy has no effect there"))
        }
        Referent::PolicyTarget(target @ Target::Route(kind, name)) => {
            let exists = intent.routes.contains_key(&(*kind, name.clone()));
            (!exists).then(|| {
                format!("there is no {}: the policy has no effect there", describe(target))
            })
        }
        Referent::Dependency(name) => missing_service(intent, name, "the dependency is left out"),
    }
}

fn missing_gateway(
    intent: &Intent,
    document: &Document,
    reference: &GatewayRef,
) -> Option<(Cause, String)> {
    let name = &reference.gateway;
    let Some(gateway) = intent.gateways.get(name) else {
        let same_namespace =
            intent.gateways.keys().filter(|known| known.namespace == name.namespace);
        let meant = nearest(&name.name, same_namespace.map(|known| known.name.as_str()));
        let meant = meant.map(|meant| format!(", did you mean `{meant}`?")).unwrap_or_default();
        let message =
            format!("there is no Gateway {name}: the route is attached to nothing here{meant}");
        return Some((Cause::Other, message));
    };
    let claim: Claim<'_> = match &document.object {
        Object::Route(route) => route.claim(),
        Object::L4Route(route) => route.claim(),
        _ => return None,
    };
    let (cause, why) = obstacle(gateway, reference, claim)?;
    Some((cause, format!("{why}: the route is not attached there")))
}

fn missing_certificate(intent: &Intent, name: &Name) -> Option<String> {
    match intent.secrets.get(name) {
        Some(secret) if secret.source.is_some() => None,
        Some(_) => Some(format!(
            "Secret {name} has neither certificate and key nor annotations that name their files"
        )),
        None => None,
    }
}

fn missing_service(intent: &Intent, name: &Name, consequence: &str) -> Option<String> {
    if intent.services.contains_key(name) {
        return None;
    }
    let same_namespace = intent.services.keys().filter(|known| known.namespace == name.namespace);
    let meant = nearest(&name.name, same_namespace.map(|known| known.name.as_str()));
    let elsewhere = intent.services.keys().find(|known| known.name == name.name);
    let rest = match (meant, elsewhere) {
        (Some(meant), _) => format!(", did you mean `{meant}`? As it is, {consequence}"),
        (None, Some(known)) => {
            let namespace = &known.namespace;
            format!(", did you mean the one of namespace `{namespace}`? As it is, {consequence}")
        }
        (None, None) => format!(": {consequence}"),
    };
    Some(format!("there is no Service {name}{rest}"))
}

fn missing_parent_port(intent: &Intent, parent: &ParentRef) -> Option<String> {
    let service = intent.services.get(&parent.service)?;
    if let Some(port) = parent.port.filter(|port| service.port(*port).is_none()) {
        return Some(format!(
            "Service {} has no port {port}{}",
            service.name,
            ports(intent, &service.name)
        ));
    }
    let section = parent.section.as_deref()?;
    let known = service.ports.iter().any(|port| port.name.as_deref() == Some(section));
    (!known).then(|| format!("Service {} has no port named `{section}`", service.name))
}

fn missing_backend_port(intent: &Intent, name: &Name, port: Option<u16>) -> Option<String> {
    let service = intent.services.get(name)?;
    match port {
        Some(port) if service.port(port).is_some() => None,
        Some(port) => Some(format!(
            "Service {name} has no port {port}{}: its share of the requests gets a 500",
            ports(intent, name)
        )),
        None if service.default_port().is_some() => None,
        None => Some(format!("Service {name} has several ports, say which{}", ports(intent, name))),
    }
}

fn ports(intent: &Intent, name: &Name) -> String {
    let known = intent.services.get(name).map(|service| {
        service.ports.iter().map(|port| port.port.to_string()).collect::<Vec<_>>().join(", ")
    });
    known.map(|known| format!(" (it has {known})")).unwrap_or_default()
}
