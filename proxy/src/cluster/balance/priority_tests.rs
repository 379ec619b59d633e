use proptest::prelude::*;

use super::*;

const RULES: Rules = Rules { overprovisioning: 140, panic_threshold: 50, by_weight: false };

fn counts(all: u32, healthy: u32, degraded: u32) -> Counts {
    let mut counts = Counts::default();
    for index in 0..all {
        let standing = match index {
            _ if index < healthy => Standing::Healthy,
            _ if index < healthy + degraded => Standing::Degraded,
            _ => Standing::Unhealthy,
        };
        counts.count(standing, false, 1);
    }
    counts
}

fn healthy(percent: &[u32]) -> Vec<Counts> {
    percent.iter().map(|healthy| counts(100, *healthy, 0)).collect()
}

fn both(percent: &[(u32, u32)]) -> Vec<Counts> {
    percent.iter().map(|(healthy, degraded)| counts(100, *healthy, *degraded)).collect()
}

/// The rows of "Priority levels" in Envoy's documentation: two and three levels.
#[test]
fn priorities_spill_over_as_documented() {
    for (percent, expected) in [
        (vec![100, 100], vec![100, 0]),
        (vec![72, 72], vec![100, 0]),
        (vec![72, 0], vec![100, 0]),
        (vec![71, 71], vec![99, 1]),
        (vec![50, 60], vec![70, 30]),
        (vec![50, 50], vec![70, 30]),
        (vec![25, 100], vec![35, 65]),
        (vec![0, 100], vec![0, 100]),
        (vec![100, 100, 100], vec![100, 0, 0]),
        (vec![72, 72, 100], vec![100, 0, 0]),
        (vec![71, 71, 100], vec![99, 1, 0]),
        (vec![50, 60, 100], vec![70, 30, 0]),
        (vec![50, 50, 100], vec![70, 30, 0]),
        (vec![25, 100, 100], vec![35, 65, 0]),
        (vec![25, 25, 100], vec![35, 35, 30]),
        (vec![0, 100, 100], vec![0, 100, 0]),
    ] {
        let loads = loads(&healthy(&percent), &RULES);
        assert_eq!(loads.healthy, expected, "{percent:?}");
        assert!(loads.panic.iter().all(|panic| !panic), "{percent:?}");
    }
}

/// "Normalized total health": where it is less than a hundred, loads are scaled up to it.
#[test]
fn loads_are_normalized_where_there_is_not_enough_health() {
    let calm = Rules { panic_threshold: 0, ..RULES };
    for (percent, expected) in [
        // 28 and 28 of 56.
        (vec![20, 20], vec![50, 50]),
        // 28 and 14 of 42: 66 and 33, and the one that is lost goes to the first.
        (vec![20, 10], vec![67, 33]),
        (vec![0, 20], vec![0, 100]),
        (vec![10, 20, 10], vec![25, 50, 25]),
    ] {
        assert_eq!(loads(&healthy(&percent), &calm).healthy, expected, "{percent:?}");
    }
}

/// The table of "Panic threshold": levels, load, and who panics.
#[test]
fn panic_as_documented() {
    for (percent, expected, panic) in [
        (vec![72, 72], vec![100, 0], vec![false, false]),
        (vec![71, 71], vec![99, 1], vec![false, false]),
        (vec![50, 60], vec![70, 30], vec![false, false]),
        (vec![25, 100], vec![35, 65], vec![false, false]),
        (vec![5, 100], vec![7, 93], vec![false, false]),
        // 7 and 91 of 98.
        (vec![5, 65], vec![8, 92], vec![true, false]),
        (vec![25, 25], vec![50, 50], vec![true, true]),
        (vec![0, 0], vec![50, 50], vec![true, true]),
    ] {
        let loads = loads(&healthy(&percent), &RULES);
        assert_eq!((&loads.healthy, &loads.panic), (&expected, &panic), "{percent:?}");
    }
    let off = loads(&healthy(&[0, 0]), &Rules { panic_threshold: 0, ..RULES });
    assert_eq!((off.healthy, off.panic), (vec![100, 0], vec![false, false]));
}

#[test]
fn total_panic_shares_by_size() {
    let levels = [counts(1, 0, 0), counts(2, 0, 0)];
    assert_eq!(loads(&levels, &RULES).healthy, [34, 66]);
    assert_eq!(loads(&[Counts::default(), counts(2, 0, 0)], &RULES).healthy, [0, 100]);
    assert_eq!(loads(&[], &RULES), Loads::default());
    assert_eq!(loads(&[Counts::default()], &RULES).healthy, [100]);
}

/// The rows of "Degraded endpoints" in Envoy's documentation.
#[test]
fn degraded_ones_take_what_healthy_ones_cannot() {
    let one = |healthy, degraded| {
        let loads = loads(&[counts(100, healthy, degraded)], &RULES);
        (loads.healthy[0], loads.degraded[0])
    };
    assert_eq!(one(100, 0), (100, 0));
    assert_eq!(one(71, 29), (99, 1));
    assert_eq!(one(71, 0), (100, 0));
    assert_eq!(one(25, 65), (35, 65));
    assert_eq!(one(25, 75), (35, 65));
    // 7 and 91 of 98: 7 and 92, and the one that is lost goes to the healthy.
    assert_eq!(one(5, 65), (8, 92));
    assert_eq!(one(0, 100), (0, 100));
}

#[test]
fn degraded_ones_come_after_the_healthy_of_all_priorities() {
    let loads = loads(&both(&[(25, 25), (25, 0)]), &RULES);
    assert_eq!((loads.healthy, loads.degraded), (vec![35, 35], vec![30, 0]));
    // The example in Envoy's own code: 16 + 28 + 14 healthy, 28 + 14 degraded, of 70.
    let calm = Rules { overprovisioning: 100, panic_threshold: 0, by_weight: false };
    let loads = super::loads(&both(&[(10, 20), (20, 10), (10, 0)]), &calm);
    assert_eq!((loads.healthy, loads.degraded), (vec![16, 28, 14], vec![28, 14, 0]));
}

#[test]
fn the_excluded_do_not_count() {
    let mut counts = Counts::default();
    counts.count(Standing::Healthy, false, 1);
    for _ in 0..9 {
        counts.count(Standing::Unhealthy, true, 1);
    }
    let loads = loads(&[counts, healthy(&[100])[0]], &RULES);
    assert_eq!((loads.healthy, loads.panic), (vec![100, 0], vec![false, false]));
    // Nobody counts: the priority is empty, and panics where nothing else helps.
    let mut nobody = Counts::default();
    nobody.count(Standing::Unhealthy, true, 1);
    assert_eq!(super::loads(&[nobody], &RULES).panic, [true]);
}

#[test]
fn health_can_be_measured_by_weight() {
    let mut counts = Counts::default();
    counts.count(Standing::Healthy, false, 1);
    counts.count(Standing::Unhealthy, false, 9);
    let levels = [counts, healthy(&[100])[0]];
    assert_eq!(loads(&levels, &RULES).healthy, [70, 30]);
    let by_weight = Rules { by_weight: true, ..RULES };
    assert_eq!(loads(&levels, &by_weight).healthy, [14, 86]);
}

#[test]
fn localities_pass_on_what_they_cannot_serve() {
    assert_eq!(locality_weight(2, 100, 100, 140), 2.0);
    assert_eq!(locality_weight(2, 72, 100, 140), 2.0);
    assert!((locality_weight(2, 50, 100, 140) - 1.4).abs() < 1e-9);
    assert_eq!(locality_weight(2, 0, 100, 140), 0.0);
    assert_eq!(locality_weight(2, 0, 0, 140), 0.0);
}

/// The table of "Locality weighted load balancing": weights 1 and 2, and the health of the first.
#[test]
fn locality_weights_as_documented() {
    for (health, expected) in [(100, 33), (70, 33), (50, 26), (25, 15), (0, 0)] {
        let first = locality_weight(1, health, 100, 140);
        let second = locality_weight(2, 100, 100, 140);
        assert_eq!((first / (first + second) * 100.0).round() as u32, expected, "{health}");
    }
}

proptest! {
    #[test]
    fn loads_make_a_hundred(
        levels in prop::collection::vec((0_u32..50, 0_u32..50, 0_u32..50), 1..6),
        factor in 100_u32..300,
        threshold in 0_u32..101,
        by_weight: bool,
    ) {
        let levels: Vec<Counts> = levels
            .into_iter()
            .map(|(healthy, degraded, bad)| counts(healthy + degraded + bad, healthy, degraded))
            .collect();
        let rules = Rules { overprovisioning: factor, panic_threshold: threshold, by_weight };
        let loads = loads(&levels, &rules);
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
