//! Zone-aware routing: as much to the proxy's own zone as it can take, and what is left to zones
//! that have endpoints to spare (Envoy's "Zone aware routing").

use std::collections::BTreeMap;

use super::{below, mix};
use crate::model::balancing::ZoneAware;
use crate::model::endpoint::Locality;

/// Where the proxies of this kind are: the healthy endpoints of the local cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Proxies {
    /// Where this one is.
    pub(crate) own: Locality,
    /// Healthy ones by locality.
    pub(crate) healthy: BTreeMap<Locality, Size>,
    /// Localities that the local cluster has, healthy or not.
    pub(crate) localities: usize,
    /// Too few of them are healthy.
    pub(crate) panic: bool,
}

/// Healthy endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) count: u64,
    /// Sum of their weights.
    pub(crate) weight: u64,
}

/// How requests are spread over localities.
#[derive(Debug, PartialEq)]
pub(crate) enum Plan {
    /// Without regard to localities.
    Flat,
    /// All to this one.
    Direct(usize),
    /// Some to the own one, the others by what each has to spare.
    Residual {
        /// The own one, and how many of ten thousand requests it gets.
        own: Option<(usize, u64)>,
        /// What each has to spare, added up.
        spare: Box<[u64]>,
    },
}

/// Makes the plan for the localities of the upstream cluster.
pub(crate) fn plan(config: &ZoneAware, proxies: &Proxies, upstream: &[(&Locality, Size)]) -> Plan {
    let healthy: u64 = upstream.iter().map(|(_, size)| size.count).sum();
    let at_home = proxies.healthy.get(&proxies.own).copied().unwrap_or_default();
    let useless = upstream.len() < 2
        || proxies.localities < 2
        || at_home.count == 0
        || healthy < config.min_cluster_size;
    if useless {
        return Plan::Flat;
    }
    let size = |size: Size| if config.by_weight { size.weight } else { size.count };
    let all_proxies = proxies.healthy.values().copied().map(size).sum();
    let all_upstream = upstream.iter().map(|(_, at)| size(*at)).sum();
    let shares: Vec<(u64, u64)> = upstream
        .iter()
        .map(|(locality, at)| {
            let there = proxies.healthy.get(locality).copied().unwrap_or_default();
            (of_ten_thousand(size(there), all_proxies), of_ten_thousand(size(*at), all_upstream))
        })
        .collect();
    let is_own = |(locality, at): &(&Locality, Size)| **locality == proxies.own && at.count > 0;
    let own = upstream.iter().position(is_own);
    if let Some(index) = own
        && let (Some((_, at)), Some((ours, theirs))) = (upstream.get(index), shares.get(index))
    {
        let enough = config.force_local.is_some_and(|least| at.count >= u64::from(least));
        if (*theirs > 0 && theirs >= ours) || config.force_direct || enough {
            return Plan::Direct(index);
        }
    }
    let mut total = 0;
    let spare = shares.iter().enumerate().map(|(index, (ours, theirs))| {
        if own != Some(index) {
            total += theirs.saturating_sub(*ours);
        }
        total
    });
    let spare = spare.collect();
    let share_of = |index: usize| {
        let (ours, theirs) = shares.get(index).copied().unwrap_or_default();
        (index, (theirs * 10_000).checked_div(ours).unwrap_or(0))
    };
    Plan::Residual { own: own.map(share_of), spare }
}

fn of_ten_thousand(part: u64, whole: u64) -> u64 {
    (part * 10_000).checked_div(whole).unwrap_or(0)
}

impl Plan {
    /// Index of a locality. None: without regard to localities.
    pub(crate) fn pick(&self, random: u64) -> Option<usize> {
        match self {
            Self::Flat => None,
            Self::Direct(index) => Some(*index),
            Self::Residual { own, spare } => {
                if let Some((index, share)) = own
                    && random % 10_000 < *share
                {
                    return Some(*index);
                }
                let random = mix(random);
                let total = spare.last().copied().unwrap_or(0);
                if total == 0 {
                    // Rounding left nothing over.
                    return Some(below(spare.len(), random));
                }
                let at = random % total;
                Some(spare.partition_point(|upto| *upto <= at))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> Locality {
        Locality { zone: name.to_owned(), ..Locality::default() }
    }

    fn size(count: u64) -> Size {
        Size { count, weight: count }
    }

    fn proxies(counts: &[(&str, u64)]) -> Proxies {
        Proxies {
            own: zone("a"),
            healthy: counts.iter().map(|(name, count)| (zone(name), size(*count))).collect(),
            localities: counts.len(),
            panic: false,
        }
    }

    fn made(config: &ZoneAware, proxies: &Proxies, upstream: &[(&str, u64)]) -> Plan {
        let zones: Vec<Locality> = upstream.iter().map(|(name, _)| zone(name)).collect();
        let counts = upstream.iter().map(|(_, count)| size(*count));
        let upstream: Vec<(&Locality, Size)> = zones.iter().zip(counts).collect();
        plan(config, proxies, &upstream)
    }

    #[test]
    fn the_own_zone_takes_all_where_it_can() {
        let config = ZoneAware::default();
        let even = proxies(&[("a", 2), ("b", 2)]);
        assert_eq!(made(&config, &even, &[("a", 4), ("b", 4)]), Plan::Direct(0));
        assert_eq!(made(&config, &even, &[("b", 4), ("a", 4)]), Plan::Direct(1));
        // Too small, one zone only, nobody here: no zones at all.
        assert_eq!(made(&config, &even, &[("a", 2), ("b", 2)]), Plan::Flat);
        assert_eq!(made(&config, &even, &[("a", 8)]), Plan::Flat);
        assert_eq!(made(&config, &proxies(&[("a", 2)]), &[("a", 4), ("b", 4)]), Plan::Flat);
        let elsewhere = proxies(&[("b", 2), ("c", 2)]);
        assert_eq!(made(&config, &elsewhere, &[("a", 4), ("b", 4)]), Plan::Flat);
    }

    #[test]
    fn what_the_own_zone_cannot_take_goes_where_there_is_room() {
        let config = ZoneAware::default();
        let three = proxies(&[("a", 4), ("b", 4), ("c", 2)]);
        // 40, 40, 20 % of the proxies; 25, 50, 25 % of the endpoints.
        let plan = made(&config, &three, &[("a", 5), ("b", 10), ("c", 5)]);
        let expected = Plan::Residual { own: Some((0, 6250)), spare: [0, 1000, 1500].into() };
        assert_eq!(plan, expected);
        let mut hits = [0_u32; 3];
        for i in 0..100_000 {
            hits[plan.pick(mix(i)).unwrap()] += 1;
        }
        for (hits, expected) in hits.iter().zip([62_500_u32, 25_000, 12_500]) {
            assert!(hits.abs_diff(expected) < 600, "{hits} {expected}");
        }
        let forced = ZoneAware { force_local: Some(5), ..config };
        assert_eq!(made(&forced, &three, &[("a", 5), ("b", 10), ("c", 5)]), Plan::Direct(0));
        let nobody_here = made(&ZoneAware::default(), &three, &[("b", 10), ("c", 5)]);
        assert!(matches!(nobody_here, Plan::Residual { own: None, .. }), "{nobody_here:?}");
    }
}
