//! Who names what, and what a change touches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::Name;
use crate::model::source::Reference;
use crate::xds::kind::Kind;

/// Something by its kind and key.
type Place = (Kind, Name);

/// The clusters and listeners that name a resource: first the resource, then who names it.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeSet<(Place, Place)>);

impl Users {
    /// A cluster or listener names these.
    pub(super) fn note(&mut self, (kind, name): (Kind, &Name), named: &[(Kind, &Reference)]) {
        for (of, reference) in named {
            let resource = (*of, Arc::clone(reference.key()));
            self.0.insert((resource, (kind, Arc::clone(name))));
        }
    }

    /// It does not any more.
    pub(super) fn forget(&mut self, (kind, name): (Kind, &Name), named: &[(Kind, &Reference)]) {
        for (of, reference) in named {
            let resource = (*of, Arc::clone(reference.key()));
            self.0.remove(&(resource, (kind, Arc::clone(name))));
        }
    }

    /// Those who name a resource.
    pub(super) fn of(&self, kind: Kind, name: &Name) -> impl Iterator<Item = &Place> {
        let resource = (kind, Arc::clone(name));
        let [least, ..] = Kind::ALL;
        let from = (resource.clone(), (least, Name::default()));
        let users = self.0.range(from..).take_while(move |(named, _)| *named == resource);
        users.map(|(_, user)| user)
    }
}

/// What has to be looked at, by kind.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeMap<Kind, BTreeSet<Name>>);

impl Touched {
    pub(super) fn add(&mut self, kind: Kind, name: &Name) {
        self.0.entry(kind).or_default().insert(Arc::clone(name));
    }

    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Name> {
        self.0.get(&kind).into_iter().flatten()
    }
}
