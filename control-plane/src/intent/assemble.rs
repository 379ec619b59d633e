//! The documents of all files to one intent.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::authorization::AuthorizationPolicy;
use super::document::{Document, Object, ObjectId, Place};
use super::external::ExternalService;
use super::gateway::Gateway;
use super::grant::{self, ReferenceGrant};
use super::http_route::{HttpRoute, RouteKind};
use super::l4_route::{L4Kind, L4Route};
use super::mesh::Mesh;
use super::meta::{Kind, Name};
use super::namespace::{self, Namespace};
use super::policy::{Target, TrafficPolicy};
use super::problem::{Problem, Severity};
use super::process::Process;
use super::references;
use super::secret::Secret;
use super::service::Service;
use super::workload::Workload;

/// Everything that people want, as plain data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Intent {
    /// The mesh; its defaults if none is written.
    pub mesh: Arc<Mesh>,
    /// Namespaces whose labels are known, by name.
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// Services.
    pub services: BTreeMap<Name, Arc<Service>>,
    /// Workloads that are written down (others register).
    pub workloads: BTreeMap<Name, Arc<Workload>>,
    /// Gateways, of every class.
    pub gateways: BTreeMap<Name, Arc<Gateway>>,
    /// Hosts outside of the mesh.
    pub externals: BTreeMap<Name, Arc<ExternalService>>,
    /// Certificates for gateways.
    pub secrets: BTreeMap<Name, Arc<Secret>>,
    /// Routes.
    pub routes: BTreeMap<(RouteKind, Name), Arc<HttpRoute>>,
    /// Routes of connections at gateways.
    pub l4_routes: BTreeMap<(L4Kind, Name), Arc<L4Route>>,
    /// Who of another namespace may lead to what.
    pub grants: BTreeMap<Name, Arc<ReferenceGrant>>,
    /// Policies that are in force, by what they hold for.
    pub policies: BTreeMap<Target, Arc<TrafficPolicy>>,
    /// Who may ask services for what.
    pub authorizations: BTreeMap<Name, Arc<AuthorizationPolicy>>,
    /// Programs for `pillion up`.
    pub processes: BTreeMap<Name, Arc<Process>>,
}

impl Intent {
    /// Whether both want the same, whatever workloads and programs are written down.
    pub(crate) fn is_same_without_workloads(&self, other: &Self) -> bool {
        // All fields: one that is added has to be thought of.
        let Self {
            mesh,
            namespaces,
            services,
            workloads: _,
            gateways,
            externals,
            secrets,
            routes,
            l4_routes,
            grants,
            policies,
            authorizations,
            processes: _,
        } = self;
        *mesh == other.mesh
            && *namespaces == other.namespaces
            && *services == other.services
            && *gateways == other.gateways
            && *externals == other.externals
            && *secrets == other.secrets
            && *routes == other.routes
            && *l4_routes == other.l4_routes
            && *grants == other.grants
            && *policies == other.policies
            && *authorizations == other.authorizations
    }
}

/// An intent and what is wrong with the files that it comes from.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// What can be applied.
    pub intent: Intent,
    /// What is wrong, by file and line.
    pub problems: Vec<Problem>,
    /// Where each object was written.
    pub places: BTreeMap<ObjectId, Place>,
}

impl Parsed {
    /// How many problems are errors, and how many are warnings.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let errors =
            self.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        (errors, self.problems.len() - errors)
    }
}

/// Puts the documents of all files together and checks what they say about each other. The result does not
/// depend on the order of `documents`.
#[must_use]
pub fn assemble(mut documents: Vec<Document>, problems: Vec<Problem>) -> Parsed {
    documents.sort_by(|left, right| left.place.cmp(&right.place));
    let mut parsed = Parsed { problems, ..Parsed::default() };
    let mut kept = Vec::with_capacity(documents.len());
    for document in documents {
        match parsed.places.get(&document.id) {
            Some(first) => {
                let message =
                    format!("{} is already defined at {first}; that one is used", document.id);
                parsed.problems.push(of_document(&document, Severity::Error, message));
            }
            None => {
                parsed.places.insert(document.id.clone(), document.place.clone());
                kept.push(document);
            }
        }
    }
    insert_all(&mut parsed, &kept);
    namespace::choose(&mut parsed.intent);
    references::check(&mut parsed, &kept);
    grant::enforce(&mut parsed.intent);
    parsed.problems.sort();
    parsed.problems.dedup();
    parsed
}

fn insert_all(parsed: &mut Parsed, documents: &[Document]) {
    let mut meshes = Vec::new();
    let mut policies = Vec::new();
    for document in documents {
        let name = document.id.name.clone();
        match &document.object {
            Object::Mesh(mesh) => meshes.push((document, mesh)),
            Object::Namespace(namespace) => {
                parsed.intent.namespaces.insert(name.name, Arc::clone(namespace));
            }
            Object::Service(service) => {
                parsed.intent.services.insert(name, Arc::clone(service));
            }
            Object::Workload(workload) => {
                parsed.intent.workloads.insert(name, Arc::clone(workload));
            }
            Object::ExternalService(service) => {
                parsed.intent.externals.insert(name, Arc::clone(service));
            }
            Object::Secret(secret) => {
                parsed.intent.secrets.insert(name, Arc::clone(secret));
            }
            Object::Gateway(gateway) => {
                parsed.intent.gateways.insert(name, Arc::clone(gateway));
            }
            Object::Route(route) => {
                parsed.intent.routes.insert((route.kind, name), Arc::clone(route));
            }
            Object::L4Route(route) => {
                parsed.intent.l4_routes.insert((route.kind, name), Arc::clone(route));
            }
            Object::ReferenceGrant(grant) => {
                parsed.intent.grants.insert(name, Arc::clone(grant));
            }
            Object::TrafficPolicy(policy) => policies.push((document, policy)),
            Object::AuthorizationPolicy(policy) => {
                parsed.intent.authorizations.insert(name, Arc::clone(policy));
            }
            Object::Process(process) => {
                parsed.intent.processes.insert(name, Arc::clone(process));
            }
        }
    }
    if let Some((first, mesh)) = meshes.first() {
        parsed.intent.mesh = Arc::clone(mesh);
        for (document, _) in &meshes[1..] {
            let message =
                format!("there is one Mesh already, at {}; that one is used", first.place);
            parsed.problems.push(of_document(document, Severity::Error, message));
        }
    }
    insert_policies(parsed, policies);
}

/// Of two policies on one target, the older one wins, then the first by name.
fn insert_policies(parsed: &mut Parsed, mut policies: Vec<(&Document, &Arc<TrafficPolicy>)>) {
    policies.sort_by_key(|(_, policy)| {
        // No timestamp (files have none) counts as youngest.
        (policy.created.is_none(), policy.created.clone(), policy.name.clone())
    });
    for (document, policy) in policies {
        for target in &policy.targets {
            match parsed.intent.policies.get(target) {
                Some(winner) if winner.name != policy.name => {
                    let message = format!(
                        "TrafficPolicy {} holds for {} already; this one has no effect there",
                        winner.name,
                        describe(target)
                    );
                    parsed.problems.push(of_document(document, Severity::Warning, message));
                }
                Some(_) => {}
                None => {
                    parsed.intent.policies.insert(target.clone(), Arc::clone(policy));
                }
            }
        }
    }
}

pub(crate) fn describe(target: &Target) -> String {
    match target {
        Target::Service(name) => format!("{} {name}", Kind::Service),
        Target::Gateway(name) => format!("{} {name}", Kind::Gateway),
        Target::Route(RouteKind::Http, name) => format!("{} {name}", Kind::HttpRoute),
        Target::Route(RouteKind::Grpc, name) => format!("{} {name}", Kind::GrpcRoute),
    }
}

pub(crate) fn of_document(document: &Document, severity: Severity, message: String) -> Problem {
    Problem {
        line: document.place.line,
        column: 1,
        document: document.place.document,
        object: document.id.to_string(),
        ..Problem::of_file(severity, &document.place.file, message)
    }
}
