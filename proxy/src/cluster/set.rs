//! The endpoints of a cluster in one version, laid out for picking: shares of priorities, lists of
//! who may be picked, and a picker for each list. Made anew when endpoints or their health change.

use std::sync::{Arc, OnceLock};

use super::balance::Query;
use super::balance::priority::Counts;
use super::endpoint::Endpoint;
use super::spread::{Layout, Spread, counts};
use super::subset::SubsetIndex;
use crate::model::balancing::SubsetMatch;
use crate::model::endpoint::{DropOverload, Locality as Place};
use crate::model::listener::Address;

/// Endpoints, ready to be picked from.
#[derive(Debug, Default)]
pub(crate) struct EndpointSet {
    /// All of them, in the order of the configuration.
    pub(crate) endpoints: Box<[Arc<Endpoint>]>,
    pub(crate) drops: Box<[DropOverload]>,
    pub(crate) counts: Counts,
    /// The same of each priority.
    pub(crate) levels: Box<[Counts]>,
    /// Healthy ones (or all, in panic) for each priority, and how they share the traffic.
    pub(crate) whole: Spread,
    pub(crate) subsets: Option<Box<SubsetIndex>>,
    /// Places of the endpoints in the order of their addresses, made when that is first asked for.
    by_address: OnceLock<Box<[u32]>>,
}

/// `LocalityLbEndpoints` with live endpoints.
#[derive(Debug)]
pub(crate) struct Locality {
    pub(crate) place: Arc<Place>,
    pub(crate) priority: u32,
    pub(crate) weight: Option<u32>,
    pub(crate) endpoints: Vec<Arc<Endpoint>>,
}

/// An endpoint, and how it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Picked<'a> {
    pub(crate) endpoint: &'a Arc<Endpoint>,
    /// Health was ignored to find one.
    pub(crate) panic: bool,
}

/// Which endpoints were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Whole,
    /// The subset that the route names.
    Subset,
    /// What is fallen back to, where there is no such subset.
    Fallback,
    /// Anyone, because the fallback has nobody.
    FallbackPanic,
}

impl EndpointSet {
    pub(crate) fn new(layout: &Layout<'_>, localities: &[Locality]) -> Self {
        let levels = counts(localities);
        let subsets = layout.cluster.balancing.subsets.as_ref();
        Self {
            endpoints: localities.iter().flat_map(|at| at.endpoints.iter().cloned()).collect(),
            drops: layout.assignment.drop_overloads.as_slice().into(),
            counts: levels.iter().fold(Counts::default(), |all, one| all + *one),
            levels: levels.into(),
            whole: Spread::new(layout, localities),
            subsets: subsets.map(|subsets| Box::new(SubsetIndex::new(subsets, layout, localities))),
            by_address: OnceLock::new(),
        }
    }

    /// An endpoint for a request, of the subset that its route names; and where it was looked for.
    pub(crate) fn pick(
        &self,
        query: Query,
        wanted: Option<&SubsetMatch>,
    ) -> (Option<Picked<'_>>, From) {
        let picked = |(endpoint, panic)| Picked { endpoint, panic };
        match &self.subsets {
            None => (self.whole.pick(query).map(picked), From::Whole),
            Some(subsets) => subsets.pick(&self.whole, query, wanted),
        }
    }

    /// The endpoint at this address.
    pub(crate) fn find(&self, address: &str) -> Option<&Arc<Endpoint>> {
        let at = |place: u32| self.endpoints.get(place as usize);
        let known = |place: &u32| at(*place).map(|endpoint| &endpoint.address);
        let order = self.by_address.get_or_init(|| {
            let mut order: Box<[u32]> = (0..self.endpoints.len() as u32).collect();
            order.sort_unstable_by(|a, b| known(a).cmp(&known(b)));
            order
        });
        let parsed = address.parse().map(Address::Socket);
        let wanted = parsed.unwrap_or_else(|_| Address::Pipe(address.into()));
        let found = order.binary_search_by(|place| known(place).cmp(&Some(&wanted))).ok()?;
        let found = order.get(found).and_then(|place| at(*place));
        // Nothing but the text that we write ourselves counts.
        found.filter(|endpoint| endpoint.address_text() == address)
    }
}
