//! Health checks of the proxy itself: the `health_check` filter.

use crate::differential::case::{Case, get};
use crate::differential::part::Part;

const FILTERS: &str = "
- name: own
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: false
    headers: [{name: ':path', string_match: {exact: /own}}]
- name: through
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: true
    headers: [{name: ':path', string_match: {exact: /through}}]
- name: kept
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: true
    cache_time: 1000s
    headers: [{name: ':path', string_match: {exact: /kept}}]
- name: kept-degraded
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: true
    cache_time: 1000s
    headers: [{name: ':path', string_match: {exact: /kept-degraded}}]
- name: two-headers
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: false
    headers:
    - {name: ':path', string_match: {exact: /two}}
    - {name: user-agent, string_match: {prefix: kube-probe}}
- name: enough
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: false
    cluster_min_healthy_percentages: {healthy-b: {value: 50}, ab: {value: 100}}
    headers: [{name: ':path', string_match: {exact: /enough}}]
- name: too-few
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: false
    cluster_min_healthy_percentages: {healthy-b: {value: 51}}
    headers: [{name: ':path', string_match: {exact: /too-few}}]
- name: degraded
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: false
    cluster_min_healthy_percentages: {degraded: {value: 100}}
    headers: [{name: ':path', string_match: {exact: /degraded}}]
- name: nowhere
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: false
    cluster_min_healthy_percentages: {nowhere: {value: 0}}
    headers: [{name: ':path', string_match: {exact: /nowhere}}]
- name: empty
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: false
    cluster_min_healthy_percentages: {empty: {value: 1}}
    headers: [{name: ':path', string_match: {exact: /empty}}]
- name: empty-is-enough
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
    pass_through_mode: false
    cluster_min_healthy_percentages: {empty: {value: 0}}
    headers: [{name: ':path', string_match: {exact: /empty-is-enough}}]
";

const TO_A: &str = "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}";

fn cases() -> Vec<Case> {
    let case = |name| Case::new(name, TO_A);
    vec![
        case("hc answered here").ask(get("/own"), "200 - r a").ask(get("/own?x"), "200 - r a"),
        case("hc passed on")
            .ask(get("/through"), "200 - r a")
            .ask(get("/through").does("status=503"), "503 - r a"),
        case("hc kept")
            .ask(get("/kept").does("status=404"), "404 - r a")
            .ask(get("/kept"), "404 LH r a"),
        case("hc kept degraded")
            .ask(get("/kept-degraded").does("header=x-envoy-degraded:true"), "200 - r a")
            .ask(get("/kept-degraded"), "200 - r a"),
        case("hc by two headers")
            .ask(get("/two").header("user-agent", "kube-probe/1.30"), "200 - r a")
            .ask(get("/two").header("user-agent", "curl"), "200 - r a"),
        case("hc by clusters")
            .ask(get("/enough"), "200 - r a")
            .ask(get("/too-few"), "503 LH r a")
            .ask(get("/degraded"), "200 - r a")
            .ask(get("/nowhere"), "503 LH r a")
            .ask(get("/empty"), "503 LH r a")
            .ask(get("/empty-is-enough"), "200 - r a"),
        case("hc over http2").ask(get("/own").http2(), "200 - r a"),
        Case::new(
            "hc without a route",
            "{routes: [{name: r, match: {prefix: /other}, route: {cluster: a}}]}",
        )
        .ask(get("/own"), "200 - - -"),
        Case::new(
            "hc switched off by a route",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}, typed_per_filter_config:
              {own: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}}]}",
        )
        .ask(get("/own"), "200 - r a"),
    ]
}

#[tokio::test]
async fn the_health_check_filter() -> anyhow::Result<()> {
    crate::differential::same(Part {
        cases: cases(),
        filters: FILTERS,
        metrics: &[
            "http.http.downstream_rq_total",
            "http.http.downstream_rq_completed",
            "http.http.downstream_rq_2xx",
            "http.http.downstream_rq_4xx",
            "http.http.downstream_rq_5xx",
        ],
        ..Part::default()
    })
    .await
}
