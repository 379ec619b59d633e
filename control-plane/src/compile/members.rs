//! Which workloads belong to which service.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::intent::{
    GATEWAY_LABEL, Intent, Mtls, Name, Problem, Service, ServicePort, Severity, TargetPort,
    Workload,
};

/// The workloads of one service.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Members {
    /// By name; ready or not.
    pub(crate) workloads: Vec<Arc<Workload>>,
    /// Service accounts that its certificates may name; never empty.
    pub(crate) accounts: BTreeSet<String>,
    /// What its workloads speak, by the service's port. Where nothing is said, mTLS.
    pub(crate) wires: BTreeMap<u16, Wire>,
}

/// What the workloads of a service speak to their clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Wire {
    /// mTLS, all of them.
    Mtls,
    /// Some mTLS, some plain text.
    Mixed,
    /// Plain text, all of them.
    Plain,
}

impl Members {
    /// What is spoken at a port.
    pub(crate) fn wire(&self, port: &ServicePort) -> Wire {
        self.wires.get(&port.port).copied().unwrap_or(Wire::Mtls)
    }
}

impl Wire {
    fn of(plain: usize, all: usize) -> Self {
        match plain {
            0 => Self::Mtls,
            some if some == all => Self::Plain,
            _ => Self::Mixed,
        }
    }
}

/// All workloads, found quickly by what a selector asks for.
#[derive(Debug)]
struct Index<'a> {
    by_service: HashMap<(&'a str, &'a str), Vec<&'a Arc<Workload>>>,
    by_label: HashMap<(&'a str, &'a str, &'a str), Vec<&'a Arc<Workload>>>,
}

/// What is noticed while the members are gathered.
#[derive(Default)]
struct Notes<'a> {
    problems: Vec<Problem>,
    /// Workloads that some service selects, whether or not it takes them.
    selected: BTreeSet<&'a Name>,
}

/// The members of every service, and what is odd about them.
pub(crate) fn of_all(
    intent: &Intent,
    registered: &BTreeMap<Name, Arc<Workload>>,
) -> (BTreeMap<Name, Members>, Vec<Problem>) {
    // A registered workload knows better than a file where it runs.
    let written = intent.workloads.iter().filter(|(name, _)| !registered.contains_key(*name));
    let all: Vec<&Arc<Workload>> =
        written.chain(registered).map(|(_, workload)| workload).collect();
    let index = Index::new(&all);
    let mut notes = Notes::default();
    let members = intent.services.iter().map(|(name, service)| {
        (name.clone(), members(service, &index, intent.mesh.mtls, &mut notes))
    });
    let members: BTreeMap<Name, Members> = members.collect();
    let Notes { mut problems, selected } = notes;
    let is_gateway = |workload: &Workload| workload.labels.contains_key(GATEWAY_LABEL);
    let orphans = registered.values().filter(|workload| !selected.contains(&workload.name));
    let orphans = orphans.filter(|workload| !is_gateway(workload));
    problems.extend(orphans.map(|workload| problem(workload, orphan(workload))));
    problems.sort();
    problems.dedup();
    (members, problems)
}

fn orphan(workload: &Workload) -> String {
    match &workload.service {
        Some(service) => format!(
            "it registered for Service {}/{service}, which is not defined: nobody can call it",
            workload.name.namespace
        ),
        None => "no Service selects it, so nobody can call it".to_owned(),
    }
}

fn members<'a>(service: &Service, index: &Index<'a>, mtls: Mtls, notes: &mut Notes<'a>) -> Members {
    let mut found: BTreeMap<&Name, &Arc<Workload>> = BTreeMap::new();
    for workload in index.candidates(service) {
        if !service.selects(workload) {
            continue;
        }
        notes.selected.insert(&workload.name);
        if workload.sidecar_port.is_none() && mtls == Mtls::Strict {
            let message =
                "it has no sidecar, and the mesh takes mTLS only (Mesh `mtls: Strict`): left out";
            notes.problems.push(problem(workload, message.to_owned()));
            continue;
        }
        if mtls == Mtls::Strict {
            for port in service.ports.iter().filter(|port| open_port(workload, port).is_some()) {
                let message = format!(
                    "port {} of Service {} leads past its sidecar (annotation pillion.io/exclude-inbound-ports), and the mesh takes mTLS only (Mesh `mtls: Strict`): left out there",
                    port.port, service.name
                );
                notes.problems.push(problem(workload, message));
            }
        }
        let allowed = service.service_accounts.as_ref();
        if allowed.is_some_and(|allowed| !allowed.contains(&workload.service_account)) {
            let message = format!(
                "Service {} does not allow its service account `{}` (annotation pillion.io/service-accounts): left out",
                service.name, workload.service_account
            );
            notes.problems.push(problem(workload, message));
            continue;
        }
        found.insert(&workload.name, workload);
    }
    let workloads: Vec<Arc<Workload>> = found.into_values().map(Arc::clone).collect();
    let accounts =
        service.service_accounts.clone().unwrap_or_else(|| accounts(service, &workloads));
    let without = workloads.iter().filter(|workload| workload.sidecar_port.is_none()).count();
    if Wire::of(without, workloads.len()) == Wire::Mixed {
        for workload in workloads.iter().filter(|workload| workload.sidecar_port.is_none()) {
            let message = format!(
                "it has no sidecar while others of Service {} have one: Pillion's sidecars send to those only",
                service.name
            );
            notes.problems.push(problem(workload, message));
        }
    }
    let wires = service.ports.iter().map(|port| {
        let plain = workloads.iter().filter(|one| is_plain(one, port)).count();
        (port.port, Wire::of(plain, workloads.len()))
    });
    Members { wires: wires.collect(), workloads, accounts }
}

/// An empty list of names would accept every name of the mesh, so a service without workloads expects the
/// account that bears its own name.
fn accounts(service: &Service, workloads: &[Arc<Workload>]) -> BTreeSet<String> {
    let mut accounts: BTreeSet<String> =
        workloads.iter().map(|workload| workload.service_account.clone()).collect();
    if accounts.is_empty() {
        accounts.insert(service.name.name.clone());
    }
    accounts
}

fn problem(workload: &Workload, message: String) -> Problem {
    Problem {
        object: format!("Workload {}", workload.name),
        ..Problem::of_file(Severity::Warning, "", message)
    }
}

/// The workload's own port behind a port of its service; `None` if the service asks for a name that the
/// workload does not have.
pub(crate) fn app_port(workload: &Workload, port: &ServicePort) -> Option<u16> {
    if let Some(only) = workload.app_port {
        return Some(only);
    }
    let named = port.name.as_ref().and_then(|name| workload.ports.get(name));
    if let Some(named) = named {
        return Some(*named);
    }
    match &port.target {
        TargetPort::Name(name) => workload.ports.get(name).copied(),
        TargetPort::Number(number) => Some(*number),
    }
}

/// The workload's own port behind a port of its service, if connections to it go past its sidecar.
pub(crate) fn open_port(workload: &Workload, port: &ServicePort) -> Option<u16> {
    workload.sidecar_port?;
    app_port(workload, port).filter(|number| workload.is_open(*number))
}

/// Whether a workload speaks plain text at a port of its service.
fn is_plain(workload: &Workload, port: &ServicePort) -> bool {
    workload.sidecar_port.is_none() || open_port(workload, port).is_some()
}

/// The port at which a captured workload takes connections for a port of its service: the application's own.
pub(crate) fn captured_port(workload: &Workload, port: &ServicePort) -> Option<u16> {
    workload.sidecar_port.filter(|_| workload.captured)?;
    let known = |number: &u16| {
        workload.app_port == Some(*number) || workload.ports.values().any(|port| port == number)
    };
    let target = match &port.target {
        TargetPort::Name(name) => workload.ports.get(name).copied(),
        TargetPort::Number(number) => Some(*number).filter(known),
    };
    let named = || port.name.as_ref().and_then(|name| workload.ports.get(name)).copied();
    target.or_else(named).or(workload.app_port).filter(|number| !workload.is_open(*number))
}

impl<'a> Index<'a> {
    fn new(all: &[&'a Arc<Workload>]) -> Self {
        let mut index = Self { by_service: HashMap::new(), by_label: HashMap::new() };
        for workload in all {
            let namespace = workload.name.namespace.as_str();
            if let Some(service) = &workload.service {
                index.by_service.entry((namespace, service)).or_default().push(workload);
            }
            let app = workload.label("app").map(|app| ("app", app));
            let others = workload.labels.iter().filter(|(label, _)| *label != "app");
            let labels = others.map(|(label, value)| (label.as_str(), value.as_str())).chain(app);
            for (label, value) in labels {
                index.by_label.entry((namespace, label, value)).or_default().push(workload);
            }
        }
        index
    }

    /// Every workload that `service` selects, and perhaps a few others.
    fn candidates<'s>(
        &'s self,
        service: &'s Service,
    ) -> impl Iterator<Item = &'a Arc<Workload>> + 's {
        let namespace = service.name.namespace.as_str();
        let by_name = self.by_service.get(&(namespace, service.name.name.as_str()));
        let lists = service
            .selector
            .iter()
            .map(move |(label, value)| self.by_label.get(&(namespace, label, value)));
        // The rarest label leaves the fewest to look at.
        let by_label = lists.min_by_key(|list| list.map_or(0, Vec::len)).flatten();
        by_name.into_iter().chain(by_label).flatten().copied()
    }
}
