//! How much traffic each priority gets: Envoy's arithmetic of overprovisioning, spill-over, degraded
//! endpoints and panic ("Priority levels" and "Panic threshold" in its load balancing documentation).

/// What a priority has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) all: u32,
    pub(crate) healthy: u32,
    pub(crate) degraded: u32,
}

/// Percent of the traffic by priority: both lists together make a hundred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loads {
    /// To healthy endpoints; to all of them where the priority panics.
    pub(crate) healthy: Vec<u32>,
    /// To degraded endpoints.
    pub(crate) degraded: Vec<u32>,
    /// Too few endpoints are left: health is not looked at.
    pub(crate) panic: Vec<bool>,
}

/// `overprovisioning` is in percent (140), `panic_threshold` too (50; 0 turns panic off).
pub(crate) fn loads(levels: &[Counts], overprovisioning: u32, panic_threshold: u32) -> Loads {
    let available = |count: u32, all: u32| {
        let percent = u64::from(overprovisioning) * u64::from(count);
        percent.checked_div(u64::from(all)).unwrap_or(0).min(100) as u32
    };
    let healthy: Vec<u32> = levels.iter().map(|at| available(at.healthy, at.all)).collect();
    let degraded: Vec<u32> = levels.iter().map(|at| available(at.degraded, at.all)).collect();
    let total = healthy.iter().chain(&degraded).sum::<u32>().min(100);
    if total == 0 && panic_threshold == 0 {
        return everything_to_the_first(levels.len());
    }
    let panic: Vec<bool> =
        levels.iter().map(|at| total < 100 && panics(*at, panic_threshold)).collect();
    if panic.iter().all(|panic| *panic) {
        return by_size(levels, panic);
    }
    let mut left = 100;
    let mut loads = Loads {
        healthy: distribute(&healthy, total, &mut left),
        degraded: distribute(&degraded, total, &mut left),
        panic,
    };
    // What rounding left over goes to the first that can take it.
    if let Some(first) = healthy.iter().position(|available| *available > 0) {
        loads.healthy[first] += left;
    } else if let Some(first) = degraded.iter().position(|available| *available > 0) {
        loads.degraded[first] += left;
    }
    loads
}

fn panics(at: Counts, threshold: u32) -> bool {
    let usable = u64::from(at.healthy + at.degraded) * 100;
    match at.all {
        0 => threshold > 0,
        all => usable < u64::from(threshold.min(100)) * u64::from(all),
    }
}

fn distribute(available: &[u32], total: u32, left: &mut u32) -> Vec<u32> {
    available
        .iter()
        .map(|available| {
            let load = (available * 100).checked_div(total).unwrap_or(0).min(*left);
            *left -= load;
            load
        })
        .collect()
}

/// Every priority panics: each gets traffic by the number of its endpoints.
fn by_size(levels: &[Counts], panic: Vec<bool>) -> Loads {
    let total: u64 = levels.iter().map(|at| u64::from(at.all)).sum();
    if total == 0 {
        return Loads { panic, ..everything_to_the_first(levels.len()) };
    }
    let mut healthy: Vec<u32> =
        levels.iter().map(|at| (u64::from(at.all) * 100 / total) as u32).collect();
    let left = 100 - healthy.iter().sum::<u32>();
    if let Some(first) = levels.iter().position(|at| at.all > 0) {
        healthy[first] += left;
    }
    Loads { degraded: vec![0; healthy.len()], healthy, panic }
}

fn everything_to_the_first(levels: usize) -> Loads {
    let mut healthy = vec![0; levels];
    if let Some(first) = healthy.first_mut() {
        *first = 100;
    }
    Loads { healthy, degraded: vec![0; levels], panic: vec![false; levels] }
}

/// Weight of a locality after its health: a locality with too few healthy endpoints passes a part
/// of its share on (`locality_weighted_lb_config`).
pub(crate) fn locality_weight(weight: u32, usable: u32, all: u32, overprovisioning: u32) -> f64 {
    if all == 0 {
        return 0.0;
    }
    let ratio = f64::from(usable) / f64::from(all) * f64::from(overprovisioning) / 100.0;
    f64::from(weight) * ratio.min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn healthy(percent: &[u32]) -> Vec<Counts> {
        percent.iter().map(|healthy| Counts { all: 100, healthy: *healthy, degraded: 0 }).collect()
    }

    /// The rows of Envoy's documentation.
    #[test]
    fn priorities_spill_over_as_documented() {
        for (percent, expected) in [
            (vec![100, 100], vec![100, 0]),
            (vec![72, 72], vec![100, 0]),
            (vec![71, 71], vec![99, 1]),
            (vec![50, 60], vec![70, 30]),
            (vec![25, 100], vec![35, 65]),
            (vec![0, 100], vec![0, 100]),
            (vec![100, 100, 100], vec![100, 0, 0]),
            (vec![71, 71, 100], vec![99, 1, 0]),
            (vec![50, 60, 100], vec![70, 30, 0]),
            (vec![50, 50, 100], vec![70, 30, 0]),
            (vec![25, 25, 100], vec![35, 35, 30]),
        ] {
            let loads = loads(&healthy(&percent), 140, 50);
            assert_eq!(loads.healthy, expected, "{percent:?}");
            assert!(loads.panic.iter().all(|panic| !panic), "{percent:?}");
        }
    }

    #[test]
    fn a_priority_panics_only_when_the_others_do_not_make_up_for_it() {
        let enough = loads(&healthy(&[5, 100]), 140, 50);
        assert_eq!((enough.healthy, enough.panic), (vec![7, 93], vec![false, false]));
        // 7 + 91 is less than 100: the first panics, the second is well.
        assert_eq!(loads(&healthy(&[5, 65]), 140, 50).panic, [true, false]);
        let all = loads(&healthy(&[0, 0]), 140, 50);
        assert_eq!((all.healthy, all.panic), (vec![50, 50], vec![true, true]));
        let off = loads(&healthy(&[0, 0]), 140, 0);
        assert_eq!((off.healthy, off.panic), (vec![100, 0], vec![false, false]));
    }

    #[test]
    fn total_panic_shares_by_size() {
        let levels = [
            Counts { all: 1, healthy: 0, degraded: 0 },
            Counts { all: 2, healthy: 0, degraded: 0 },
        ];
        assert_eq!(loads(&levels, 140, 50).healthy, [34, 66]);
        assert_eq!(loads(&[], 140, 50), Loads::default());
        assert_eq!(loads(&[Counts::default()], 140, 50).healthy, [100]);
    }

    #[test]
    fn degraded_ones_take_what_healthy_ones_cannot() {
        let level = |healthy, degraded| [Counts { all: 100, healthy, degraded }];
        let share = |healthy, degraded| {
            let loads = loads(&level(healthy, degraded), 140, 50);
            (loads.healthy[0], loads.degraded[0])
        };
        assert_eq!(share(100, 0), (100, 0));
        assert_eq!(share(71, 29), (99, 1));
        assert_eq!(share(25, 65), (35, 65));
        assert_eq!(share(0, 100), (0, 100));
    }

    #[test]
    fn localities_pass_on_what_they_cannot_serve() {
        assert_eq!(locality_weight(2, 100, 100, 140), 2.0);
        assert_eq!(locality_weight(2, 72, 100, 140), 2.0);
        assert!((locality_weight(2, 50, 100, 140) - 1.4).abs() < 1e-9);
        assert_eq!(locality_weight(2, 0, 100, 140), 0.0);
        assert_eq!(locality_weight(2, 0, 0, 140), 0.0);
    }

    proptest! {
        #[test]
        fn loads_make_a_hundred(
            levels in prop::collection::vec((0_u32..50, 0_u32..50, 0_u32..50), 1..6),
            factor in 100_u32..300,
            threshold in 0_u32..101,
        ) {
            let levels: Vec<Counts> = levels
                .into_iter()
                .map(|(healthy, degraded, bad)| Counts {
                    all: healthy + degraded + bad,
                    healthy,
                    degraded,
                })
                .collect();
            let loads = loads(&levels, factor, threshold);
            let sum: u32 = loads.healthy.iter().chain(&loads.degraded).sum();
            prop_assert_eq!(sum, 100);
            // Nobody sends to where there is nobody, unless there is nobody at all.
            if levels.iter().any(|at| at.healthy > 0) {
                for (level, load) in levels.iter().zip(&loads.healthy) {
                    prop_assert!(*load == 0 || level.all > 0);
                }
            }
        }
    }
}
