use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn view(headers: &HeaderMap) -> RequestView<'_> {
    RequestView { method: "GET", path: "/", authority: Some("a"), scheme: None, headers }
}

fn retries<'a>(policy: Option<&'a RetryPolicy>, headers: &HeaderMap) -> Retries<'a> {
    Retries::new(policy, &view(headers), names::envoy(headers))
}

fn policy(on: &[&str], num_retries: u32) -> RetryPolicy {
    let mut policy = RetryPolicy { num_retries, ..RetryPolicy::default() };
    for name in on {
        assert!(policy.on.enable(name), "{name}");
    }
    policy
}

fn wants(on: &[&str], outcome: Outcome<'_>) -> bool {
    retries(Some(&policy(on, 1)), &HeaderMap::new()).wants(&outcome)
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
    assert!(!retries(None, &headers).possible());
    headers.insert("x-envoy-retry-on", HeaderValue::from_static("5xx, nonsense"));
    headers.insert("x-envoy-max-retries", HeaderValue::from_static("3"));
    let mut state = retries(None, &headers);
    let failed = HeaderMap::new();
    assert!(state.wants(&Outcome::Response(StatusCode::BAD_GATEWAY, &failed)));
    for _ in 0..3 {
        assert!(state.take(1, None).is_some());
    }
    assert!(state.take(1, None).is_none());
    assert!(state.exhausted());
}

#[test]
fn an_endpoint_may_ask_to_be_left_alone_for_a_while() {
    let mut policy = policy(&["5xx"], 3);
    let header = |name: &'static str, format| (HeaderName::from_static(name), format);
    policy.rate_limited = Some(RateLimited {
        headers: vec![
            header("retry-after", ResetFormat::Seconds),
            header("x-reset", ResetFormat::UnixTimestamp),
        ],
        max_interval: Duration::from_secs(100),
    });
    let mut state = retries(Some(&policy), &HeaderMap::new());
    let now = UNIX_EPOCH + Duration::from_secs(1000);
    let asked = |after: &'static str, reset: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", HeaderValue::from_static(after));
        headers.insert("x-reset", HeaderValue::from_static(reset));
        let answer = Outcome::Response(StatusCode::SERVICE_UNAVAILABLE, &headers);
        state.asked(&answer, now).map(|time| time.as_secs())
    };
    assert_eq!(asked("7", "1050"), Some(7));
    assert_eq!(asked("soon", "1050"), Some(50));
    assert_eq!(asked("101", "999"), None);
    let ten = Duration::from_secs(10);
    assert_eq!(state.take(0, Some(ten)), Some(Wait::AsAsked(ten)));
    let most = state.take(4_999_999_999, Some(ten)).expect("one is left").time();
    assert_eq!(most, Duration::from_nanos(14_999_999_999));
}

#[test]
fn what_a_rate_limit_refused_is_tried_again_only_if_that_is_asked_for() {
    let mut limited = HeaderMap::new();
    limited.insert("x-envoy-ratelimited", HeaderValue::from_static("true"));
    let answer = Outcome::Response(StatusCode::SERVICE_UNAVAILABLE, &limited);
    assert!(!wants(&["5xx"], answer));
    assert!(wants(&["envoy-ratelimited"], answer));
}

#[test]
fn codes_and_headers_that_the_request_names_count_too() {
    let mut asked = HeaderMap::new();
    asked.insert("x-envoy-retriable-status-codes", HeaderValue::from_static("418, x,429"));
    asked.insert("x-envoy-retriable-header-names", HeaderValue::from_static("x-again"));
    let policy = policy(&["retriable-status-codes", "retriable-headers"], 1);
    let state = retries(Some(&policy), &asked);
    let mut again = HeaderMap::new();
    let answer = |code| StatusCode::from_u16(code).unwrap();
    assert!(state.wants(&Outcome::Response(answer(429), &again)));
    assert!(!state.wants(&Outcome::Response(answer(500), &again)));
    again.insert("x-again", HeaderValue::from_static("1"));
    assert!(state.wants(&Outcome::Response(answer(200), &again)));
}

proptest! {
    #[test]
    fn back_off_doubles_up_to_its_maximum(random: u64, base in 1_u64..1000, count in 1_u32..12) {
        let mut policy = policy(&["5xx"], count);
        policy.base_interval = Duration::from_millis(base);
        policy.max_interval = Duration::from_millis(base * 10);
        let headers = HeaderMap::new();
        let mut state = retries(Some(&policy), &headers);
        for n in 0..count {
            let wait = state.take(random, None).expect("one is left").time();
            let ceiling = Duration::from_millis((base << n).min(base * 10));
            prop_assert!(wait < ceiling, "{wait:?} {ceiling:?}");
        }
        prop_assert_eq!(state.take(random, None), None);
    }
}
