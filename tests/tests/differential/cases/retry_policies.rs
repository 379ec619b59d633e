//! What a retry policy says beside when: how long to wait, where to go, and hedging.

use crate::differential::case::{Case, get, grpc, post};
use crate::differential::part::Part;

const CLUSTERS: &str = "
- name: canary-or-b
  type: STATIC
  lb_policy: ROUND_ROBIN
  load_assignment: {cluster_name: canary-or-b, endpoints: [{lb_endpoints: [
    {endpoint: {address: @refused@}, metadata: {filter_metadata: {envoy.lb: {canary: true, stage: old}}}},
    {endpoint: {address: @b@}}]}]}
- name: two-priorities
  type: STATIC
  load_assignment: {cluster_name: two-priorities, endpoints: [
    {priority: 0, lb_endpoints: [{endpoint: {address: @refused@}}]},
    {priority: 1, lb_endpoints: [{endpoint: {address: @b@}}]}]}
";

macro_rules! to {
    ($cluster:literal, $policy:literal) => {
        concat!(
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: ",
            $cluster,
            ", retry_policy: {",
            $policy,
            "}}}]}"
        )
    };
}

fn waits() -> Vec<Case> {
    vec![
        Case::new("reset in seconds", to!("a", "retry_on: 5xx, num_retries: 2, rate_limited_retry_back_off: {reset_headers: [{name: retry-after, format: SECONDS}]}"))
            .ask(get("/").does("status=503 header=retry-after:1 times=1"), "200 - r a")
            .ask(get("/").does("status=503 header=retry-after:soon times=1"), "200 - r a")
            .ask(get("/").does("status=503 times=1"), "200 - r a"),
        Case::new("reset that is too far away", to!("a", "retry_on: 5xx, rate_limited_retry_back_off: {max_interval: 1s, reset_headers: [{name: retry-after}, {name: x-reset, format: UNIX_TIMESTAMP}]}"))
            .ask(get("/").does("status=503 header=retry-after:9 times=1"), "200 - r a")
            .ask(get("/").does("status=503 header=x-reset:5 times=1"), "200 - r a")
            .ask(get("/").does("status=503 header=x-reset:99999999999 times=1"), "200 - r a"),
        Case::new("idle try", to!("a", "retry_on: 5xx, per_try_idle_timeout: 0.2s"))
            .ask(get("/").does("delay=600 times=1"), "200 - r a")
            .ask(get("/").does("hang"), "504 URX,UT r a"),
        Case::new("idle try that may not be repeated", to!("a", "retry_on: connect-failure, per_try_idle_timeout: 0.2s"))
            .ask(get("/").does("hang"), "504 UT r a")
            .ask(post("/", "x").does("hang"), "504 UT r a"),
        Case::new("timed out retries are told", "{include_is_timeout_retry_header: true, include_request_attempt_count: true, routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx, per_try_timeout: 0.3s}}}]}")
            .ask(get("/").does("delay=900 times=1"), "200 - r a")
            .ask(get("/").does("status=503 times=1"), "200 - r a")
            .ask(get("/"), "200 - r a"),
    ]
}

fn reasons() -> Vec<Case> {
    vec![
        Case::new("rate limited answers", to!("a", "retry_on: '5xx,retriable-status-codes', retriable_status_codes: [429]"))
            .ask(get("/").does("status=503 header=x-envoy-ratelimited:true times=1"), "503 - r a")
            .ask(get("/").does("status=429 header=x-envoy-ratelimited:true times=1"), "429 - r a")
            .ask(get("/").does("status=503 header=x-envoy-overloaded:true times=1"), "200 - r a"),
        Case::new("rate limited answers if asked for", to!("a", "retry_on: envoy-ratelimited"))
            .ask(get("/").does("status=503 header=x-envoy-ratelimited:true times=1"), "200 - r a")
            .ask(get("/").does("status=503 times=1"), "503 - r a"),
        Case::new("codes and headers by the request", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 'retriable-status-codes,retriable-headers'}}, request_headers_to_add: [
            {header: {key: x-envoy-retriable-status-codes, value: '418,429'}}, {header: {key: x-envoy-retriable-header-names, value: 'x-again,x-more'}}]}]}")
            .ask(get("/").does("status=429 times=1"), "200 - r a")
            .ask(get("/").does("status=500 times=1"), "500 - r a")
            .ask(get("/").does("header=x-more:1 times=1"), "200 - r a"),
        Case::new("canaries are omitted", to!("canary-or-b", "retry_on: connect-failure, num_retries: 1, host_selection_retry_max_attempts: 9, retry_host_predicate: [{name: envoy.retry_host_predicates.omit_canary_hosts, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate}}]"))
            .ask(get("/"), "200 - r canary-or-b")
            .ask(get("/"), "200 - r canary-or-b")
            .ask(get("/"), "200 - r canary-or-b"),
        Case::new("metadata is omitted", to!("canary-or-b", "retry_on: connect-failure, num_retries: 1, host_selection_retry_max_attempts: 9, retry_host_predicate: [{name: envoy.retry_host_predicates.omit_host_metadata, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig, metadata_match: {filter_metadata: {envoy.lb: {stage: old}}}}}]"))
            .ask(get("/"), "200 - r canary-or-b")
            .ask(get("/"), "200 - r canary-or-b")
            .ask(get("/"), "200 - r canary-or-b"),
        Case::new("previous priorities", to!("two-priorities", "retry_on: connect-failure, num_retries: 1, retry_priority: {name: envoy.retry_priorities.previous_priorities, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, update_frequency: 1}}"))
            .ask(get("/"), "200 - r two-priorities")
            .ask(get("/"), "200 - r two-priorities"),
        Case::new("previous priorities come later", to!("two-priorities", "retry_on: connect-failure, num_retries: 1, retry_priority: {name: envoy.retry_priorities.previous_priorities, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig, update_frequency: 2}}"))
            .ask(get("/"), "503 UF,URX r two-priorities"),
    ]
}

fn hedged() -> Vec<Case> {
    vec![
        Case::new("hedged", "{include_request_attempt_count: true, hedge_policy: {hedge_on_per_try_timeout: true}, routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx, per_try_timeout: 0.3s, num_retries: 2}}}]}")
            .ask(get("/"), "200 - r a")
            .ask(get("/").does("delay=2000 times=1"), "200 - r a")
            .ask(post("/", "all of it").does("delay=2000 times=1"), "200 - r a")
            .ask(get("/").does("status=503 times=1"), "200 - r a")
            .ask(get("/").does("close times=1"), "200 - r a")
            .ask(get("/").does("status=503"), "503 URX r a"),
        Case::new("a hedged try may be late and good", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, hedge_policy: {hedge_on_per_try_timeout: true}, retry_policy: {retry_on: connect-failure, per_try_timeout: 0.4s, num_retries: 1}}}]}")
            .ask(get("/").does("delay=600"), "200 - r a")
            .ask(get("/").does("delay=1500"), "200 URX r a"),
        Case::new("hedged up to the end", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, timeout: 1.5s, hedge_policy: {hedge_on_per_try_timeout: true}, retry_policy: {retry_on: 5xx, per_try_timeout: 0.3s, num_retries: 1}}}]}")
            .ask(get("/").does("hang"), "504 URX,UT r a"),
        // The header counts only where the client may send it.
        Case::new("hedged by a header", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: connect-failure, per_try_timeout: 0.4s, num_retries: 1}}, request_headers_to_add: [{header: {key: x-envoy-hedge-on-per-try-timeout, value: 'true'}}]}]}")
            .ask(get("/").does("delay=700"), "504 UT r a"),
        Case::new("not hedged", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: connect-failure, per_try_timeout: 0.4s, num_retries: 1}}}]}")
            .ask(get("/").does("delay=700"), "504 UT r a"),
        Case::new("hedged grpc", "{hedge_policy: {hedge_on_per_try_timeout: true}, routes: [{name: r, match: {prefix: /}, route: {cluster: h2, retry_policy: {retry_on: unavailable, per_try_timeout: 0.3s, num_retries: 1}}}]}")
            .ask(grpc("x").does("delay=2000 times=1"), "200 - r h2")
            .ask(grpc("x").does("grpc=14 times=1"), "200 - r h2"),
    ]
}

#[tokio::test]
async fn retry_policies() -> anyhow::Result<()> {
    super::super::same(Part {
        cases: [waits(), reasons(), hedged()].into_iter().flatten().collect(),
        clusters: CLUSTERS,
        metrics: &[
            "cluster.a.upstream_rq_retry",
            "cluster.a.upstream_rq_per_try",
            "cluster.a.upstream_rq_timeout",
            "cluster.a.retry.",
            "cluster.h2.upstream_rq_retry",
            "cluster.two-priorities.upstream_rq_retry",
        ],
        ..Part::default()
    })
    .await
}
