//! The table.

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

fn thresholds() -> Vec<Case> {
    vec![
        one("first-success", "200", "", "?"),
        one("first-failure", "503", "", "?"),
        one("failure-at-once", "200 503", "", "?"),
        one("two-to-come-back", "200 503 200", "", "?"),
        one("came-back", "200 503 200 200", "", "?"),
        one("a-row-is-broken", "200 503 200 503 200", "", "?"),
        one("network-once", "200 close", "", "?"),
        one("network-twice", "200 close close", "", "?"),
        one("network-not-in-a-row", "200 close 200 close", "", "?"),
        one(
            "retriable-once",
            "200 503",
            "http_health_check: {retriable_statuses: [{start: 500, end: 600}]}",
            "?",
        ),
        one(
            "retriable-twice",
            "200 503 503",
            "http_health_check: {retriable_statuses: [{start: 500, end: 600}]}",
            "?",
        ),
        one(
            "late",
            "200 hang",
            "{timeout: 0.3s, unhealthy_threshold: 1, unhealthy_interval: 1000s, no_traffic_interval: 1000s, no_traffic_healthy_interval: 0.05s}",
            "?",
        ),
        one(
            "late-once",
            "200 hang",
            "{timeout: 0.3s, unhealthy_threshold: 2, unhealthy_edge_interval: 1000s, no_traffic_interval: 1000s, no_traffic_healthy_interval: 0.05s}",
            "?",
        ),
        one(
            "late-at-first",
            "hang",
            "{timeout: 0.3s, unhealthy_threshold: 1, unhealthy_interval: 1000s, no_traffic_interval: 1000s}",
            "?",
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
            "?",
        ),
        one(
            "not-200",
            "404",
            "http_health_check: {expected_statuses: [{start: 404, end: 405}]}",
            "?",
        ),
        one("degraded", "200,degraded", "", "?"),
        one("no-longer-degraded", "200,degraded 200", "", "?"),
        one("failed-and-degraded", "200 503,degraded", "", "?"),
        one("asks-to-be-left-alone", "200 503,fail", "", "?"),
        one("well-and-left-alone", "200 200,fail", "", "?"),
        one("left-alone-and-back", "200 503,fail 200 200", "", "?"),
        one(
            "service",
            "200,cluster=shop-v1",
            "http_health_check: {service_name_matcher: {prefix: shop}}",
            "?",
        ),
        one(
            "another-service",
            "200,cluster=cart",
            "http_health_check: {service_name_matcher: {prefix: shop}}",
            "?",
        ),
        one("no-service", "200", "http_health_check: {service_name_matcher: {prefix: shop}}", "?"),
        one(
            "receive",
            "200,body=hello",
            "http_health_check: {receive: [{text: '68656c'}, {text: '6f'}]}",
            "?",
        ),
        one(
            "receive-wrong",
            "200,body=helo",
            "http_health_check: {receive: [{text: '6c6c'}]}",
            "?",
        ),
        one(
            "receive-too-late",
            "200,body=xxxxxxxxhello",
            "http_health_check: {response_buffer_size: 8, receive: [{text: '68656c6c6f'}]}",
            "?",
        ),
        one(
            "host-is-cluster",
            "200,echo=host",
            "http_health_check: {receive: [{text: '686f73742d69732d636c7573746572'}]}",
            "?",
        ),
        one(
            "agent",
            "200,echo=user-agent",
            "http_health_check: {receive: [{text: '456e766f792f4843'}]}",
            "?",
        ),
        one(
            "own-header",
            "200,echo=x-own",
            "http_health_check: {request_headers_to_add: [{header: {key: x-own, value: abc}}], receive: [{text: '616263'}]}",
            "?",
        ),
        one(
            "removed-header",
            "200,echo=user-agent",
            "http_health_check: {request_headers_to_remove: [user-agent], receive: [{text: '616273656e74'}]}",
            "?",
        ),
        one("http2", "200 200", "http_health_check: {codec_client_type: HTTP2}", "?"),
        one("http2-failure", "200 503", "http_health_check: {codec_client_type: HTTP2}", "?"),
        one(
            "post",
            "200,echo=content-length",
            "http_health_check: {method: POST, receive: [{text: '616273656e74'}]}",
            "?",
        ),
        one("new-connections", "200 200 200", "reuse_connection: false", "?"),
        one("closes-politely", "200,last 200,last 200", "", "?"),
        one("late-body", "200,body=x", "http_health_check: {receive: [{text: '79'}]}", "?"),
    ]
}

const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";

const PING: &str = "tcp_health_check: {send: {text: '50494e47'}, receive: [{text: '504f4e47'}]}";

fn others() -> Vec<Case> {
    let grpc =
        |name, script, check, state| Case { cluster: HTTP2, ..one(name, script, check, state) };
    vec![
        one("tcp", "tcp PONG PONG", PING, "?"),
        one("tcp-closes", "tcp PONG close close", PING, "?"),
        one(
            "tcp-wrong",
            "tcp PONG NOPE",
            "{timeout: 0.3s, unhealthy_threshold: 1, unhealthy_interval: 1000s, no_traffic_interval: 1000s, no_traffic_healthy_interval: 0.05s, tcp_health_check: {send: {text: '50494e47'}, receive: [{text: '504f4e47'}]}}",
            "?",
        ),
        one(
            "tcp-connects",
            "tcp",
            "{interval: 1000s, no_traffic_interval: 1000s, tcp_health_check: {}}",
            "?",
        ),
        Case {
            name: "tcp-refused",
            endpoints: vec![("tcp", "endpoint: {health_check_config: {port_value: 1}}")],
            check: "{interval: 1000s, no_traffic_interval: 1000s, unhealthy_threshold: 1, tcp_health_check: {}}",
            state: "?",
            ..Case::default()
        },
        grpc("grpc", "serving serving", "grpc_health_check: {}", "?"),
        grpc(
            "grpc-not-serving",
            "serving not-serving",
            "grpc_health_check: {service_name: shop}",
            "?",
        ),
        grpc("grpc-unimplemented", "unimplemented", "grpc_health_check: {}", "?"),
        grpc("grpc-http", "serving 503", "grpc_health_check: {}", "?"),
        grpc("grpc-breaks", "serving close close", "grpc_health_check: {}", "?"),
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
            state: "?",
            asks: vec![("/", 8, "?")],
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
            state: "?",
            asks: vec![("/", 9, "?")],
            ..Case::default()
        },
        Case {
            name: "nobody",
            endpoints: vec![("503", ""), ("503", "")],
            state: "?",
            asks: vec![("/", 3, "?")],
            ..Case::default()
        },
        Case {
            name: "panic",
            endpoints: vec![("503", ""), ("503", ""), ("200", "")],
            cluster: "common_lb_config: {healthy_panic_threshold: {value: 50}}",
            state: "?",
            asks: vec![("/", 9, "?")],
            then: "?",
            ..Case::default()
        },
        Case {
            name: "degraded-only-if-needed",
            endpoints: vec![("200", ""), ("200,degraded", ""), ("200", "")],
            cluster: "load_assignment: {policy: {overprovisioning_factor: 200}}",
            state: "?",
            asks: vec![("/", 9, "?")],
            ..Case::default()
        },
        Case {
            name: "passive",
            endpoints: vec![("200", ""), ("200", "")],
            state: "?",
            asks: vec![("/fail", 1, "?")],
            then: "?",
            ..Case::default()
        },
        Case {
            name: "passive-without-checks",
            endpoints: vec![("", "")],
            check: "none",
            state: "?",
            asks: vec![("/fail", 1, "?"), ("/", 3, "?")],
            then: "?",
            ..Case::default()
        },
        Case {
            name: "excluded-do-not-count",
            endpoints: vec![("503,fail", ""), ("503,fail", ""), ("503,fail", ""), ("200", "")],
            cluster: "common_lb_config: {healthy_panic_threshold: {value: 50}}",
            state: "?",
            asks: vec![("/", 8, "?")],
            then: "?",
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
            state: "?",
            asks: vec![("/", 9, "?")],
            ..Case::default()
        },
    ]
}

fn plain(name: &'static str, endpoints: Vec<(&'static str, &'static str)>) -> Case {
    Case { name, endpoints, check: "none", ..Case::default() }
}

fn balance() -> Vec<Case> {
    let panic = "common_lb_config: {healthy_panic_threshold: {value: 50}}";
    vec![
        Case {
            cluster: panic,
            asks: vec![("/", 12, "?")],
            then: "?",
            ..plain(
                "draining-in-panic",
                vec![
                    ("", "health_status: DRAINING"),
                    ("", "health_status: UNHEALTHY"),
                    ("", "health_status: UNHEALTHY"),
                    ("", ""),
                ],
            )
        },
        Case {
            cluster: panic,
            asks: vec![("/", 12, "?")],
            then: "?",
            ..plain(
                "all-draining-in-panic",
                vec![("", "health_status: DRAINING"), ("", "health_status: DRAINING")],
            )
        },
        Case {
            cluster: panic,
            asks: vec![("/", 12, "?")],
            then: "?",
            ..plain(
                "draining-counts-for-panic",
                vec![
                    ("", "health_status: DRAINING"),
                    ("", "health_status: DRAINING"),
                    ("", "health_status: DRAINING"),
                    ("", ""),
                ],
            )
        },
    ]
}

fn shares() -> Vec<Case> {
    vec![
        Case {
            cluster: "common_lb_config: {healthy_panic_threshold: {value: 50}, zone_aware_lb_config: {fail_traffic_on_panic: true}}",
            asks: vec![("/", 12, "?")],
            then: "?",
            ..plain(
                "fail-on-panic",
                vec![("", "health_status: UNHEALTHY"), ("", "health_status: UNHEALTHY"), ("", "")],
            )
        },
        Case {
            cluster: "load_assignment: {policy: {weighted_priority_health: true, overprovisioning_factor: 200}}",
            asks: vec![("/", 12, "?")],
            ..plain(
                "health-by-weight",
                vec![
                    ("", "load_balancing_weight: 9"),
                    ("", "health_status: UNHEALTHY"),
                    ("", "health_status: UNHEALTHY"),
                ],
            )
        },
    ]
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
            &[("/err", 3, "?"), ("/", 1, "?")],
            "?",
        ),
        failing(
            "always-one",
            1,
            "outlier_detection: {consecutive_5xx: 3, interval: 1000s, always_eject_one_host: true}",
            &[("/err", 3, "?"), ("/", 1, "?")],
            "?",
        ),
        failing(
            "half-of-them",
            2,
            "outlier_detection: {consecutive_5xx: 2, interval: 1000s, max_ejection_percent: 50}",
            &[("/err", 6, "?"), ("/", 4, "?")],
            "?",
        ),
        failing(
            "all-of-them",
            2,
            "outlier_detection: {consecutive_5xx: 2, interval: 1000s, max_ejection_percent: 100}",
            &[("/err", 6, "?"), ("/", 4, "?")],
            "?",
        ),
        failing(
            "one-of-three",
            3,
            "outlier_detection: {consecutive_5xx: 2, interval: 1000s, max_ejection_percent: 67}",
            &[("/err1", 9, "?"), ("/", 6, "?")],
            "?",
        ),
        failing(
            "a-success-breaks-it",
            1,
            "outlier_detection: {consecutive_5xx: 3, interval: 1000s, max_ejection_percent: 100}",
            &[("/err", 2, "?"), ("/", 1, "?"), ("/err", 2, "?")],
            "?",
        ),
        failing(
            "not-enforced",
            1,
            "outlier_detection: {consecutive_5xx: 2, enforcing_consecutive_5xx: 0, interval: 1000s, max_ejection_percent: 100}",
            &[("/err", 4, "?")],
            "?",
        ),
        failing(
            "gateway",
            1,
            "outlier_detection: {consecutive_5xx: 0, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, interval: 1000s, max_ejection_percent: 100}",
            &[("/bad-gateway", 2, "?"), ("/", 1, "?")],
            "?",
        ),
        failing(
            "gateway-is-no-500",
            1,
            "outlier_detection: {consecutive_5xx: 0, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, interval: 1000s, max_ejection_percent: 100}",
            &[("/bad-gateway", 1, "?"), ("/err", 1, "?"), ("/bad-gateway", 1, "?"), ("/", 1, "?")],
            "?",
        ),
        failing(
            "both-at-once",
            1,
            "outlier_detection: {consecutive_5xx: 2, consecutive_gateway_failure: 2, enforcing_consecutive_gateway_failure: 100, interval: 1000s, max_ejection_percent: 100}",
            &[("/bad-gateway", 2, "?")],
            "?",
        ),
        failing(
            "resets-count",
            1,
            "outlier_detection: {consecutive_5xx: 2, interval: 1000s, max_ejection_percent: 100}",
            &[("/close", 2, "?"), ("/", 1, "?")],
            "?",
        ),
        failing(
            "resets-apart",
            1,
            "outlier_detection: {consecutive_5xx: 2, split_external_local_origin_errors: true, consecutive_local_origin_failure: 2, interval: 1000s, max_ejection_percent: 100}",
            &[("/close", 2, "?"), ("/", 1, "?")],
            "?",
        ),
        failing(
            "success-rate",
            5,
            "outlier_detection: {consecutive_5xx: 0, success_rate_request_volume: 2, interval: 2s, base_ejection_time: 1000s, max_ejection_time: 1000s}",
            &[("/err2", 60, "?")],
            "?",
        ),
        failing(
            "success-rate-of-twenty",
            20,
            "outlier_detection: {consecutive_5xx: 0, success_rate_request_volume: 1, interval: 2s, base_ejection_time: 1000s, max_ejection_time: 1000s}",
            &[("/err2", 80, "?")],
            "?",
        ),
        failing(
            "failure-percentage",
            5,
            "outlier_detection: {consecutive_5xx: 0, enforcing_success_rate: 0, failure_percentage_request_volume: 2, enforcing_failure_percentage: 100, max_ejection_percent: 40, interval: 2s, base_ejection_time: 1000s, max_ejection_time: 1000s}",
            &[("/err3", 60, "?")],
            "?",
        ),
        Case {
            name: "a-check-brings-it-back",
            endpoints: vec![("200 200", "")],
            check: "{interval: 0.5s, no_traffic_interval: 0.05s}",
            cluster: "outlier_detection: {consecutive_5xx: 1, interval: 1000s, max_ejection_percent: 100}",
            state: "?",
            asks: vec![("/err", 1, "?")],
            then: "?",
        },
    ]
}
