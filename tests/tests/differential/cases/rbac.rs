//! RBAC: what the client is told, what is counted, and shadow rules.

use crate::differential::case::{Case, get, grpc, post};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

const FILTERS: &str = "
- name: rbac
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
    rules_stat_prefix: real
    shadow_rules_stat_prefix: trial
    track_per_rule_stats: true
    rules: {action: DENY, policies: {
      closed: {permissions: [{url_path: {path: {prefix: /closed}}}], principals: [{any: true}]},
      foes: {permissions: [{any: true}], principals: [{header: {name: x-user, string_match: {exact: foe}}}]}}}
    shadow_rules: {action: ALLOW, policies: {
      friends: {permissions: [{any: true}], principals: [{header: {name: x-user, string_match: {exact: friend}}}]}}}
- name: plain
  disabled: true
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
    rules: {action: ALLOW, policies: {}}
- name: tree
  disabled: true
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
    rules_stat_prefix: tree
    track_per_rule_stats: true
    matcher: {matcher_list: {matchers: [
      {predicate: {single_predicate: {
          input: {name: path, typed_config: {'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: ':path'}},
          value_match: {prefix: /tree/no}}},
        on_match: {action: {name: nope, typed_config: {'@type': type.googleapis.com/envoy.config.rbac.v3.Action, name: wood, action: DENY}}}}]},
      on_no_match: {action: {name: fine, typed_config: {'@type': type.googleapis.com/envoy.config.rbac.v3.Action, name: meadow, action: ALLOW}}}}";

const ON_PURPOSE: OnPurpose = &[(
    "",
    "headers: only envoy {} | only ours {connection: close}",
    "its body was not read: nobody knows how much more would come",
)];

#[tokio::test]
async fn rbac() -> anyhow::Result<()> {
    same(Part {
        cases: cases(),
        filters: FILTERS,
        metrics: &["http.http.rbac"],
        log: "%RESPONSE_CODE_DETAILS%",
        texts: true,
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

fn cases() -> Vec<Case> {
    let route = "{routes: [
        {name: tree, match: {prefix: /tree}, route: {cluster: a}, typed_per_filter_config: {
            tree: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}},
        {name: nobody, match: {prefix: /nobody}, route: {cluster: a}, typed_per_filter_config: {
            plain: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}},
        {name: mine, match: {prefix: /mine}, route: {cluster: a}, typed_per_filter_config: {rbac: {
            '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute,
            rbac: {track_per_rule_stats: true, rules_stat_prefix: elsewhere,
                rules: {policies: {'the first policy': {permissions: [{any: true}], principals: [{header: {name: x-user, present_match: true}}]}}}}}}},
        {name: quiet, match: {prefix: /quiet}, route: {cluster: a}, typed_per_filter_config: {rbac: {
            '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute,
            rbac: {rules: {action: LOG, policies: {everything: {permissions: [{any: true}], principals: [{any: true}]}}}}}}},
        {name: g, match: {prefix: /test.Echo}, route: {cluster: h2}},
        {name: r, match: {prefix: /}, route: {cluster: a}}]}";
    let by = |path: &str, user: &str| get(path).header("x-user", user);
    vec![
        Case::new("what a denied request is told", route)
            .ask(get("/closed"), "403 - r a")
            .ask(get("/closed").http2(), "403 - r a")
            .ask(post("/closed", "content"), "403 - r a")
            .ask(by("/", "foe"), "403 - r a")
            .ask(grpc("hello").header("x-user", "foe"), "200 - g h2")
            .ask(get("/nobody"), "403 - nobody a"),
        Case::new("policies are counted by their names", route)
            .ask(get("/"), "200 - r a")
            .ask(by("/", "friend"), "200 - r a")
            .ask(by("/closed", "friend"), "403 - r a")
            .ask(by("/mine", "foe"), "200 - mine a")
            .ask(get("/mine"), "403 - mine a")
            .ask(get("/quiet"), "200 - quiet a")
            .ask(get("/tree/no"), "403 - tree a")
            .ask(get("/tree/yes"), "200 - tree a"),
    ]
}
