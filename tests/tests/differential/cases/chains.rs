//! What becomes of a connection before its first request: PROXY headers, filter chains, network filters, TCP.

use crate::differential::case::{Case, Client, get, raw, talk};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

/// A connection manager that shows the client's address, and routes to backend `a`.
const LISTENERS: &str = "
- name: pp
  listener_filters: [&pp {name: pp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}]
  filter_chains: [{filters: [&web {name: hcm, typed_config: &manager {
    '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
    stat_prefix: pp, use_remote_address: true,
    http_filters: [
      {name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: DENY, policies: {
        remote: {permissions: [{header: {name: x-ask, string_match: {exact: remote}}}], principals: [{remote_ip: {address_prefix: 192.0.2.0, prefix_len: 24}}]},
        direct: {permissions: [{header: {name: x-ask, string_match: {exact: direct}}}], principals: [{direct_remote_ip: {address_prefix: 192.0.2.0, prefix_len: 24}}]}}}}},
      {name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}],
    access_log: [{name: log, typed_config: {'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '@DIR@/access.log',
      log_format: {text_format_source: {inline_string: \"%REQ(x-case)% %RESPONSE_CODE% %RESPONSE_FLAGS% %ROUTE_NAME% %UPSTREAM_CLUSTER% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS_LONG% %ACCESS_LOG_TYPE% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%\\n\"}}}}],
    route_config: {virtual_hosts: [{name: all, domains: ['*'], routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}]}}}]}]
- name: pp-optional
  listener_filters: [{name: pp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, allow_requests_without_proxy_protocol: true, stat_prefix: optional}}]
  filter_chains: [{filters: [*web]}]
- name: pp-v2
  listener_filters: [{name: pp, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, disallowed_versions: [V1], stat_prefix: two}}]
  filter_chains: [{filters: [*web]}]
- name: tcp-chains
  listener_filters: [*pp]
  filter_chains:
  - {name: port, filter_chain_match: {destination_port: 81}, filters: [&to_a {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: chain_a, cluster: tcp-a}}]}
  - {name: range, filter_chain_match: {prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}, filters: [&to_b {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: chain_b, cluster: tcp-b}}]}
  - {name: longer, filter_chain_match: {prefix_ranges: [{address_prefix: 10.1.0.0, prefix_len: 16}], source_prefix_ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]}, filters: [*to_a]}
  - {name: sources, filter_chain_match: {source_ports: [7777]}, filters: [*to_b]}
  - {name: source, filter_chain_match: {source_prefix_ranges: [{address_prefix: 198.51.100.0, prefix_len: 24}]}, filters: [*to_a]}
  - {name: here, filter_chain_match: {source_type: SAME_IP_OR_LOOPBACK, source_prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}, filters: [*to_b]}
- name: tcp-direct
  listener_filters: [*pp]
  filter_chains:
  - {filter_chain_match: {direct_source_prefix_ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}]}, filters: [*to_a]}
  - {filter_chain_match: {source_prefix_ranges: [{address_prefix: 192.0.2.0, prefix_len: 24}]}, filters: [*to_b]}
- name: tcp-allowed
  listener_filters: [*pp]
  filter_chains: [{filters: [
    {name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: net,
      rules: {policies: {some: {permissions: [{destination_port: 80}], principals: [{remote_ip: {address_prefix: 192.0.2.0, prefix_len: 24}}]}}},
      shadow_rules: {action: DENY, policies: {some: {permissions: [{any: true}], principals: [{direct_remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}}]}}}}}, 
    {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: guarded, cluster: tcp-a}}]}]
- name: tcp-few
  filter_chains: [{filters: [{name: limit, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: few, max_connections: 1}}, *to_a]}]
- name: tcp-slow
  filter_chains: [{filters: [{name: limit, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit, stat_prefix: slow, token_bucket: {max_tokens: 2, fill_interval: 3600s}}}, *to_a]}]
- name: tcp-weighted
  filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: weighted, weighted_clusters: {clusters: [{name: tcp-a, weight: 1}]}}}]}]
- name: tcp-retried
  filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: retried, cluster: tcp-refused, max_connect_attempts: 3}}]}]
- name: tcp-nowhere
  filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: nowhere, cluster: no-such-cluster}}]}]
- name: tcp-hashed
  listener_filters: [*pp]
  filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: hashed, cluster: tcp-ring, hash_policy: [{source_ip: {}}]}}]}]
- name: tcp-brief
  filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: brief, cluster: tcp-a, idle_timeout: 0.2s}}]}]
- name: tcp-to-v1
  listener_filters: [*pp]
  filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: v1, cluster: to-v1}}]}]
- name: tcp-relay
  listener_filters: [*pp]
  filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: relay, cluster: to-v2}}]}]
";

/// Of the ring, no name of an address may be part: both sides have backends of their own.
const CLUSTERS: &str = "
- {name: tcp-a, type: STATIC, connect_timeout: 5s, load_assignment: {cluster_name: tcp-a, endpoints: [{lb_endpoints: [{endpoint: {address: @tcp@}}]}]}}
- {name: tcp-b, type: STATIC, connect_timeout: 5s, load_assignment: {cluster_name: tcp-b, endpoints: [{lb_endpoints: [{endpoint: {address: @garbage@}}]}]}}
- {name: tcp-refused, type: STATIC, connect_timeout: 5s, load_assignment: {cluster_name: tcp-refused, endpoints: [{lb_endpoints: [{endpoint: {address: @refused@}}]}]}}
- name: tcp-ring
  type: STATIC
  connect_timeout: 5s
  lb_policy: RING_HASH
  load_assignment: {cluster_name: tcp-ring, endpoints: [{lb_endpoints: [
    {endpoint: {address: @tcp@}, metadata: {filter_metadata: {envoy.lb: {hash_key: one}}}},
    {endpoint: {address: @garbage@}, metadata: {filter_metadata: {envoy.lb: {hash_key: two}}}}]}]}
- name: to-v1
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: to-v1, endpoints: [{lb_endpoints: [{endpoint: {address: @tcp@}}]}]}
  transport_socket: {name: pp, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport,
    config: {version: V1}, transport_socket: {name: raw, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}
- name: to-v2
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: to-v2, endpoints: [{lb_endpoints: [{endpoint: {address: @tcp@}}]}]}
  transport_socket: {name: pp, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport,
    config: {version: V2}, transport_socket: {name: raw, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}
";

const ON_PURPOSE: OnPurpose = &[(
    "who-may-connect",
    "body: envoy 6 bytes \"hello\\n\" | ours 0 bytes",
    "Envoy asks the rules at the client's first byte, and connects before that: what the endpoint says first may pass. \
     Ours are asked before anything is connected.",
)];

#[tokio::test]
async fn connections() -> anyhow::Result<()> {
    same(Part {
        cases: [headers(), binary(), chains(), gates(), tcp()].into_iter().flatten().collect(),
        listeners: LISTENERS,
        clusters: CLUSTERS,
        metrics: &[
            "proxy_proto.",
            "net.rbac",
            "connection_limit.",
            "local_rate_limit.",
            "tcp.weighted",
            "tcp.chain_",
            "tcp.brief",
            "tcp.retried",
            "tcp.nowhere",
        ],
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

/// One request after these bytes.
macro_rules! after {
    ($listener:literal, $head:literal) => {
        raw(concat!(
            $head,
            "GET / HTTP/1.1\r\nhost: x.test\r\nx-case: {case}\r\nconnection: close\r\n\r\n"
        ))
        .on($listener)
    };
    ($listener:literal, $head:literal, $more:literal) => {
        raw(concat!(
            $head,
            "GET / HTTP/1.1\r\nhost: x.test\r\nx-case: {case}\r\n",
            $more,
            "\r\nconnection: close\r\n\r\n"
        ))
        .on($listener)
    };
}

fn headers() -> Vec<Case> {
    vec![
        Case::plain("a header of version 1")
            .ask(after!("pp", "PROXY TCP4 192.0.2.7 203.0.113.5 41000 8080\r\n"), "200 - r a")
            .ask(after!("pp", "PROXY TCP6 2001:db8::7 2001:db8::5 41000 8080\r\n"), "200 - r a")
            .ask(after!("pp", "PROXY UNKNOWN\r\n"), "200 - r a")
            .ask(after!("pp", "PROXY UNKNOWN ff:: whatever 1 2\r\n"), "200 - r a")
            .ask(
                after!("pp", "PROXY TCP4 192.0.2.7 203.0.113.5 41000 8080\r\n", "x-ask: remote"),
                "403 - r a",
            )
            .ask(
                after!("pp", "PROXY TCP4 192.0.2.7 203.0.113.5 41000 8080\r\n", "x-ask: direct"),
                "200 - r a",
            ),
        Case::plain("a header of version 1 that is none")
            .ask(after!("pp", ""), "no answer")
            .ask(after!("pp", "PROXY TCP4 192.0.2.7 203.0.113.5 41000\r\n"), "no answer")
            .ask(after!("pp", "PROXY TCP4 192.0.2.7 203.0.113.5 41000 8080 1\r\n"), "no answer")
            .ask(after!("pp", "PROXY TCP4 2001:db8::7 2001:db8::5 41000 8080\r\n"), "no answer")
            .ask(after!("pp", "PROXY TCP6 192.0.2.7 203.0.113.5 41000 8080\r\n"), "no answer")
            .ask(after!("pp", "PROXY TCP4 192.0.2.7 203.0.113.5 41000 70000\r\n"), "no answer")
            .ask(after!("pp", "PROXY UDP4 192.0.2.7 203.0.113.5 41000 8080\r\n"), "no answer")
            .ask(after!("pp", "PROXY TCP4 1.2.3 203.0.113.5 41000 8080\r\n"), "no answer"),
        Case::plain("a header that may be missing")
            .ask(after!("pp-optional", ""), "200 - r a")
            .ask(
                after!("pp-optional", "PROXY TCP4 192.0.2.7 203.0.113.5 41000 8080\r\n"),
                "200 - r a",
            )
            .ask(after!("pp-optional", "PROXY TCP4 nonsense\r\n"), "no answer"),
        Case::plain("a version that is not taken")
            .ask(after!("pp-v2", "PROXY TCP4 192.0.2.7 203.0.113.5 41000 8080\r\n"), "no answer"),
    ]
}

fn binary() -> Vec<Case> {
    vec![
        Case::plain("a header of version 2")
            .ask(after!("pp", "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x1f\x40\0\x50"), "200 - r a")
            .ask(after!("pp-v2", "\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x1f\x40\0\x50"), "200 - r a")
            .ask(after!("pp", "\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\0\x01\0\x02\0\x03\0\x04\0\x05\0\x06\0\x07\0\x08\0\x11\0\x12\0\x13\0\x14\0\x15\0\x16\0\x17\0\x18\x1f\x40\0\x50"), "200 - r a")
            .ask(after!("pp", "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\x01\x02\x03\x04\x05\x06\x07\x08\x1f\x40\0\x50\x04\0\x01z"), "200 - r a")
            .ask(after!("pp", "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"), "200 - r a")
            .ask(after!("pp", "\r\n\r\n\0\r\nQUIT\n\x20\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x1f\x40\0\x50"), "200 - r a"),
        Case::plain("a header of version 2 that is none")
            .ask(after!("pp", "\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x1f\x40\0\x50"), "no answer")
            .ask(after!("pp", "\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x1f\x40\0\x50"), "no answer")
            .ask(after!("pp", "\r\n\r\n\0\r\nQUIT\n\x21\x31\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x1f\x40\0\x50"), "no answer")
            .ask(after!("pp", "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x08\x01\x02\x03\x04\x05\x06\x07\x08"), "no answer"),
    ]
}

fn chains() -> Vec<Case> {
    vec![
        Case::plain("the most specific chain")
            .ask(
                talk("PROXY TCP4 192.0.2.7 10.1.2.3 41000 81\r\nx\n", "x\n").on("tcp-chains"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 192.0.2.7 10.9.2.3 41000 80\r\nx\n", "x\n").on("tcp-chains"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 192.0.2.7 10.1.2.3 41000 80\r\nx\n", "x\n").on("tcp-chains"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 203.0.113.1 10.1.2.3 41000 80\r\nx\n", "x\n").on("tcp-chains"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 203.0.113.1 172.16.0.1 7777 80\r\nx\n", "x\n").on("tcp-chains"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 198.51.100.1 172.16.0.1 7777 80\r\nx\n", "x\n").on("tcp-chains"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 198.51.100.1 172.16.0.1 7778 80\r\nx\n", "x\n").on("tcp-chains"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 127.0.0.9 172.16.0.1 7778 80\r\nx\n", "x\n").on("tcp-chains"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 203.0.113.1 172.16.0.1 7778 80\r\nx\n", "x\n").on("tcp-chains"),
                "0 unlogged",
            ),
        Case::plain("the peer before whom it speaks for").ask(
            talk("PROXY TCP4 192.0.2.7 10.1.2.3 41000 81\r\nx\n", "x\n").on("tcp-direct"),
            "0 unlogged",
        ),
    ]
}

fn gates() -> Vec<Case> {
    vec![
        Case::plain("who may connect")
            .ask(
                talk("PROXY TCP4 192.0.2.7 10.1.2.3 41000 80\r\nx\n", "x\n").on("tcp-allowed"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 192.0.2.7 10.1.2.3 41000 81\r\nx\n", "x\n").on("tcp-allowed"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 192.0.3.7 10.1.2.3 41000 80\r\nx\n", "x\n").on("tcp-allowed"),
                "0 unlogged",
            ),
        Case::plain("few at a time").ask(talk("x\n", "x\n").on("tcp-few").beside(), "0 unlogged"),
        Case::plain("not too fast")
            .ask(talk("x\n", "x\n").on("tcp-slow"), "0 unlogged")
            .ask(talk("x\n", "x\n").on("tcp-slow"), "0 unlogged")
            .ask(talk("x\n", "x\n").on("tcp-slow"), "0 unlogged"),
        Case::plain("mtls as ever").ask(get("/").by(Client::Right), "200 - any a"),
    ]
}

fn tcp() -> Vec<Case> {
    vec![
        Case::plain("weights").ask(talk("x\n", "x\n").on("tcp-weighted"), "0 unlogged"),
        Case::plain("nobody takes it").ask(talk("x\n", "x\n").on("tcp-retried"), "0 unlogged"),
        Case::plain("there is no such cluster")
            .ask(talk("x\n", "x\n").on("tcp-nowhere"), "0 unlogged"),
        Case::plain("a silent connection").ask(talk("x\n", "never").on("tcp-brief"), "0 unlogged"),
        Case::plain("the same client, the same endpoint")
            .ask(
                talk("PROXY TCP4 192.0.2.7 10.1.2.3 41000 80\r\nx\n", "x\n").on("tcp-hashed"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 192.0.2.7 10.1.2.3 41001 80\r\nx\n", "x\n").on("tcp-hashed"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 192.0.2.8 10.1.2.3 41002 80\r\nx\n", "x\n").on("tcp-hashed"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 192.0.2.9 10.1.2.3 41002 80\r\nx\n", "x\n").on("tcp-hashed"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 192.0.2.10 10.1.2.3 41002 80\r\nx\n", "x\n").on("tcp-hashed"),
                "0 unlogged",
            ),
        Case::plain("a header for the endpoint")
            .ask(
                talk("PROXY TCP4 192.0.2.7 10.1.2.3 41000 80\r\nx\n", "x\n").on("tcp-relay"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP6 2001:db8::7 2001:db8::5 41000 80\r\nx\n", "x\n").on("tcp-relay"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP4 192.0.2.7 10.1.2.3 41000 80\r\nx\n", "x\n").on("tcp-to-v1"),
                "0 unlogged",
            )
            .ask(
                talk("PROXY TCP6 2001:db8::7 2001:db8::5 41000 80\r\nx\n", "x\n").on("tcp-to-v1"),
                "0 unlogged",
            )
            .ask(talk("PROXY UNKNOWN\r\nx\n", "x\n").on("tcp-hashed"), "0 unlogged"),
    ]
}
