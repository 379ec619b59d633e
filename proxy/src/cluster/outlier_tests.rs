use proptest::prelude::*;

use super::*;

fn config() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 3,
        consecutive_gateway_failure: 2,
        consecutive_local_origin_failure: 2,
        max_ejection_time: Duration::from_secs(90),
        max_ejection_percent: 50,
        ..OutlierDetection::default()
    }
}

#[test]
fn failures_in_a_row_are_detected_and_a_success_breaks_the_row() {
    let (monitor, config) = (Monitor::default(), config());
    let see = |status| monitor.observe(&config, Event::Status(status));
    assert_eq!([see(500), see(500), see(200), see(500), see(500)], [None; 5]);
    assert_eq!(see(500), Some(Detector::Consecutive5xx));
    assert_eq!(see(500), None);
    monitor.reset();
    assert_eq!(see(503), None);
    assert_eq!(see(503), Some(Detector::ConsecutiveGatewayFailure));
    assert_eq!(see(504), Some(Detector::Consecutive5xx));
}

#[test]
fn local_failures_count_as_answers_unless_they_are_split() {
    let (monitor, mut config) = (Monitor::default(), config());
    for _ in 0..2 {
        monitor.observe(&config, Event::LocalFailure);
    }
    assert_eq!(monitor.observe(&config, Event::LocalTimeout), Some(Detector::Consecutive5xx));
    config.split_external_local_origin_errors = true;
    monitor.reset();
    assert_eq!(monitor.observe(&config, Event::LocalFailure), None);
    assert_eq!(monitor.observe(&config, Event::Status(500)), None);
    assert_eq!(monitor.observe(&config, Event::LocalFailure), None);
    assert_eq!(
        monitor.observe(&config, Event::LocalFailure),
        Some(Detector::ConsecutiveLocalOriginFailure)
    );
}

#[test]
fn ejection_grows_and_shrinks() {
    let config = config();
    let mut ejection = Ejection::default();
    let mut now = Instant::now();
    for seconds in [30, 60, 90, 90] {
        ejection.eject(&config, now, 0);
        now += Duration::from_secs(seconds - 1);
        assert!(!ejection.returns(&config, now), "{seconds}");
        now += Duration::from_secs(1);
        assert!(ejection.returns(&config, now), "{seconds}");
    }
    // Three quiet intervals later it is back to the start.
    for _ in 0..4 {
        assert!(!ejection.returns(&config, now));
    }
    ejection.eject(&config, now, 0);
    assert!(ejection.returns(&config, now + Duration::from_secs(30)));
    assert_eq!(ejection.count(), 5);
}

#[test]
fn jitter_spreads_returns() {
    let config = OutlierDetection { max_ejection_time_jitter: Duration::from_secs(5), ..config() };
    let now = Instant::now();
    let mut ejection = Ejection::default();
    ejection.eject(&config, now, 2_000);
    assert!(!ejection.returns(&config, now + Duration::from_secs(31)));
    assert!(ejection.returns(&config, now + Duration::from_secs(32)));
}

#[test]
fn one_may_always_go_where_that_is_said() {
    let mut config = OutlierDetection { max_ejection_percent: 10, ..config() };
    let one = |config: &OutlierDetection, ejected| {
        judge(config, Detector::Consecutive5xx, (ejected, 4), 0)
    };
    assert_eq!(one(&config, 0), Verdict::Overflow);
    config.always_eject_one = true;
    assert_eq!(one(&config, 0), Verdict::Eject);
    assert_eq!(one(&config, 1), Verdict::Overflow);
}

proptest! {
    #[test]
    fn never_more_than_the_limit(
        total in 1_usize..200,
        percent in 0_u32..101,
        always_eject_one: bool,
        random: u64,
    ) {
        let config =
            OutlierDetection { max_ejection_percent: percent, always_eject_one, ..config() };
        let mut ejected = 0;
        for _ in 0..total {
            match judge(&config, Detector::Consecutive5xx, (ejected, total), random) {
                Verdict::Eject => ejected += 1,
                Verdict::Overflow => break,
                Verdict::NotEnforced => prop_assert!(false, "enforcing is 100"),
            }
        }
        let within = ejected * 100 <= percent as usize * total;
        prop_assert!(within || (ejected == 1 && always_eject_one));
        prop_assert!((ejected + 1) * 100 > percent as usize * total);
        if percent == 100 {
            prop_assert_eq!(
                judge(&config, Detector::ConsecutiveGatewayFailure, (0, total), random),
                Verdict::NotEnforced
            );
        }
    }
}
