//! Who names what, and what a change touches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::Name;
use crate::model::source::Reference;
use crate::xds::kind::Kind;

/// Something by its kind and key.
type Place = (Kind, Name);

/// The clusters and listeners that name a resource.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeMap<Place, BTreeSet<Place>>);

impl Users {
    /// A cluster or listener names these.
    pub(super) fn note(&mut self, (kind, name): (Kind, &Name), named: &[(Kind, &Reference)]) {
        for (of, reference) in named {
            let users = self.0.entry((*of, Arc::clone(reference.key()))).or_default();
            users.insert((kind, Arc::clone(name)));
        }
    }

    /// It does not any more.
    pub(super) fn forget(&mut self, (kind, name): (Kind, &Name), named: &[(Kind, &Reference)]) {
        let user = (kind, Arc::clone(name));
        for (of, reference) in named {
            let place = (*of, Arc::clone(reference.key()));
            if let Some(users) = self.0.get_mut(&place) {
                users.remove(&user);
                if users.is_empty() {
                    self.0.remove(&place);
                }
            }
        }
    }

    /// Those who name a resource.
    pub(super) fn of(&self, kind: Kind, name: &Name) -> impl Iterator<Item = &Place> {
        self.0.get(&(kind, Arc::clone(name))).into_iter().flatten()
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
