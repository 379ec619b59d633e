use proptest::prelude::*;

use super::*;
use crate::model::health_check::{Checker, TcpCheck};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn config(unhealthy: u32, healthy: u32) -> HealthCheck {
    HealthCheck {
        timeout: SECOND,
        intervals: intervals(),
        unhealthy_threshold: unhealthy,
        healthy_threshold: healthy,
        reuse_connection: true,
        port: None,
        alpn: Vec::new(),
        events: None,
        checker: Checker::Tcp(TcpCheck::default()),
    }
}

fn intervals() -> Intervals {
    Intervals {
        healthy: SECOND,
        unhealthy: SECOND * 2,
        unhealthy_edge: SECOND * 3,
        healthy_edge: SECOND * 4,
        no_traffic: SECOND * 5,
        no_traffic_healthy: SECOND * 6,
        initial_jitter: Duration::ZERO,
        jitter: Duration::ZERO,
        jitter_percent: 0,
    }
}

fn fresh() -> Flags {
    let flags = Flags::default();
    flags.set(Flags::FAILED_ACTIVE);
    flags
}

const NETWORK: Finding = Finding::Failed(Failure::Network);

#[test]
fn the_first_success_counts_at_once_and_later_ones_by_threshold() {
    let (mut session, flags, config) = (Session::new(), fresh(), config(2, 3));
    let step = session.take(&config, &flags, Finding::Healthy);
    assert_eq!(step.transition, Transition::Changed);
    assert_eq!(step.events, [Event::Add { first: true }]);
    assert!(!flags.has(Flags::FAILED_ACTIVE));
    assert_eq!(session.take(&config, &flags, NETWORK).transition, Transition::Pending);
    assert_eq!(session.take(&config, &flags, NETWORK).events, [Event::Eject(Failure::Network)]);
    for _ in 0..2 {
        let step = session.take(&config, &flags, Finding::Healthy);
        assert_eq!(step.transition, Transition::Pending);
        assert!(flags.has(Flags::FAILED_ACTIVE));
    }
    let step = session.take(&config, &flags, Finding::Healthy);
    assert_eq!(step.events, [Event::Add { first: false }]);
}

#[test]
fn a_first_failure_leaves_it_out_and_the_threshold_counts_from_then_on() {
    let (mut session, flags, config) = (Session::new(), fresh(), config(2, 2));
    let step = session.take(&config, &flags, NETWORK);
    assert_eq!(step.transition, Transition::Unchanged);
    assert_eq!(step.events, [Event::Failed { why: Failure::Network, first: true }]);
    assert_eq!(session.take(&config, &flags, Finding::Healthy).transition, Transition::Pending);
    assert_eq!(session.take(&config, &flags, Finding::Healthy).transition, Transition::Changed);
}

#[test]
fn what_it_says_itself_counts_at_once_and_the_network_by_threshold() {
    for (why, checks) in [
        (Failure::Active, 1),
        (Failure::Passive, 1),
        (Failure::Retriable, 3),
        (Failure::Network, 3),
        (Failure::Timeout, 3),
    ] {
        let (mut session, flags, config) = (Session::new(), fresh(), config(3, 1));
        session.take(&config, &flags, Finding::Healthy);
        let mut count = 0;
        while !flags.has(Flags::FAILED_ACTIVE) {
            session.take(&config, &flags, Finding::Failed(why));
            count += 1;
        }
        assert_eq!(count, checks, "{why:?}");
        assert_eq!(flags.has(Flags::TIMED_OUT), why == Failure::Timeout);
    }
}

#[test]
fn a_success_starts_the_row_of_failures_anew() {
    let (mut session, flags, config) = (Session::new(), fresh(), config(2, 1));
    session.take(&config, &flags, Finding::Healthy);
    for _ in 0..5 {
        session.take(&config, &flags, NETWORK);
        session.take(&config, &flags, Finding::Healthy);
    }
    assert!(!flags.has(Flags::FAILED_ACTIVE));
}

#[test]
fn degraded_is_a_state_of_its_own() {
    let (mut session, flags, config) = (Session::new(), fresh(), config(1, 2));
    let step = session.take(&config, &flags, Finding::Degraded);
    assert_eq!(step.events, [Event::Add { first: true }, Event::Degraded]);
    assert_eq!(session.take(&config, &flags, Finding::Degraded).transition, Transition::Unchanged);
    let step = session.take(&config, &flags, Finding::Healthy);
    assert_eq!(
        (step.transition, step.events),
        (Transition::Changed, vec![Event::NoLongerDegraded])
    );
    session.take(&config, &flags, NETWORK);
    // The threshold is not reached: that decides, not the change of colour.
    assert_eq!(session.take(&config, &flags, Finding::Degraded).transition, Transition::Pending);
}

#[test]
fn whoever_was_ignored_counts_after_its_first_result() {
    let (mut session, flags) = (Session::new(), fresh());
    flags.set(Flags::PENDING_ACTIVE);
    let step = session.take(&config(3, 3), &flags, NETWORK);
    assert_eq!(step.transition, Transition::Changed);
    assert!(!flags.has(Flags::PENDING_ACTIVE) && flags.has(Flags::FAILED_ACTIVE));
}

#[test]
fn intervals_depend_on_health_edges_and_traffic() {
    let all = intervals();
    let seconds =
        |healthy, transition, traffic| all.next((healthy, transition), traffic, 0).as_secs();
    assert_eq!(seconds(true, Transition::Unchanged, true), 1);
    assert_eq!(seconds(true, Transition::Changed, true), 1);
    assert_eq!(seconds(false, Transition::Unchanged, true), 2);
    assert_eq!(seconds(false, Transition::Pending, true), 3);
    assert_eq!(seconds(true, Transition::Pending, true), 4);
    assert_eq!(seconds(false, Transition::Changed, false), 5);
    assert_eq!(seconds(true, Transition::Pending, false), 5);
    assert_eq!(seconds(true, Transition::Changed, false), 6);
}

#[test]
fn segments_come_in_order_with_gaps() {
    let segments =
        |list: &[&str]| list.iter().map(|one| one.as_bytes().to_vec()).collect::<Vec<_>>();
    assert!(contains(&segments(&["ab", "cd"]), b"xxabyycdzz"));
    assert!(!contains(&segments(&["cd", "ab"]), b"xxabyycdzz"));
    assert!(!contains(&segments(&["aba", "aba"]), b"ababa"));
    assert!(contains(&[], b"") && contains(&segments(&[""]), b""));
}

proptest! {
    #[test]
    fn jitter_only_ever_adds(random: u64, percent in 0_u32..200, jitter in 0_u64..5_000) {
        let all = Intervals {
            jitter: Duration::from_millis(jitter),
            jitter_percent: percent,
            ..intervals()
        };
        let next = all.next((true, Transition::Unchanged), true, random);
        let most = SECOND + Duration::from_millis(jitter) + SECOND * percent / 100;
        prop_assert!((SECOND..=most).contains(&next));
        let all = Intervals { initial_jitter: Duration::from_millis(jitter), ..all };
        prop_assert!(all.first(random) <= Duration::from_millis(jitter.max(1)));
    }
}
