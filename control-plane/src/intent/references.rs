//! What documents say about each other.

use std::collections::HashMap;

use super::assemble::{Parsed, describe, of_document};
use super::attach::{Claim, obstacle};
use super::backend::BackendTarget;
use super::document::{Document, Object, Reference, Referent};
use super::gateway::GatewayRef;
use super::grant::{permits, permits_backend};
use super::http_route::ParentRef;
use super::meta::{Kind, Name};
use super::policy::Target;
use super::problem::{Cause, Problem, Severity, nearest};
use super::service::Service;
use super::workload::Workload;

/// Notes references to objects that do not exist. The documents stay in force: what they say about objects
/// that do exist is applied.
pub(crate) fn check(parsed: &mut Parsed, documents: &[Document]) {
    let mut found = Vec::new();
    let selectors = Selectors::new(parsed);
    for document in documents {
        for reference in &document.references {
            if let Some(message) = forbidden(parsed, document, &reference.target) {
                let problem = of_reference(document, reference, message);
                found.push(Problem { cause: Cause::NotPermitted, ..problem });
            } else if let Some(message) = missing(parsed, document, &reference.target) {
                let problem = of_reference(document, reference, message.1);
                let severity = severity(&problem, parsed, &reference.target);
                found.push(Problem { severity, cause: message.0, ..problem });
            }
        }
        if let Object::Workload(workload) = &document.object
            && !selectors.select(parsed, workload)
        {
            let message = "no Service selects this workload, so nobody can call it".to_owned();
            found.push(of_document(document, Severity::Warning, message));
        }
    }
    parsed.problems.append(&mut found);
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
fn severity(problem: &Problem, parsed: &Parsed, target: &Referent) -> Severity {
    match target {
        Referent::Gateway(one)
            if problem.document == 0 && !parsed.intent.gateways.contains_key(&one.gateway) =>
        {
            Severity::Warning
        }
        _ => Severity::Error,
    }
}

/// A reference to another namespace that nobody there permits.
fn forbidden(parsed: &Parsed, document: &Document, target: &Referent) -> Option<String> {
    let namespace = &document.id.name.namespace;
    let (what, name, consequence) = match target {
        Referent::Backend { service, port } => {
            let backend = BackendTarget::Service { service: service.clone(), port: *port };
            let permitted = permits_backend(&parsed.intent, &document.object, &backend);
            (!permitted).then_some(("Service", service, "its share of the requests gets a 500"))?
        }
        Referent::External { service, port } => {
            let backend = BackendTarget::External { service: service.clone(), port: *port };
            let permitted = permits_backend(&parsed.intent, &document.object, &backend);
            let consequence = "its share of the requests gets a 500";
            (!permitted).then_some(("ExternalService", service, consequence))?
        }
        Referent::Certificate(name) => {
            let from = (Kind::Gateway, namespace.as_str());
            let permitted = permits(&parsed.intent, from, ("", "Secret", name));
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
fn missing(parsed: &Parsed, document: &Document, target: &Referent) -> Option<(Cause, String)> {
    if let Referent::Gateway(reference) = target {
        return missing_gateway(parsed, document, reference);
    }
    missing_object(parsed, target).map(|message| (Cause::Other, message))
}

fn missing_object(parsed: &Parsed, target: &Referent) -> Option<String> {
    match target {
        // Depends on the route too.
        Referent::Gateway(_) => None,
        Referent::Egress(name) => {
            let exists = parsed.intent.gateways.contains_key(name);
            (!exists)
                .then(|| format!("there is no Gateway {name}: requests for these hosts will fail"))
        }
        Referent::External { service, port } => {
            let found = parsed.intent.externals.get(service);
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
        Referent::Certificate(name) => missing_certificate(parsed, name),
        Referent::Parent(parent) => {
            missing_service(parsed, &parent.service, "the route is attached to nothing here")
                .or_else(|| missing_parent_port(parsed, parent))
        }
        Referent::Backend { service, port } => {
            missing_service(parsed, service, "its share of the requests gets a 500")
                .or_else(|| missing_backend_port(parsed, service, *port))
        }
        Referent::PolicyTarget(Target::Service(name)) => {
            missing_service(parsed, name, "the policy has no effect there")
        }
        Referent::PolicyTarget(Target::Gateway(name)) => {
            let exists = parsed.intent.gateways.contains_key(name);
            (!exists).then(|| format!("there is no Gateway {name}: the policy has no effect there"))
        }
        Referent::PolicyTarget(target @ Target::Route(kind, name)) => {
            let exists = parsed.intent.routes.contains_key(&(*kind, name.clone()));
            (!exists).then(|| {
                format!("there is no {}: the policy has no effect there", describe(target))
            })
        }
        Referent::Dependency(name) => missing_service(parsed, name, "the dependency is left out"),
    }
}

fn missing_gateway(
    parsed: &Parsed,
    document: &Document,
    reference: &GatewayRef,
) -> Option<(Cause, String)> {
    let name = &reference.gateway;
    let Some(gateway) = parsed.intent.gateways.get(name) else {
        let same_namespace =
            parsed.intent.gateways.keys().filter(|known| known.namespace == name.namespace);
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

fn missing_certificate(parsed: &Parsed, name: &Name) -> Option<String> {
    match parsed.intent.secrets.get(name) {
        Some(secret) if secret.source.is_some() => None,
        Some(_) => Some(format!(
            "Secret {name} has neither certificate and key nor annotations that name their files"
        )),
        None => None,
    }
}

fn missing_service(parsed: &Parsed, name: &Name, consequence: &str) -> Option<String> {
    if parsed.intent.services.contains_key(name) {
        return None;
    }
    let same_namespace =
        parsed.intent.services.keys().filter(|known| known.namespace == name.namespace);
    let meant = nearest(&name.name, same_namespace.map(|known| known.name.as_str()));
    let elsewhere = parsed.intent.services.keys().find(|known| known.name == name.name);
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

fn missing_parent_port(parsed: &Parsed, parent: &ParentRef) -> Option<String> {
    let service = parsed.intent.services.get(&parent.service)?;
    if let Some(port) = parent.port.filter(|port| service.port(*port).is_none()) {
        return Some(format!(
            "Service {} has no port {port}{}",
            service.name,
            ports(parsed, &service.name)
        ));
    }
    let section = parent.section.as_deref()?;
    let known = service.ports.iter().any(|port| port.name.as_deref() == Some(section));
    (!known).then(|| format!("Service {} has no port named `{section}`", service.name))
}

fn missing_backend_port(parsed: &Parsed, name: &Name, port: Option<u16>) -> Option<String> {
    let service = parsed.intent.services.get(name)?;
    match port {
        Some(port) if service.port(port).is_some() => None,
        Some(port) => Some(format!(
            "Service {name} has no port {port}{}: its share of the requests gets a 500",
            ports(parsed, name)
        )),
        None if service.default_port().is_some() => None,
        None => Some(format!("Service {name} has several ports, say which{}", ports(parsed, name))),
    }
}

fn ports(parsed: &Parsed, name: &Name) -> String {
    let known = parsed.intent.services.get(name).map(|service| {
        service.ports.iter().map(|port| port.port.to_string()).collect::<Vec<_>>().join(", ")
    });
    known.map(|known| format!(" (it has {known})")).unwrap_or_default()
}

/// Services by one of the labels that each asks for: ten thousand workloads must not each be held against every service.
struct Selectors<'a>(HashMap<(&'a str, &'a str, &'a str), Vec<&'a Service>>);

impl<'a> Selectors<'a> {
    fn new(parsed: &'a Parsed) -> Self {
        let mut by_label: HashMap<_, Vec<&Service>> = HashMap::new();
        for service in parsed.intent.services.values() {
            if let Some((label, value)) = service.selector.first_key_value() {
                let key = (service.name.namespace.as_str(), label.as_str(), value.as_str());
                by_label.entry(key).or_default().push(service);
            }
        }
        Self(by_label)
    }

    /// Whether any service selects it.
    fn select(&self, parsed: &Parsed, workload: &Workload) -> bool {
        let namespace = workload.name.namespace.as_str();
        let named = workload.service.as_ref().is_some_and(|service| {
            parsed.intent.services.contains_key(&Name::new(namespace, service.as_str()))
        });
        // An `app` may follow from the service.
        let app = workload.label("app").map(|app| ("app", app));
        let written = workload.labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
        named
            || written.chain(app).any(|(label, value)| {
                let services = self.0.get(&(namespace, label, value));
                services.into_iter().flatten().any(|service| service.selects(workload))
            })
    }
}
