//! Clients that are not strangers, and what else a connection manager does to heads.

use crate::differential::case::{Case, get, raw};
use crate::differential::part::Part;

const MANAGER: &str = "
use_remote_address: true
internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}, {address_prefix: 10.0.0.0, prefix_len: 8}]}
strip_trailing_host_dot: true
";

const LISTENERS: &str = "
- name: chained
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: chained
        internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}
        http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
        route_config: {
          name: chained,
          virtual_hosts: [{name: all, domains: ['*'], routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}]}
- name: port
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: port
        use_remote_address: true
        append_x_forwarded_port: true
        http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
        route_config: {
          name: port,
          virtual_hosts: [{name: all, domains: ['*'], routes: [
            {name: said, match: {prefix: /, headers: [{name: x-forwarded-port, string_match: {safe_regex: {regex: '[0-9]+'}}}]}, route: {cluster: a}, request_headers_to_remove: [x-forwarded-port]},
            {name: unsaid, match: {prefix: /}, direct_response: {status: 404}}]}]}
";

const VHOST: &str = "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}";

#[tokio::test]
async fn clients_inside() -> anyhow::Result<()> {
    let chained = |chain: &str| get("/").header("x-forwarded-for", chain).on("chained");
    super::super::same(Part {
        cases: vec![
            Case::new("clients inside", VHOST)
                .ask(get("/"), "200 - r a")
                .ask(get("/").header("x-forwarded-for", "10.0.0.1"), "200 - r a")
                .ask(get("/").header("x-envoy-retry-on", "5xx").does("status=500 times=1"), "200 - r a")
                .ask(get("/").header("x-forwarded-for", "10.0.0.1").header("x-envoy-retry-on", "5xx").does("status=500 times=1"), "500 - r a")
                .ask(get("/").header("x-envoy-upstream-rq-timeout-ms", "200").does("hang"), "504 UT r a"),
            Case::new("dots of hosts", VHOST)
                .ask(raw("GET / HTTP/1.1\r\nhost: {host}.\r\nx-case: {case}\r\nconnection: close\r\n\r\n"), "200 - r a")
                .ask(raw("GET / HTTP/1.1\r\nhost: {host}..\r\nx-case: {case}\r\nconnection: close\r\n\r\n"), "404 NR - -"),
            Case::plain("clients inside behind others")
                .ask(chained("10.0.0.1").header("x-envoy-retry-on", "5xx").does("status=500 times=1"), "200 unlogged")
                .ask(chained("5.6.7.8").header("x-envoy-retry-on", "5xx").does("status=500 times=1"), "500 unlogged")
                .ask(chained("1.2.3.4, 10.0.0.1").header("x-envoy-retry-on", "5xx").does("status=500 times=1"), "500 unlogged")
                .ask(get("/").on("chained").header("x-envoy-retry-on", "5xx").does("status=500 times=1"), "500 unlogged"),
            Case::plain("ports that are told")
                .ask(get("/").on("port"), "200 unlogged")
                .ask(get("/").on("port").header("x-forwarded-port", "http"), "200 unlogged"),
        ],
        manager: MANAGER,
        listeners: LISTENERS,
        ..Part::default()
    })
    .await
}
