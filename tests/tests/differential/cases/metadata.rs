//! What filters note about a request, and who reads it: access logs, headers, RBAC.

use crate::differential::case::{Case, get};
use crate::differential::part::Part;
use crate::differential::same;

const FILTERS: &str = "
- name: notes
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config
    request_rules:
    - {header: x-user, on_header_present: {metadata_namespace: who, key: user}, on_header_missing: {metadata_namespace: who, key: user, value: nobody}}
    - {header: x-number, on_header_present: {metadata_namespace: who, key: number, type: NUMBER}, remove: true}
    - {header: x-packed, on_header_present: {key: packed, encode: BASE64}}
    - {header: x-version, on_header_present: {metadata_namespace: who, key: version, regex_value_rewrite: {pattern: {google_re2: {}, regex: '^v([0-9]+).*$'}, substitution: '\\1'}}}
    - {header: x-fixed, on_header_present: {metadata_namespace: who, key: fixed, value: set}}
    - {cookie: session, on_header_present: {metadata_namespace: cookies, key: session}, on_header_missing: {metadata_namespace: cookies, key: without, value: 'yes'}}
- name: state
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
    on_request_headers:
    - {object_key: my.key, factory_key: envoy.string, format_string: {text_format_source: {inline_string: '%REQ(:PATH)%/%REQ(x-user)%/%DYNAMIC_METADATA(who:user)%'}}}
    - {object_key: my.empty, factory_key: envoy.string, skip_if_empty: true, format_string: {text_format_source: {inline_string: '%REQ(x-none)%'}, omit_empty_values: true}}
- name: rbac
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
    rules_stat_prefix: real_
    rules: {policies: {
      amy: {permissions: [{any: true}], principals: [{metadata: {filter: who, path: [{key: user}], value: {string_match: {exact: amy}}}}]},
      big: {permissions: [{metadata: {filter: who, path: [{key: number}], value: {double_match: {range: {start: 10, end: 20}}}}}], principals: [{any: true}]},
      open: {permissions: [{any: true}], principals: [{filter_state: {key: my.key, string_match: {prefix: /open/}}}]},
      nobody: {permissions: [{sourced_metadata: {metadata_matcher: {filter: who, path: [{key: number}], value: {present_match: true}, invert: true}}}],
        principals: [{and_ids: {ids: [{url_path: {path: {exact: /nobody}}}, {metadata: {filter: who, path: [{key: user}], value: {or_match: {value_matchers: [
          {bool_match: true}, {string_match: {exact: nobody}}]}}}}]}}]}}}
    shadow_rules: {action: DENY, policies: {versions: {permissions: [{any: true}], principals: [{metadata: {filter: who, path: [{key: version}], value: {present_match: true}}}]}}}";

const LOG: &str = "%DYNAMIC_METADATA(who)%|%DYNAMIC_METADATA(who:user)%|%DYNAMIC_METADATA(who:number)%|\
                   %DYNAMIC_METADATA(who:user:deep)%|%DYNAMIC_METADATA(who:version):1%|\
                   %DYNAMIC_METADATA(envoy.filters.http.header_to_metadata)%|%DYNAMIC_METADATA(cookies)%|\
                   %DYNAMIC_METADATA(nothing)%|%FILTER_STATE(my.key)%|%FILTER_STATE(my.key:PLAIN)%|\
                   %FILTER_STATE(my.key:PLAIN):3%|%FILTER_STATE(my.empty:PLAIN)%|\
                   %DYNAMIC_METADATA(envoy.filters.http.rbac)%|%RESPONSE_CODE_DETAILS%";

#[tokio::test]
async fn metadata() -> anyhow::Result<()> {
    let route = "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
        request_headers_to_add: [
            {header: {key: x-noted, value: '%DYNAMIC_METADATA(who:user)%'}},
            {header: {key: x-state, value: '%FILTER_STATE(my.key:PLAIN)%'}}],
        response_headers_to_add: [{header: {key: x-told, value: '%DYNAMIC_METADATA(who:version)%'}}]}";
    let by = |path: &str, user: &str| get(path).header("x-user", user);
    same(Part {
        cases: vec![
            Case::new("what was noted", route)
                .ask(by("/", "amy"), "200 - r a")
                .ask(by("/", "bob"), "403 - r a")
                .ask(get("/"), "403 - r a")
                .ask(get("/nobody"), "200 - r a")
                .ask(get("/nobody").header("x-number", "3"), "403 - r a")
                .ask(get("/").header("x-number", "10"), "200 - r a")
                .ask(get("/").header("x-number", "12.5"), "200 - r a")
                .ask(get("/").header("x-number", "20"), "403 - r a")
                .ask(get("/").header("x-number", "many"), "403 - r a")
                .ask(by("/open/1", "bob"), "200 - r a")
                .ask(by("/", "amy").header("x-version", "v12-beta"), "200 - r a")
                .ask(by("/", "amy").header("x-version", "beta"), "200 - r a")
                .ask(by("/", "amy").header("x-packed", "aGVsbG8="), "200 - r a")
                .ask(by("/", "amy").header("x-packed", "???"), "200 - r a")
                .ask(by("/", "amy").header("x-fixed", "anything"), "200 - r a")
                .ask(by("/", "amy").header("cookie", "a=b; session=\"one\""), "200 - r a")
                .ask(by("/", "amy").header("x-user", "eve"), "403 - r a")
                .ask(by("/", "a\"my"), "403 - r a"),
        ],
        filters: FILTERS,
        log: LOG,
        metrics: &["http.http.rbac"],
        ..Part::default()
    })
    .await
}
