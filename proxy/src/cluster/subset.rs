//! Subsets of endpoints by metadata (Envoy's "Load balancer subsets"): a route says values, and only
//! endpoints that have them are picked from. Every subset is laid out beforehand.

use std::collections::HashMap;
use std::sync::Arc;

use super::balance::Query;
use super::endpoint::Endpoint;
use super::set::{From, Locality, Picked};
use super::spread::{Layout, Spread};
use crate::model::Name;
use crate::model::balancing::{
    Fallback, LocalityRouting, Selector, SelectorFallback, SubsetMatch, Subsets, fold,
};
use crate::model::metadata::{self, Value, has_all};

/// The subsets of a cluster.
#[derive(Debug)]
pub(crate) struct SubsetIndex {
    /// With most keys first, where redundant keys are allowed.
    selectors: Box<[Selected]>,
    allow_redundant_keys: bool,
    fallback: Fallback,
    default: Option<Spread>,
    panic_mode_any: bool,
    /// Endpoints that found the one place of their subset taken.
    duplicates: usize,
}

/// What a selector makes.
#[derive(Debug)]
struct Selected {
    keys: Box<[Name]>,
    fallback: Option<SelectorFallback>,
    /// By the values of the keys.
    subsets: HashMap<u64, Spread, foldhash::fast::RandomState>,
    duplicates: usize,
}

/// Places of endpoints: which locality, and which endpoint of it.
type Members = Vec<(usize, usize)>;

impl SubsetIndex {
    pub(crate) fn new(config: &Subsets, layout: &Layout<'_>, localities: &[Locality]) -> Self {
        let weighted = matches!(layout.cluster.balancing.locality, LocalityRouting::Weighted);
        let locality_weighted = weighted && config.locality_weight_aware;
        let maker = Maker { config, layout: Layout { locality_weighted, ..*layout }, localities };
        let mut selectors: Vec<Selected> =
            config.selectors.iter().map(|selector| maker.selected(selector)).collect();
        let duplicates = selectors.iter().map(|selected| selected.duplicates).sum();
        if config.allow_redundant_keys {
            selectors.sort_by_key(|selected| usize::MAX - selected.keys.len());
        }
        let in_default = |at: &Endpoint| {
            has_all(at.metadata.get(metadata::LB), &config.default_subset, config.list_as_any)
        };
        Self {
            selectors: selectors.into(),
            allow_redundant_keys: config.allow_redundant_keys,
            fallback: config.fallback,
            default: (!config.default_subset.is_empty())
                .then(|| maker.spread(&maker.all(in_default))),
            panic_mode_any: config.panic_mode_any,
            duplicates,
        }
    }

    /// How many subsets there are.
    pub(crate) fn len(&self) -> usize {
        self.selectors.iter().map(|selected| selected.subsets.len()).sum()
    }

    /// How many endpoints found the one place of their subset taken.
    pub(crate) fn duplicates(&self) -> usize {
        self.duplicates
    }

    /// An endpoint of the subset that is wanted, or of what is fallen back to.
    pub(crate) fn pick<'a>(
        &'a self,
        whole: &'a Spread,
        query: Query,
        wanted: Option<&SubsetMatch>,
    ) -> (Option<Picked<'a>>, From) {
        let picked = |spread: &'a Spread, from| {
            (spread.pick(query).map(|(endpoint, panic)| Picked { endpoint, panic }), from)
        };
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty())
            && let Some(selected) = self.selected(wanted)
        {
            match self.subset(selected, wanted) {
                Found::Subset(subset) => return picked(subset, From::Subset),
                // Envoy counts only what the cluster falls back to.
                Found::Fallback(fallback) => match self.spread(whole, fallback) {
                    Some(spread) => return picked(spread, From::Whole),
                    None => return (None, From::Whole),
                },
                Found::Nothing => {}
            }
        }
        match self.spread(whole, self.fallback) {
            Some(spread) if !spread.is_empty() => picked(spread, From::Fallback),
            Some(_) if self.panic_mode_any => picked(whole, From::FallbackPanic),
            _ => (None, From::Whole),
        }
    }

    fn spread<'a>(&'a self, whole: &'a Spread, fallback: Fallback) -> Option<&'a Spread> {
        match fallback {
            Fallback::None => None,
            Fallback::Any => Some(whole),
            Fallback::Default => self.default.as_ref(),
        }
    }

    /// The selector with the keys that are wanted.
    fn selected(&self, wanted: &SubsetMatch) -> Option<&Selected> {
        let fits = |selected: &&Selected| {
            let same = selected.keys.len() == wanted.len();
            (same || self.allow_redundant_keys) && wanted.of(&selected.keys).is_some()
        };
        self.selectors.iter().find(fits)
    }

    fn subset<'a>(&'a self, selected: &'a Selected, wanted: &SubsetMatch) -> Found<'a> {
        let mut selected = selected;
        // Each time with fewer keys, so that it ends.
        loop {
            let found = wanted.of(&selected.keys).and_then(|of| selected.subsets.get(&of));
            if let Some(subset) = found {
                return Found::Subset(subset);
            }
            match &selected.fallback {
                None => return Found::Nothing,
                Some(SelectorFallback::To(fallback)) => return Found::Fallback(*fallback),
                Some(SelectorFallback::Keys(keys)) => {
                    let fewer = |other: &&Selected| *other.keys == **keys;
                    match self.selectors.iter().find(fewer) {
                        Some(other) => selected = other,
                        None => return Found::Nothing,
                    }
                }
            }
        }
    }
}

enum Found<'a> {
    Subset(&'a Spread),
    Fallback(Fallback),
    /// What holds for the whole cluster.
    Nothing,
}

struct Maker<'a> {
    config: &'a Subsets,
    layout: Layout<'a>,
    localities: &'a [Locality],
}

impl Maker<'_> {
    fn selected(&self, selector: &Selector) -> Selected {
        let mut duplicates = 0;
        let mut members: HashMap<u64, Members, foldhash::fast::RandomState> = HashMap::default();
        for (at, locality) in self.localities.iter().enumerate() {
            for (index, endpoint) in locality.endpoints.iter().enumerate() {
                for value in self.values(endpoint, &selector.keys) {
                    let subset = members.entry(value).or_default();
                    if !selector.single_host || subset.is_empty() {
                        subset.push((at, index));
                    } else {
                        duplicates += 1;
                    }
                }
            }
        }
        Selected {
            keys: selector.keys.clone().into(),
            fallback: selector.fallback.clone(),
            duplicates,
            subsets: members.iter().map(|(key, of)| (*key, self.spread(of))).collect(),
        }
    }

    /// Every combination of values that the endpoint has for these keys, as one number each.
    fn values(&self, endpoint: &Endpoint, keys: &[Name]) -> Vec<u64> {
        let Some(fields) = endpoint.metadata.get(metadata::LB) else { return Vec::new() };
        let mut all = vec![0];
        for key in keys {
            all = match fields.get(&**key) {
                None => return Vec::new(),
                Some(Value::List(values)) if self.config.list_as_any => all
                    .iter()
                    .flat_map(|all| values.iter().map(|one| fold(*all, one.fingerprint())))
                    .collect(),
                Some(value) => {
                    let one = value.fingerprint();
                    all.iter().map(|all| fold(*all, one)).collect()
                }
            };
        }
        all
    }

    fn all(&self, wanted: impl Fn(&Endpoint) -> bool) -> Members {
        let localities = self.localities.iter().enumerate();
        localities
            .flat_map(|(at, locality)| {
                let endpoints = locality.endpoints.iter().enumerate();
                endpoints.filter(|(_, endpoint)| wanted(endpoint)).map(move |(i, _)| (at, i))
            })
            .collect()
    }

    /// Localities with these endpoints only. `members` are in the order of the localities.
    fn spread(&self, members: &Members) -> Spread {
        let mut localities: Vec<Locality> = Vec::new();
        // A priority without endpoints stays one: it has no share, and does not move the others.
        for (at, locality) in self.localities.iter().enumerate() {
            let own = members.iter().filter(|(of, _)| *of == at);
            let endpoints: Vec<Arc<Endpoint>> =
                own.filter_map(|(_, index)| locality.endpoints.get(*index).cloned()).collect();
            let scaled = |weight: u32| {
                let share = endpoints.len() as f64 / locality.endpoints.len().max(1) as f64;
                (f64::from(weight) * share).round() as u32
            };
            let weight = match locality.weight {
                Some(weight) if self.config.scale_locality_weight => Some(scaled(weight)),
                weight => weight,
            };
            let place = Arc::clone(&locality.place);
            let priority = locality.priority;
            localities.push(Locality { place, priority, weight, endpoints });
        }
        Spread::new(&self.layout, &localities)
    }
}
