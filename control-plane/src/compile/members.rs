//! Which workloads belong to which service.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::intent::{
    GATEWAY_LABEL, Intent, Mtls, Name, Problem, Selection, Service, ServicePort, Severity,
    TargetPort, Workload,
};
use crate::map::{self, Map};

/// The workloads of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    /// By name; ready or not.
    pub(crate) workloads: Vec<Arc<Workload>>,
    /// Those that it selects and does not take.
    pub(crate) left_out: Vec<Arc<Workload>>,
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
    fn selected(&self) -> BTreeMap<Name, Arc<Workload>> {
        let all = self.workloads.iter().chain(&self.left_out);
        all.map(|workload| (workload.name.clone(), Arc::clone(workload))).collect()
    }

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

/// Who belongs where, at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Population {
    by_service: Map<Name, Arc<Members>>,
    /// What is odd about the members of a service; most are not in it.
    odd: Map<Name, Vec<Problem>>,
    /// Workloads that registered and that no service selects.
    orphans: Map<Name, Problem>,
    problems: Arc<Vec<Problem>>,
    selection: Arc<Selection>,
}

/// Written workloads and those that registered, which know better than a file where they run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workloads<'a> {
    pub(crate) written: &'a Map<Name, Arc<Workload>>,
    pub(crate) registered: &'a Map<Name, Arc<Workload>>,
}

/// Workloads that came or changed, and those that went, by the service that selects them.
type Moves = BTreeMap<Name, BTreeMap<Name, Option<Arc<Workload>>>>;

impl<'a> Workloads<'a> {
    fn get(&self, name: &Name) -> Option<&'a Arc<Workload>> {
        self.registered.get(name).or_else(|| self.written.get(name))
    }

    fn iter(&self) -> impl Iterator<Item = &'a Arc<Workload>> {
        let registered = self.registered;
        let written = self.written.iter().filter(move |(name, _)| !registered.contains_key(*name));
        written.chain(registered).map(|(_, workload)| workload)
    }

    /// The names of those that are not the same in `newer`.
    fn changed(&self, newer: &Self) -> BTreeSet<&'a Name>
    where
        Self: 'a,
    {
        let written = map::changes(self.written, newer.written);
        let registered = map::changes(self.registered, newer.registered);
        written.chain(registered).map(|change| change.key).collect()
    }
}

impl Population {
    /// From scratch.
    pub(crate) fn new(intent: &Intent, workloads: Workloads<'_>) -> Self {
        let selection = Arc::new(Selection::new(&intent.services));
        let mut moves = Moves::new();
        for name in intent.services.keys() {
            moves.insert(name.clone(), BTreeMap::new());
        }
        for workload in workloads.iter() {
            for service in selection.of(workload) {
                let of_service = moves.entry(service.name.clone()).or_default();
                of_service.insert(workload.name.clone(), Some(Arc::clone(workload)));
            }
        }
        let mut new = Self { selection, ..Self::default() };
        let (by_service, odd) = new.moved(intent, moves);
        new.by_service = by_service.into();
        new.odd = odd.into_iter().filter(|(_, problems)| !problems.is_empty()).collect();
        let orphans = workloads.registered.iter();
        let orphans = orphans.filter_map(|(name, one)| Some((name.clone(), new.orphan(one)?)));
        new.orphans = orphans.collect();
        new.gather();
        new
    }

    /// After a change of nothing but workloads, `before` which there were others: and the services that are not as they
    /// were.
    pub(crate) fn update(
        &self,
        intent: &Intent,
        before: Workloads<'_>,
        now: Workloads<'_>,
    ) -> (Self, Vec<Name>) {
        let mut new = self.clone();
        let mut moves = Moves::new();
        for name in before.changed(&now) {
            let (old, workload) = (before.get(name), now.get(name));
            for service in old.into_iter().flat_map(|old| self.selection.of(old)) {
                moves.entry(service.name.clone()).or_default().insert(name.clone(), None);
            }
            for service in workload.into_iter().flat_map(|workload| self.selection.of(workload)) {
                let of_service = moves.entry(service.name.clone()).or_default();
                of_service.insert(name.clone(), workload.cloned());
            }
            match now.registered.get(name).and_then(|workload| self.orphan(workload)) {
                Some(problem) => drop(new.orphans.insert(name.clone(), problem)),
                None => drop(new.orphans.remove(name)),
            }
        }
        let (by_service, odd) = self.moved(intent, moves);
        let mut changed = Vec::new();
        for (name, members) in by_service {
            if self.by_service.get(&name) != Some(&members) {
                new.by_service.insert(name.clone(), members);
                changed.push(name);
            }
        }
        for (name, problems) in odd {
            if problems.is_empty() {
                new.odd.remove(&name);
            } else {
                new.odd.insert(name, problems);
            }
        }
        if new.odd != self.odd || new.orphans != self.orphans {
            new.gather();
        }
        (new, changed)
    }

    pub(crate) fn get(&self, service: &Name) -> Option<&Arc<Members>> {
        self.by_service.get(service)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Name, &Arc<Members>)> {
        self.by_service.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_service.len()
    }

    /// What is odd about the workloads, in order.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The members of these services after such moves, and what is odd about them.
    fn moved(
        &self,
        intent: &Intent,
        moves: Moves,
    ) -> (BTreeMap<Name, Arc<Members>>, BTreeMap<Name, Vec<Problem>>) {
        let (mut by_service, mut odd) = (BTreeMap::new(), BTreeMap::new());
        for (name, moves) in moves {
            let Some(service) = intent.services.get(&name) else { continue };
            let before = self.by_service.get(&name);
            let mut selected = before.map(|before| before.selected()).unwrap_or_default();
            for (name, workload) in moves {
                match workload {
                    Some(workload) => selected.insert(name, workload),
                    None => selected.remove(&name),
                };
            }
            let (members, problems) = members(service, selected, intent.mesh.mtls);
            by_service.insert(name.clone(), Arc::new(members));
            odd.insert(name, problems);
        }
        (by_service, odd)
    }

    fn orphan(&self, workload: &Workload) -> Option<Problem> {
        let is_gateway = workload.labels.contains_key(GATEWAY_LABEL);
        let is_selected = || self.selection.of(workload).next().is_some();
        (!is_gateway && !is_selected()).then(|| problem(workload, orphan(workload)))
    }

    fn gather(&mut self) {
        let problems = self.odd.values().flatten().chain(self.orphans.values());
        // Some say the same of several services.
        let problems: BTreeSet<&Problem> = problems.collect();
        self.problems = Arc::new(problems.into_iter().cloned().collect());
    }
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

/// The members of a service that selects these workloads, and what is odd about them.
fn members(
    service: &Service,
    selected: BTreeMap<Name, Arc<Workload>>,
    mtls: Mtls,
) -> (Members, Vec<Problem>) {
    let mut problems = Vec::new();
    let (workloads, left_out): (Vec<_>, Vec<_>) =
        selected.into_values().partition(|workload| admits(service, workload, mtls, &mut problems));
    let accounts =
        service.service_accounts.clone().unwrap_or_else(|| accounts(service, &workloads));
    let without = workloads.iter().filter(|workload| workload.sidecar_port.is_none()).count();
    if Wire::of(without, workloads.len()) == Wire::Mixed {
        for workload in workloads.iter().filter(|workload| workload.sidecar_port.is_none()) {
            let message = format!(
                "it has no sidecar while others of Service {} have one: Pillion's sidecars send to those only",
                service.name
            );
            problems.push(problem(workload, message));
        }
    }
    let wires = service.ports.iter().map(|port| {
        let plain = workloads.iter().filter(|one| is_plain(one, port)).count();
        (port.port, Wire::of(plain, workloads.len()))
    });
    (Members { wires: wires.collect(), workloads, left_out, accounts }, problems)
}

/// Whether a service takes a workload that it selects.
fn admits(service: &Service, workload: &Workload, mtls: Mtls, problems: &mut Vec<Problem>) -> bool {
    if workload.sidecar_port.is_none() && mtls == Mtls::Strict {
        let message =
            "it has no sidecar, and the mesh takes mTLS only (Mesh `mtls: Strict`): left out";
        problems.push(problem(workload, message.to_owned()));
        return false;
    }
    if mtls == Mtls::Strict {
        for port in service.ports.iter().filter(|port| open_port(workload, port).is_some()) {
            let message = format!(
                "port {} of Service {} leads past its sidecar (annotation pillion.io/exclude-inbound-ports), and the mesh takes mTLS only (Mesh `mtls: Strict`): left out there",
                port.port, service.name
            );
            problems.push(problem(workload, message));
        }
    }
    let allowed = service.service_accounts.as_ref();
    let admitted = allowed.is_none_or(|allowed| allowed.contains(&workload.service_account));
    if !admitted {
        let message = format!(
            "Service {} does not allow its service account `{}` (annotation pillion.io/service-accounts): left out",
            service.name, workload.service_account
        );
        problems.push(problem(workload, message));
    }
    admitted
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
