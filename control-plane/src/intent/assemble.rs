//! The documents of all files to one intent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
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
use super::selection::Selection;
use super::service::Service;
use super::workload::Workload;
use crate::map::{self, Map};

/// Everything that people want, as plain data. A copy shares everything with the original.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Intent {
    /// The mesh; its defaults if none is written.
    pub mesh: Arc<Mesh>,
    /// Namespaces whose labels are known, by name.
    pub namespaces: Map<String, Arc<Namespace>>,
    /// Services.
    pub services: Map<Name, Arc<Service>>,
    /// Workloads that are written down (others register).
    pub workloads: Map<Name, Arc<Workload>>,
    /// Gateways, of every class.
    pub gateways: Map<Name, Arc<Gateway>>,
    /// Hosts outside of the mesh.
    pub externals: Map<Name, Arc<ExternalService>>,
    /// Certificates for gateways.
    pub secrets: Map<Name, Arc<Secret>>,
    /// Routes.
    pub routes: Map<(RouteKind, Name), Arc<HttpRoute>>,
    /// Routes of connections at gateways.
    pub l4_routes: Map<(L4Kind, Name), Arc<L4Route>>,
    /// Who of another namespace may lead to what.
    pub grants: Map<Name, Arc<ReferenceGrant>>,
    /// Policies that are in force, by what they hold for.
    pub policies: Map<Target, Arc<TrafficPolicy>>,
    /// Who may ask services for what.
    pub authorizations: Map<Name, Arc<AuthorizationPolicy>>,
    /// Programs for `pillion up`.
    pub processes: Map<Name, Arc<Process>>,
}

impl Intent {
    /// Whether both want the same, whatever routes of requests, workloads and programs are written down.
    pub(crate) fn is_same_without_routes(&self, other: &Self) -> bool {
        // All fields: one that is added has to be thought of.
        let Self {
            mesh,
            namespaces,
            services,
            workloads: _,
            gateways,
            externals,
            secrets,
            routes: _,
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
    pub places: Map<ObjectId, Place>,
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

/// The documents of one source: of a file, or of a cluster.
#[derive(Debug, Clone, Default)]
pub struct Sheet {
    /// The good ones, and the last good version of those that are bad now.
    pub documents: Vec<Document>,
    /// What is wrong with them and with the others.
    pub problems: Vec<Problem>,
}

/// Most are compared with themselves.
impl PartialEq for Sheet {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || self.documents == other.documents && self.problems == other.problems
    }
}

/// What several sources say, by where it comes from.
pub type Sheets = Map<PathBuf, Arc<Sheet>>;

/// The documents of all sources put together, and what it takes to go on from there when a few of them change.
#[derive(Debug, Clone, Default)]
pub struct Assembly {
    sheets: Sheets,
    parsed: Arc<Parsed>,
    selection: Arc<Selection>,
    /// Objects that several documents define.
    ambiguous: BTreeSet<ObjectId>,
    /// What is wrong between documents of which only one can be in force.
    conflicts: Vec<Problem>,
    /// What is wrong with a document because of what others say, or do not say.
    remarks: Map<ObjectId, Vec<Problem>>,
}

/// A document as it was and as it is.
type Edit<'a> = (Option<&'a Document>, Option<&'a Document>);

/// Puts the documents of all files together and checks what they say about each other. The result does not
/// depend on the order of `documents`.
#[must_use]
pub fn assemble(documents: Vec<Document>, problems: Vec<Problem>) -> Parsed {
    let sheet = Arc::new(Sheet { documents, problems });
    let assembly = Assembly::new([(PathBuf::new(), sheet)].into_iter().collect());
    Arc::unwrap_or_clone(assembly.parsed)
}

impl Assembly {
    /// From scratch.
    #[must_use]
    pub fn new(sheets: Sheets) -> Self {
        let mut documents: Vec<&Document> =
            sheets.values().flat_map(|sheet| &sheet.documents).collect();
        documents.sort_by(|left, right| left.place.cmp(&right.place));
        let mut new = Self::default();
        let mut places: BTreeMap<ObjectId, Place> = BTreeMap::new();
        let mut kept = Vec::with_capacity(documents.len());
        for document in documents {
            match places.get(&document.id) {
                Some(first) => {
                    let message =
                        format!("{} is already defined at {first}; that one is used", document.id);
                    new.conflicts.push(of_document(document, Severity::Error, message));
                    new.ambiguous.insert(document.id.clone());
                }
                None => {
                    places.insert(document.id.clone(), document.place.clone());
                    kept.push(document);
                }
            }
        }
        let mut intent = collect(&kept, &mut new.conflicts);
        namespace::choose(&mut intent);
        let selection = Selection::new(&intent.services);
        let remarks = kept.iter().map(|document| {
            (document.id.clone(), references::check(&intent, &selection, document))
        });
        new.remarks = remarks.filter(|(_, problems)| !problems.is_empty()).collect();
        grant::enforce(&mut intent);
        let parsed = Parsed { intent, problems: Vec::new(), places: places.into() };
        Self { parsed: Arc::new(parsed), selection: Arc::new(selection), sheets, ..new }.gathered()
    }

    /// The same as [`Assembly::new`], in proportion to what changed if that is no more than workloads, what routes say, and the
    /// places of documents.
    #[must_use]
    pub fn update(&self, sheets: Sheets) -> Self {
        match self.edits(&sheets) {
            Some(edits) => self.edited(sheets.clone(), &edits),
            None => Self::new(sheets),
        }
    }

    /// The documents put together.
    #[must_use]
    pub fn parsed(&self) -> &Arc<Parsed> {
        &self.parsed
    }

    /// The documents that changed. `None`: everything has to be looked at.
    fn edits<'a>(&'a self, sheets: &'a Sheets) -> Option<Vec<Edit<'a>>> {
        let mut edits: BTreeMap<&ObjectId, Edit<'a>> = BTreeMap::new();
        for change in map::changes(&self.sheets, sheets) {
            for document in change.before.into_iter().flat_map(|sheet| &sheet.documents) {
                let known = edits.entry(&document.id).or_default().0.replace(document);
                known.is_none().then_some(())?;
            }
            for document in change.after.into_iter().flat_map(|sheet| &sheet.documents) {
                let known = edits.entry(&document.id).or_default().1.replace(document);
                known.is_none().then_some(())?;
            }
        }
        edits.retain(|_, (before, after)| before != after);
        edits.values().all(|edit| self.is_local(edit)).then(|| edits.into_values().collect())
    }

    /// Whether an edit matters to no other document.
    fn is_local(&self, (before, after): &Edit<'_>) -> bool {
        let Some(document) = after.or(*before) else { return true };
        if self.ambiguous.contains(&document.id)
            || before.is_none() && self.parsed.places.contains_key(&document.id)
        {
            return false;
        }
        match (&document.object, before, after) {
            (Object::Workload(_), _, _) => true,
            // That there is one matters to others, but not what it says.
            (Object::Route(_), Some(_), Some(_)) => true,
            // Their conflicts name the place.
            (Object::Mesh(_) | Object::TrafficPolicy(_), _, _) => false,
            (_, Some(before), Some(after)) => before.object == after.object,
            _ => false,
        }
    }

    fn edited(&self, sheets: Sheets, edits: &[Edit<'_>]) -> Self {
        let problems_before = self.remarks.clone();
        let mut new = self.clone();
        let parsed = Arc::make_mut(&mut new.parsed);
        for (before, after) in edits {
            if let Some(document) = after {
                parsed.places.insert(document.id.clone(), document.place.clone());
                if before.is_none_or(|before| before.object != document.object) {
                    put(&mut parsed.intent, document);
                }
            } else if let Some(document) = before {
                parsed.places.remove(&document.id);
                parsed.intent.workloads.remove(&document.id.name);
                new.remarks.remove(&document.id);
            }
        }
        for document in edits.iter().filter_map(|(_, after)| *after) {
            let found = references::check(&parsed.intent, &self.selection, document);
            if found.is_empty() {
                new.remarks.remove(&document.id);
            } else {
                new.remarks.insert(document.id.clone(), found);
            }
        }
        let written =
            |sheet: Option<&Arc<Sheet>>| sheet.is_some_and(|one| !one.problems.is_empty());
        let has_news = map::changes(&self.sheets, &sheets)
            .any(|one| written(one.before) || written(one.after));
        new.sheets = sheets;
        if has_news || new.remarks != problems_before { new.gathered() } else { new }
    }

    /// With all problems, in order.
    fn gathered(mut self) -> Self {
        let of_sheets = self.sheets.values().flat_map(|sheet| &sheet.problems);
        let of_documents = self.remarks.values().flatten();
        let all: BTreeSet<&Problem> =
            of_sheets.chain(&self.conflicts).chain(of_documents).collect();
        Arc::make_mut(&mut self.parsed).problems = all.into_iter().cloned().collect();
        self
    }
}

/// Puts in what an edit changed.
fn put(intent: &mut Intent, document: &Document) {
    let name = document.id.name.clone();
    match &document.object {
        Object::Workload(workload) => drop(intent.workloads.insert(name, Arc::clone(workload))),
        Object::Route(route) => {
            let permitted = grant::permitted(intent, route);
            let route = permitted.unwrap_or_else(|| Arc::clone(route));
            intent.routes.insert((route.kind, name), route);
        }
        _ => {}
    }
}

/// The intent of documents that define each object once.
fn collect(documents: &[&Document], conflicts: &mut Vec<Problem>) -> Intent {
    let mut intent = Intent::default();
    let mut meshes = Vec::new();
    let mut policies = Vec::new();
    for &document in documents {
        let name = document.id.name.clone();
        match &document.object {
            Object::Mesh(mesh) => meshes.push((document, mesh)),
            Object::Namespace(namespace) => {
                intent.namespaces.insert(name.name, Arc::clone(namespace));
            }
            Object::Service(service) => {
                intent.services.insert(name, Arc::clone(service));
            }
            Object::Workload(workload) => {
                intent.workloads.insert(name, Arc::clone(workload));
            }
            Object::ExternalService(service) => {
                intent.externals.insert(name, Arc::clone(service));
            }
            Object::Secret(secret) => {
                intent.secrets.insert(name, Arc::clone(secret));
            }
            Object::Gateway(gateway) => {
                intent.gateways.insert(name, Arc::clone(gateway));
            }
            Object::Route(route) => {
                intent.routes.insert((route.kind, name), Arc::clone(route));
            }
            Object::L4Route(route) => {
                intent.l4_routes.insert((route.kind, name), Arc::clone(route));
            }
            Object::ReferenceGrant(grant) => {
                intent.grants.insert(name, Arc::clone(grant));
            }
            Object::TrafficPolicy(policy) => policies.push((document, policy)),
            Object::AuthorizationPolicy(policy) => {
                intent.authorizations.insert(name, Arc::clone(policy));
            }
            Object::Process(process) => {
                intent.processes.insert(name, Arc::clone(process));
            }
        }
    }
    let mut mesh = Arc::default();
    if let Some((first, used)) = meshes.first() {
        mesh = Arc::clone(used);
        for (document, _) in &meshes[1..] {
            let message =
                format!("there is one Mesh already, at {}; that one is used", first.place);
            conflicts.push(of_document(document, Severity::Error, message));
        }
    }
    let policies = in_force(policies, conflicts);
    Intent { mesh, policies: policies.into(), ..intent }
}

/// Of two policies on one target, the older one wins, then the first by name.
fn in_force(
    mut policies: Vec<(&Document, &Arc<TrafficPolicy>)>,
    conflicts: &mut Vec<Problem>,
) -> BTreeMap<Target, Arc<TrafficPolicy>> {
    policies.sort_by_key(|(_, policy)| {
        // No timestamp (files have none) counts as youngest.
        (policy.created.is_none(), policy.created.clone(), policy.name.clone())
    });
    let mut found: BTreeMap<Target, Arc<TrafficPolicy>> = BTreeMap::new();
    for (document, policy) in policies {
        for target in &policy.targets {
            match found.get(target) {
                Some(winner) if winner.name != policy.name => {
                    let message = format!(
                        "TrafficPolicy {} holds for {} already; this one has no effect there",
                        winner.name,
                        describe(target)
                    );
                    conflicts.push(of_document(document, Severity::Warning, message));
                }
                Some(_) => {}
                None => {
                    found.insert(target.clone(), Arc::clone(policy));
                }
            }
        }
    }
    found
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

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
