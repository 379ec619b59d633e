//! The table.

use tokio::time::Duration;

use super::Case;

pub(super) fn all() -> Vec<Case> {
    [thresholds(), http(), others(), traffic(), balance(), shares(), outliers()]
        .into_iter()
        .flatten()
        .collect()
}

/// One endpoint with a script.
fn one(name: &'static str, script: &'static str, check: &'static str, state: &'static str) -> Case {
    Case { name, endpoints: vec![(script, "")], check, state, ..Case::default() }
}

#[expect(clippy::too_many_lines, reason = "a table, not logic")]
fn thresholds() -> Vec<Case> {
    vec![
        one("first-success", "200", "", "well | attempt=2 success=1 well=1 healthy=1 total=1"),
        one("first-failure", "503", "", "failed_active_health_check | attempt=2 failure=1 total=1"),
        one(
            "failure-at-once",
            "200 503",
            "",
            "failed_active_health_check | attempt=3 success=1 failure=1 total=1",
        ),
        one(
            "two-to-come-back",
            "200 503 200",
            "",
            "failed_active_health_check | attempt=4 success=2 failure=1 total=1",
        ),
        one(
            "came-back",
            "200 503 200 200",
            "",
            "well | attempt=5 success=3 failure=1 well=1 healthy=1 total=1",
        ),
        one(
            "a-row-is-broken",
            "200 503 200 503 200",
            "",
            "failed_active_health_check | attempt=6 success=3 failure=2 total=1",
        ),
        one(
            "network-once",
            "200 close",
            "",
            "well | attempt=3 success=1 failure=1 network=1 well=1 healthy=1 total=1",
        ),
        one(
            "network-twice",
            "200 close close",
            "",
            "failed_active_health_check | attempt=4 success=1 failure=2 network=2 total=1",
        ),
        one(
            "network-not-in-a-row",
            "200 close 200 close",
            "",
            "well | attempt=5 success=2 failure=2 network=2 well=1 healthy=1 total=1",
        ),
        one(
            "retriable-once",
            "200 503",
            "http_health_check: {retriable_statuses: [{start: 500, end: 600}]}",
            "well | attempt=3 success=1 failure=1 well=1 healthy=1 total=1",
        ),
        one(
            "retriable-twice",
            "200 503 503",
            "http_health_check: {retriable_statuses: [{start: 500, end: 600}]}",
            "failed_active_health_check | attempt=4 success=1 failure=2 total=1",
        ),
        one(
            "late",
            "200 hang",
            "{timeout: 2s, unhealthy_threshold: 1, unhealthy_interval: 1000s, no_traffic_interval: 1000s, no_traffic_healthy_interval: 0.05s}",
            "active_hc_timeout+failed_active_health_check | attempt=2 success=1 failure=1 network=1 total=1",
        ),
        one(
            "late-once",
            "200 hang",
            "{timeout: 2s, unhealthy_threshold: 2, unhealthy_edge_interval: 1000s, no_traffic_interval: 1000s, no_traffic_healthy_interval: 0.05s}",
            "well | attempt=2 success=1 failure=1 network=1 well=1 healthy=1 total=1",
        ),
        one(
            "late-at-first",
            "hang",
            "{timeout: 2s, unhealthy_threshold: 1, unhealthy_interval: 1000s, no_traffic_interval: 1000s}",
            "active_hc_timeout+failed_active_health_check | attempt=1 failure=1 network=1 total=1",
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table, not logic")]
fn http() -> Vec<Case> {
    vec![
        one(
            "expected-statuses",
            "404",
            "http_health_check: {expected_statuses: [{start: 200, end: 300}, {start: 404, end: 405}]}",
            "well | attempt=2 success=1 well=1 healthy=1 total=1",
        ),
        one(
            "not-200",
            "404",
            "http_health_check: {expected_statuses: [{start: 404, end: 405}]}",
            "well | attempt=2 success=1 well=1 healthy=1 total=1",
        ),
        one(
            "degraded",
            "200,degraded",
            "",
            "failed_active_degraded_check | attempt=2 success=1 well=1 degraded=1 total=1",
        ),
        one(
            "no-longer-degraded",
            "200,degraded 200",
            "",
            "well | attempt=3 success=2 well=1 healthy=1 total=1",
        ),
        one(
            "failed-and-degraded",
            "200 503,degraded",
            "",
            "failed_active_health_check | attempt=3 success=1 failure=1 total=1",
        ),
        one(
            "asks-to-be-left-alone",
            "200 503,fail",
            "",
            "excluded_via_immediate_hc_fail+failed_active_health_check | attempt=3 success=1 failure=1 excluded=1 total=1",
        ),
        one(
            "well-and-left-alone",
            "200 200,fail",
            "",
            "well | attempt=3 success=2 well=1 healthy=1 total=1",
        ),
        one(
            "left-alone-and-back",
            "200 503,fail 200 200",
            "",
            "well | attempt=5 success=3 failure=1 well=1 healthy=1 total=1",
        ),
        one(
            "service",
            "200,cluster=shop-v1",
            "http_health_check: {service_name_matcher: {prefix: shop}}",
            "well | attempt=2 success=1 verify=1 well=1 healthy=1 total=1",
        ),
        one(
            "another-service",
            "200,cluster=cart",
            "http_health_check: {service_name_matcher: {prefix: shop}}",
            "failed_active_health_check | attempt=2 failure=1 verify=1 total=1",
        ),
        one(
            "no-service",
            "200",
            "http_health_check: {service_name_matcher: {prefix: shop}}",
            "failed_active_health_check | attempt=2 failure=1 verify=1 total=1",
        ),
        one(
            "receive",
            "200,body=hello",
            "http_health_check: {receive: [{text: '68656c'}, {text: '6f'}]}",
            "well | attempt=2 success=1 well=1 healthy=1 total=1",
        ),
        one(
            "receive-wrong",
            "200,body=helo",
            "http_health_check: {receive: [{text: '6c6c'}]}",
            "failed_active_health_check | attempt=2 failure=1 total=1",
        ),
        one(
            "receive-too-late",
            "200,body=xxxxxxxxhello",
            "http_health_check: {response_buffer_size: 8, receive: [{text: '68656c6c6f'}]}",
            "failed_active_health_check | attempt=2 failure=1 total=1",
        ),
        one(
            "host-is-cluster",
            "200,echo=host",
            "http_health_check: {receive: [{text: '686f73742d69732d636c7573746572'}]}",
            "well | attempt=2 success=1 well=1 healthy=1 total=1",
        ),
        one(
            "agent",
            "200,echo=user-agent",
            "http_health_check: {receive: [{text: '456e766f792f4843'}]}",
            "well | attempt=2 success=1 well=1 healthy=1 total=1",
        ),
        one(
            "own-header",
            "200,echo=x-own",
            "http_health_check: {request_headers_to_add: [{header: {key: x-own, value: abc}}], receive: [{text: '616263'}]}",
            "well | attempt=2 success=1 well=1 healthy=1 total=1",
        ),
        one(
            "http2",
            "200 200",
            "http_health_check: {codec_client_type: HTTP2}",
            "well | attempt=3 success=2 well=1 healthy=1 total=1",
        ),
        one(
            "http2-failure",
            "200 503",
            "http_health_check: {codec_client_type: HTTP2}",
            "failed_active_health_check | attempt=3 success=1 failure=1 total=1",
        ),
        one(
            "post",
            "200,echo=content-length",
            "http_health_check: {method: POST, receive: [{text: '30'}]}",
            "well | attempt=2 success=1 well=1 healthy=1 total=1",
        ),
        one(
            "new-connections",
            "200 200 200",
            "reuse_connection: false",
            "well | attempt=4 success=3 well=1 healthy=1 total=1",
        ),
        one(
            "closes-politely",
            "200,last 200,last 200",
            "",
            "well | attempt=4 success=3 well=1 healthy=1 total=1",
        ),
    ]
}

const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";

const PING: &str = "tcp_health_check: {send: {text: '50494e47'}, receive: [{text: '504f4e47'}]}";

#[expect(clippy::too_many_lines, reason = "a table, not logic")]
fn others() -> Vec<Case> {
    let grpc =
        |name, script, check, state| Case { cluster: HTTP2, ..one(name, script, check, state) };
    vec![
        one("tcp", "tcp PONG PONG", PING, "well | attempt=3 success=2 well=1 healthy=1 total=1"),
        one(
            "tcp-wrong",
            "tcp PONG NOPE",
            "{timeout: 2s, unhealthy_threshold: 1, unhealthy_interval: 1000s, no_traffic_interval: 1000s, no_traffic_healthy_interval: 0.05s, tcp_health_check: {send: {text: '50494e47'}, receive: [{text: '504f4e47'}]}}",
            "active_hc_timeout+failed_active_health_check | attempt=2 success=1 failure=1 network=1 total=1",
        ),
        one(
            "tcp-connects",
            "tcp",
            "{interval: 1000s, no_traffic_interval: 1000s, tcp_health_check: {}}",
            "well | attempt=1 success=1 well=1 healthy=1 total=1",
        ),
        Case {
            name: "tcp-refused",
            endpoints: vec![("tcp", "endpoint: {health_check_config: {port_value: 1}}")],
            check: "{interval: 1000s, no_traffic_interval: 1000s, unhealthy_threshold: 1, tcp_health_check: {}}",
            state: "failed_active_health_check | attempt=1 failure=1 network=1 total=1",
            ..Case::default()
        },
        grpc(
            "grpc",
            "serving serving",
            "grpc_health_check: {}",
            "well | attempt=3 success=2 well=1 healthy=1 total=1",
        ),
        grpc(
            "grpc-not-serving",
            "serving not-serving",
            "grpc_health_check: {service_name: shop}",
            "failed_active_health_check | attempt=3 success=1 failure=1 total=1",
        ),
        grpc(
            "grpc-unimplemented",
            "unimplemented",
            "grpc_health_check: {}",
            "failed_active_health_check | attempt=2 failure=1 total=1",
        ),
        grpc(
            "grpc-http",
            "serving 503",
            "grpc_health_check: {}",
            "failed_active_health_check | attempt=3 success=1 failure=1 total=1",
        ),
        grpc(
            "grpc-breaks",
            "serving close close",
            "grpc_health_check: {}",
            "failed_active_health_check | attempt=4 success=1 failure=2 network=2 total=1",
        ),
        Case {
            name: "another-port",
            endpoints: vec![
                (
                    "503 503",
                    "endpoint: {health_check_config: {port_value: @1.port@, hostname: own.test}}",
                ),
                (
                    "200,echo=host",
                    "endpoint: {health_check_config: {disable_active_health_check: true}}",
                ),
            ],
            check: "http_health_check: {host: other.test, receive: [{text: '6f776e2e74657374'}]}",
            state: "well, well | attempt=2 success=1 well=1 healthy=2 total=2",
            asks: vec![("/", 8, "200@0+1")],
            ..Case::default()
        },
    ]
}

#[expect(clippy::too_many_lines, reason = "a table, not logic")]
fn traffic() -> Vec<Case> {
    vec![
        Case {
            name: "who",
            endpoints: vec![("200", ""), ("503", ""), ("200", "")],
            state: "well, failed_active_health_check, well | attempt=6 success=2 failure=1 well=2 healthy=2 total=3",
            asks: vec![("/", 9, "200@0+2")],
            ..Case::default()
        },
        Case {
            name: "nobody",
            endpoints: vec![("503", ""), ("503", "")],
            state: "failed_active_health_check, failed_active_health_check | attempt=4 failure=2 total=2",
            asks: vec![("/", 3, "503@")],
            ..Case::default()
        },
        Case {
            name: "panic",
            endpoints: vec![("503", ""), ("503", ""), ("200", "")],
            cluster: "common_lb_config: {healthy_panic_threshold: {value: 50}}",
            state: "failed_active_health_check, failed_active_health_check, well | attempt=6 success=1 failure=2 well=1 healthy=1 total=3",
            asks: vec![("/", 9, "200@0+1+2")],
            then: "failed_active_health_check, failed_active_health_check, well | attempt=6 success=1 failure=2 well=1 healthy=1 total=3 panics=9",
            ..Case::default()
        },
        Case {
            name: "degraded-only-if-needed",
            endpoints: vec![("200", ""), ("200,degraded", ""), ("200", "")],
            cluster: "load_assignment: {policy: {overprovisioning_factor: 200}}",
            state: "well, failed_active_degraded_check, well | attempt=6 success=3 well=3 healthy=2 degraded=1 total=3",
            asks: vec![("/", 9, "200@0+2")],
            ..Case::default()
        },
        Case {
            name: "passive",
            endpoints: vec![("200", "")],
            state: "well | attempt=2 success=1 well=1 healthy=1 total=1",
            asks: vec![("/fail", 1, "200@0")],
            then: "excluded_via_immediate_hc_fail+failed_active_health_check | attempt=2 success=1 failure=1 passive=1 excluded=1 total=1",
            ..Case::default()
        },
        Case {
            name: "passive-without-checks",
            endpoints: vec![("", "")],
            check: "none",
            state: "well | healthy=1 total=1",
            asks: vec![("/fail", 1, "200@0"), ("/", 3, "200@0")],
            then: "well | healthy=1 total=1",
            ..Case::default()
        },
        Case {
            name: "excluded-do-not-count",
            endpoints: vec![("503,fail", ""), ("503,fail", ""), ("503,fail", ""), ("200", "")],
            cluster: "common_lb_config: {healthy_panic_threshold: {value: 50}}",
            state: "excluded_via_immediate_hc_fail+failed_active_health_check, excluded_via_immediate_hc_fail+failed_active_health_check, excluded_via_immediate_hc_fail+failed_active_health_check, well | attempt=8 success=1 failure=3 well=1 healthy=1 excluded=3 total=4",
            asks: vec![("/", 8, "200@3")],
            then: "excluded_via_immediate_hc_fail+failed_active_health_check, excluded_via_immediate_hc_fail+failed_active_health_check, excluded_via_immediate_hc_fail+failed_active_health_check, well | attempt=8 success=1 failure=3 well=1 healthy=1 excluded=3 total=4",
            ..Case::default()
        },
        Case {
            name: "checks-and-the-control-plane",
            endpoints: vec![
                ("200", "health_status: UNHEALTHY"),
                ("200", "health_status: DEGRADED"),
                ("503", "health_status: DRAINING"),
                ("200", ""),
            ],
            state: "UNHEALTHY, DEGRADED, failed_active_health_check+DRAINING, well | attempt=8 success=3 failure=1 well=3 healthy=1 degraded=1 excluded=1 total=4",
            asks: vec![("/", 9, "200@1+3")],
            ..Case::default()
        },
    ]
}

fn plain(name: &'static str, endpoints: Vec<(&'static str, &'static str)>) -> Case {
    Case { name, endpoints, check: "none", ..Case::default() }
}

fn balance() -> Vec<Case> {
    let panic = "common_lb_config: {healthy_panic_threshold: {value: 50}}";
    vec![Case {
        cluster: panic,
        asks: vec![("/", 12, "200@3")],
        then: "DRAINING, DRAINING, DRAINING, well | healthy=1 excluded=3 total=4",
        ..plain(
            "draining-counts-for-panic",
            vec![
                ("", "health_status: DRAINING"),
                ("", "health_status: DRAINING"),
                ("", "health_status: DRAINING"),
                ("", ""),
            ],
        )
    }]
}

fn shares() -> Vec<Case> {
    vec![Case {
        cluster: "load_assignment: {policy: {weighted_priority_health: true, overprovisioning_factor: 200}}",
        asks: vec![("/", 12, "200@0")],
        ..plain(
            "health-by-weight",
            vec![
                ("", "load_balancing_weight: 9"),
                ("", "health_status: UNHEALTHY"),
                ("", "health_status: UNHEALTHY"),
            ],
        )
    }]
}

/// Endpoints without checks whose failures are looked at.
fn failing(
    name: &'static str,
    endpoints: usize,
    detection: &'static str,
    asks: &[(&'static str, usize, &'static str)],
    then: &'static str,
) -> Case {
    Case { cluster: detection, asks: asks.to_vec(), then, ..plain(name, vec![("", ""); endpoints]) }
}

#[expect(clippy::too_many_lines, reason = "a table, not logic")]
fn outliers() -> Vec<Case> {
    vec![
        failing(
            "one-is-too-many",
            1,
            "outlier_detection: {consecutive_5xx: 3, interval: 1000s}",
            &[("/err", 3, "500@0"), ("/", 1, "200@0")],
            "well | healthy=1 total=1 overflow=1",
        ),
        failing(
            "always-one",
            1,
            "outlier_detection: {consecutive_5xx: 3, interval: 1000s, always_eject_one_host: true}",
            &[("/err", 3, "500@0"), ("/", 1, "503@")],
            "failed_outlier_check | total=1 ejected=1 enforced=1",
        ),
        failing(
            "half-of-them",
            2,
            "outlier_detection: {consecutive_5xx: 2, interval: 1000s, max_ejection_percent: 50}",
            &[("/err0", 8, "200+500@0+1"), ("/err", 8, "500@1"), ("/", 4, "200@1")],
            "failed_outlier_check, well | healthy=1 total=2 ejected=1 enforced=1 overflow=4",
        ),
        failing(
            "all-of-them",
            2,
            "outlier_detection: {consecutive_5xx: 2, interval: 1000s, max_ejection_percent: 100}",
            &[("/err", 4, "500@0+1")],
            "failed_outlier_check, failed_outlier_check | total=2 ejected=2 enforced=2",
        ),
        failing(
            "one-of-three",
            3,
            "outlier_detection: {consecutive_5xx: 2, interval: 1000s, max_ejection_percent: 67}",
            &[("/err1", 9, "200+500@0+1+2"), ("/", 6, "200@0+2")],
            "well, failed_outlier_check, well | healthy=2 total=3 ejected=1 enforced=1",
        ),
        failing(
            "a-success-breaks-it",
            1,
            "outlier_detection: {consecutive_5xx: 3, interval: 1000s, max_ejection_percent: 100}",
            &[("/err", 2, "500@0"), ("/", 1, "200@0"), ("/err", 2, "500@0")],
            "well | healthy=1 total=1",
        ),
        failing(
            "not-enforced",
            1,
            "outlier_detection: {consecutive_5xx: 2, enforcing_consecutive_5xx: 0, interval: 1000s, max_ejection_percent: 100}",
            &[("/err", 4, "500@0")],
            "well | healthy=1 total=1",
        ),
        failing(
            "gateway",
            1,
            "outlier_detection: {consecutive_5xx: 0, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, interval: 1000s, max_ejection_percent: 100}",
            &[("/bad-gateway", 2, "502@0"), ("/", 1, "503@")],
            "failed_outlier_check | total=1 ejected=1 enforced=1",
        ),
        failing(
            "gateway-is-no-500",
            1,
            "outlier_detection: {consecutive_5xx: 0, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, interval: 1000s, max_ejection_percent: 100}",
            &[
                ("/bad-gateway", 1, "502@0"),
                ("/err", 1, "500@0"),
                ("/bad-gateway", 1, "502@0"),
                ("/", 1, "200@0"),
            ],
            "well | healthy=1 total=1",
        ),
        failing(
            "both-at-once",
            1,
            "outlier_detection: {consecutive_5xx: 2, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, interval: 1000s, max_ejection_percent: 100}",
            &[("/bad-gateway", 2, "502@0")],
            "failed_outlier_check | total=1 ejected=1 enforced=1",
        ),
        failing(
            "resets-count",
            1,
            "outlier_detection: {consecutive_5xx: 2, interval: 1000s, max_ejection_percent: 100}",
            &[("/close", 2, "503@"), ("/", 1, "503@")],
            "failed_outlier_check | total=1 ejected=1 enforced=1",
        ),
        Case {
            // Of the 12 requests to each, only one interval can have so many, however they fall: none, if they fall apart.
            within: Duration::from_secs(4),
            ..failing(
                "success-rate",
                5,
                "outlier_detection: {consecutive_5xx: 0, success_rate_request_volume: 7, interval: 4s, base_ejection_time: 1000s, max_ejection_time: 1000s}",
                &[("/err2", 60, "200+500@0+1+2+3+4")],
                "well, well, well, well, well | healthy=5 total=5 overflow=1",
            )
        },
        failing(
            "success-rate-of-twenty",
            20,
            "outlier_detection: {consecutive_5xx: 0, success_rate_request_volume: 1, interval: 2s, base_ejection_time: 1000s, max_ejection_time: 1000s}",
            &[("/err2", 80, "200+500@0+1+10+11+12+13+14+15+16+17+18+19+2+3+4+5+6+7+8+9")],
            "well, well, failed_outlier_check, well, well, well, well, well, well, well, well, well, well, well, well, well, well, well, well, well | healthy=19 total=20 ejected=1 enforced=1",
        ),
        failing(
            "failure-percentage",
            5,
            "outlier_detection: {consecutive_5xx: 0, enforcing_success_rate: 0, failure_percentage_request_volume: 2, enforcing_failure_percentage: 100, max_ejection_percent: 40, interval: 2s, base_ejection_time: 1000s, max_ejection_time: 1000s}",
            &[("/err3", 60, "200+500@0+1+2+3+4")],
            "well, well, well, failed_outlier_check, well | healthy=4 total=5 ejected=1 enforced=1",
        ),
    ]
}
