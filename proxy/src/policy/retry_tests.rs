use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn view(headers: &HeaderMap) -> RequestView<'_> {
    RequestView { method: "GET", path: "/", authority: "a", scheme: "http", headers }
}

fn policy(on: &[&str], num_retries: u32) -> RetryPolicy {
    let mut policy = RetryPolicy { num_retries, ..RetryPolicy::default() };
    for name in on {
        assert!(policy.on.enable(name), "{name}");
    }
    policy
}

fn wants(on: &[&str], outcome: Outcome<'_>) -> bool {
    Retries::new(Some(&policy(on, 1)), &view(&HeaderMap::new())).wants(&outcome)
}

#[test]
fn conditions_look_at_status_and_grpc_status() {
    let none = HeaderMap::new();
    let answer = |code: u16| Outcome::Response(StatusCode::from_u16(code).unwrap(), &none);
    assert!(wants(&["5xx"], answer(500)));
    assert!(!wants(&["gateway-error"], answer(500)));
    assert!(wants(&["gateway-error"], answer(504)));
    assert!(wants(&["retriable-4xx"], answer(409)));
    assert!(!wants(&["retriable-4xx"], answer(429)));
    assert!(!wants(&["reset", "connect-failure", "refused-stream"], answer(503)));
    let mut grpc = HeaderMap::new();
    grpc.insert("grpc-status", HeaderValue::from_static("14"));
    assert!(wants(&["unavailable"], Outcome::Response(StatusCode::OK, &grpc)));
    assert!(!wants(&["internal"], Outcome::Response(StatusCode::OK, &grpc)));
}

#[test]
fn failures_are_retried_only_where_the_condition_says_so() {
    let fail = |reason, sent| Refusal::upstream(reason, sent, "x");
    let connect = fail(Reason::ConnectFailure, Sent::No);
    let reset = fail(Reason::ConnectionTermination, Sent::Maybe);
    let unsent = fail(Reason::ConnectionTermination, Sent::No);
    let overflow = fail(Reason::Overflow, Sent::No);
    assert!(wants(&["connect-failure"], Outcome::Failure(&connect)));
    assert!(!wants(&["connect-failure"], Outcome::Failure(&reset)));
    assert!(wants(&["reset"], Outcome::Failure(&reset)));
    assert!(!wants(&["reset-before-request"], Outcome::Failure(&reset)));
    assert!(wants(&["reset-before-request"], Outcome::Failure(&unsent)));
    assert!(!wants(&["5xx", "reset", "connect-failure"], Outcome::Failure(&overflow)));
}

#[test]
fn clients_may_ask_by_header() {
    let mut headers = HeaderMap::new();
    assert!(!Retries::new(None, &view(&headers)).possible());
    headers.insert("x-envoy-retry-on", HeaderValue::from_static("5xx, nonsense"));
    headers.insert("x-envoy-max-retries", HeaderValue::from_static("3"));
    let mut retries = Retries::new(None, &view(&headers));
    let failed = HeaderMap::new();
    assert!(retries.wants(&Outcome::Response(StatusCode::BAD_GATEWAY, &failed)));
    for _ in 0..3 {
        assert!(retries.take(1).is_some());
    }
    assert!(retries.take(1).is_none());
    assert!(retries.exhausted());
}

proptest! {
    #[test]
    fn back_off_doubles_up_to_its_maximum(random: u64, base in 1_u64..1000, retries in 1_u32..12) {
        let mut policy = policy(&["5xx"], retries);
        policy.base_interval = Duration::from_millis(base);
        policy.max_interval = Duration::from_millis(base * 10);
        let headers = HeaderMap::new();
        let mut state = Retries::new(Some(&policy), &view(&headers));
        for n in 0..retries {
            let wait = state.take(random).expect("one is left");
            let ceiling = Duration::from_millis((base << n).min(base * 10));
            prop_assert!(wait < ceiling, "{wait:?} {ceiling:?}");
        }
        prop_assert_eq!(state.take(random), None);
    }
}
