//! TLS towards both sides: names, authorities, revocation; chains chosen by what a connection shows.

use crate::differential::case::{Case, Client, Request, get, talk};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

const LISTENERS: &str = "
- name: revocation
  filter_chains: [{filters: [&web {name: hcm, typed_config: &manager {
    '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
    stat_prefix: web,
    http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}],
    route_config: {virtual_hosts: [{name: all, domains: ['*'], routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}]}}}],
    transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
      require_client_certificate: true, ocsp_staple_policy: LENIENT_STAPLING,
      common_tls_context: {tls_certificates: &own [{certificate_chain: {filename: '@server.chain@'}, private_key: {filename: '@server.key@'}}],
        validation_context: {trusted_ca: {filename: '@roots@'}, crl: {filename: '@crl@'}}}}}}]
- name: domains
  filter_chains: [{filters: [*web], transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
      require_client_certificate: true,
      common_tls_context: {tls_certificates: *own, validation_context: {custom_validator_config: &spiffe {name: envoy.tls.cert_validator.spiffe, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig,
        trust_domains: [{name: shop.local, trust_bundle: {filename: '@roots@'}}, {name: other.local, trust_bundle: {filename: '@other.roots@'}}]}}}}}}}]
- name: late
  filter_chains: [{filters: [*web], transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext,
      require_client_certificate: true, common_tls_context: {tls_certificates: *own, validation_context: {trusted_ca: {filename: '@roots@'}, allow_expired_certificate: true}}}}}]
- name: passed-on
  listener_filters: [&hello {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}]
  filter_chains:
  - {filter_chain_match: {server_names: [one.shop.test]}, filters: [{name: t, typed_config: &to_tls {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: to-tls}}]}
  - {filter_chain_match: {server_names: ['*.shop.test'], application_protocols: [h2]}, filters: [&to_h2 {name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: to-tls-h2}}]}
  - {filter_chain_match: {transport_protocol: raw_buffer}, filters: [*web]}
- name: by-name
  listener_filters: [*hello]
  filter_chains: [{filters: [{name: sni, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.sni_cluster.v3.SniCluster}}, {name: t, typed_config: *to_tls}]}]
- name: tcp-detect
  listener_filters: [*hello, &http {name: http, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}]
  listener_filters_timeout: 0.3s
  continue_on_listener_filters_timeout: true
  filter_chains: [{filter_chain_match: {application_protocols: [http/1.1, h2c]}, filters: [*web]}]
  default_filter_chain: {filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: to-tcp}}]}
- name: tree
  listener_filters: [*hello, *http]
  filter_chains:
  - {name: web, filters: [*web]}
  - {name: to-tls, filters: [{name: t, typed_config: *to_tls}]}
  - {name: to-h2, filters: [*to_h2]}
  filter_chain_matcher:
    matcher_tree:
      input: {name: transport, typed_config: {'@type': type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.TransportProtocolInput}}
      exact_match_map: {map: {
        raw_buffer: {matcher: {matcher_tree: {
          input: {name: address, typed_config: {'@type': type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DestinationIPInput}},
          custom_match: {name: ip, typed_config: {'@type': type.googleapis.com/xds.type.matcher.v3.IPMatcher, range_matchers: [
            {ranges: [{address_prefix: 127.0.0.0, prefix_len: 8}], on_match: {action: &web_chain {name: w, typed_config: {'@type': type.googleapis.com/google.protobuf.StringValue, value: web}}}}]}}}}},
        tls: {matcher: {
          matcher_list: {matchers: [
            {predicate: {single_predicate: {
              input: {name: alpn, typed_config: {'@type': type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.ApplicationProtocolInput}}, value_match: {exact: \"'h2'\"}}},
             on_match: {action: {name: h, typed_config: {'@type': type.googleapis.com/google.protobuf.StringValue, value: to-h2}}}},
            {predicate: {single_predicate: {
              input: {name: sni, typed_config: {'@type': type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.ServerNameInput}}, value_match: {suffix: .shop.test}}},
             on_match: {action: {name: t, typed_config: {'@type': type.googleapis.com/google.protobuf.StringValue, value: to-tls}}}},
            {predicate: {single_predicate: {
              input: {name: port, typed_config: {'@type': type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.DestinationPortInput}}, value_match: {exact: '1'}}},
             on_match: {action: *web_chain}}]}}}}}
- {name: tcp-first, filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: subset, cluster: versions, metadata_match: {filter_metadata: {envoy.lb: {version: one}}}}}]}]}
- {name: tcp-second, filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: subset,
    metadata_match: {filter_metadata: {envoy.lb: {version: one}}}, weighted_clusters: {clusters: [{name: versions, weight: 1, metadata_match: {filter_metadata: {envoy.lb: {version: two}}}}]}}}]}]}
- {name: tcp-third, filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: subset, cluster: versions, metadata_match: {filter_metadata: {envoy.lb: {version: three}}}}}]}]}
";

const CLUSTERS: &str = "
- {name: to-tls, type: STATIC, connect_timeout: 5s, load_assignment: {cluster_name: to-tls, endpoints: [{lb_endpoints: [{endpoint: {address: @tls@}}]}]}}
- {name: four.shop.test, type: STATIC, connect_timeout: 5s, load_assignment: {cluster_name: four, endpoints: [{lb_endpoints: [{endpoint: {address: @tls@}}]}]}}
- {name: to-tls-h2, type: STATIC, connect_timeout: 5s, load_assignment: {cluster_name: to-tls-h2, endpoints: [{lb_endpoints: [{endpoint: {address: @tls-h2@}}]}]}}
- {name: to-tcp, type: STATIC, connect_timeout: 5s, load_assignment: {cluster_name: to-tcp, endpoints: [{lb_endpoints: [{endpoint: {address: @tcp@}}]}]}}
- name: versions
  type: STATIC
  connect_timeout: 5s
  lb_subset_config: {subset_selectors: [{keys: [version]}]}
  load_assignment: {cluster_name: versions, endpoints: [{lb_endpoints: [
    {endpoint: {address: @tcp@}, metadata: {filter_metadata: {envoy.lb: {version: one}}}},
    {endpoint: {address: @garbage@}, metadata: {filter_metadata: {envoy.lb: {version: two}}}}]}]}
- name: auto
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: auto, endpoints: [{lb_endpoints: [{endpoint: {address: @tls@}}]}]}
  transport_socket: {name: tls, typed_config: &right {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {validation_context: {trusted_ca: {filename: '@roots@'}}}}}
  typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http_protocol_options: {}}, upstream_http_protocol_options: {auto_sni: true, auto_san_validation: true}}}
- name: auto-name
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: auto-name, endpoints: [{lb_endpoints: [{endpoint: {address: @tls@}}]}]}
  transport_socket: {name: tls, typed_config: *right}
  typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http_protocol_options: {}}, upstream_http_protocol_options: {auto_sni: true}}}
- name: auto-header
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: auto-header, endpoints: [{lb_endpoints: [{endpoint: {address: @tls@}}]}]}
  transport_socket: {name: tls, typed_config: *right}
  typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http_protocol_options: {}}, upstream_http_protocol_options: {auto_sni: true, auto_san_validation: true, override_auto_sni_header: x-sni}}}
- name: host
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: host, endpoints: [{lb_endpoints: [{endpoint: {address: @tls@, hostname: two.shop.test}}]}]}
  transport_socket: {name: tls, typed_config: &by_host {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: three.shop.test, auto_host_sni: true, auto_sni_san_validation: true, common_tls_context: {validation_context: {trusted_ca: {filename: '@roots@'}}}}}
- name: host-unknown
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: host-unknown, endpoints: [{lb_endpoints: [{endpoint: {address: @tls@}}]}]}
  transport_socket: {name: tls, typed_config: *by_host}
- name: host-wrong
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: host-wrong, endpoints: [{lb_endpoints: [{endpoint: {address: @tls@, hostname: nobody.test}}]}]}
  transport_socket: {name: tls, typed_config: *by_host}
- name: expired
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: expired, endpoints: [{lb_endpoints: [{endpoint: {address: @tls-expired@}}]}]}
  transport_socket: {name: tls, typed_config: &lenient {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {validation_context: {trusted_ca: {filename: '@roots@'}, allow_expired_certificate: true}}}}
- name: expired-stranger
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: expired-stranger, endpoints: [{lb_endpoints: [{endpoint: {address: @tls-stranger@}}]}]}
  transport_socket: {name: tls, typed_config: *lenient}
- name: domain
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: domain, endpoints: [{lb_endpoints: [{endpoint: {address: @tls@}}]}]}
  transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {validation_context: {custom_validator_config: {name: envoy.tls.cert_validator.spiffe, typed_config: {
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig, trust_domains: [{name: shop.local, trust_bundle: {filename: '@roots@'}}]}}}}}}
- name: domain-unknown
  type: STATIC
  connect_timeout: 5s
  load_assignment: {cluster_name: domain-unknown, endpoints: [{lb_endpoints: [{endpoint: {address: @tls@}}]}]}
  transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {validation_context: {custom_validator_config: {name: envoy.tls.cert_validator.spiffe, typed_config: {
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig, trust_domains: [{name: other.local, trust_bundle: {filename: '@roots@'}}]}}}}}}
- name: bound
  type: STATIC
  connect_timeout: 5s
  upstream_bind_config: {source_address: {address: 127.0.0.9, port_value: 0}}
  load_assignment: {cluster_name: bound, endpoints: [{lb_endpoints: [{endpoint: {address: @a@}}]}]}
- name: bound-by-family
  type: STATIC
  connect_timeout: 5s
  upstream_bind_config: {source_address: {address: '::1', port_value: 0}, extra_source_addresses: [{address: {address: 127.0.0.8, port_value: 0}}]}
  load_assignment: {cluster_name: bound-by-family, endpoints: [{lb_endpoints: [{endpoint: {address: @a@}}]}]}
- name: bound-wrongly
  type: STATIC
  connect_timeout: 5s
  upstream_bind_config: {source_address: {address: 192.0.2.77, port_value: 0}}
  load_assignment: {cluster_name: bound-wrongly, endpoints: [{lb_endpoints: [{endpoint: {address: @a@}}]}]}
";

const ON_PURPOSE: OnPurpose = &[];

#[tokio::test]
async fn handshakes() -> anyhow::Result<()> {
    same(Part {
        cases: [downstream(), chosen(), upstream(), connections()].into_iter().flatten().collect(),
        listeners: LISTENERS,
        clusters: CLUSTERS,
        log: "%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
        metrics: &["cluster.versions.lb_subsets_selected", "cluster.versions.lb_subsets_fallback"],
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

fn by(client: Client, listener: &'static str) -> Request {
    get("/").by(client).on(listener)
}

fn downstream() -> Vec<Case> {
    vec![
        Case::plain("what was revoked")
            .ask(by(Client::Right, "revocation"), "200 unlogged")
            .ask(by(Client::Revoked, "revocation"), "no answer")
            .ask(by(Client::OtherAuthority, "revocation"), "no answer")
            .ask(by(Client::Nobody, "revocation"), "no answer"),
        Case::plain("trust domains")
            .ask(by(Client::Right, "domains"), "200 unlogged")
            .ask(by(Client::OtherAccount, "domains"), "200 unlogged")
            .ask(by(Client::OtherAuthority, "domains"), "no answer")
            .ask(by(Client::Expired, "domains"), "no answer")
            .ask(by(Client::Nobody, "domains"), "no answer"),
        Case::plain("certificates that have run out")
            .ask(by(Client::Expired, "late"), "200 unlogged")
            .ask(by(Client::Right, "late"), "200 unlogged")
            .ask(by(Client::OtherAuthority, "late"), "no answer"),
    ]
}

fn chosen() -> Vec<Case> {
    let named = |listener, name: &str| get("/").by(Client::Nobody).on(listener).sni(name);
    vec![
        Case::plain("passed on by name")
            .ask(named("passed-on", "one.shop.test"), "200 unlogged")
            .ask(named("passed-on", "ONE.shop.test"), "200 unlogged")
            .ask(named("passed-on", "two.shop.test").http2(), "200 unlogged")
            .ask(named("passed-on", "two.shop.test"), "no answer")
            .ask(named("passed-on", "localhost"), "no answer")
            .ask(get("/").on("passed-on"), "200 unlogged")
            .ask(named("by-name", "four.shop.test"), "200 unlogged")
            .ask(named("by-name", "five.shop.test"), "no answer"),
        Case::plain("chosen by a tree")
            .ask(get("/").on("tree"), "200 unlogged")
            .ask(named("tree", "one.shop.test"), "200 unlogged")
            .ask(named("tree", "one.shop.test").http2(), "200 unlogged")
            .ask(named("tree", "localhost"), "no answer"),
        Case::plain("nobody speaks at first")
            .ask(talk("", "hello\n").on("tcp-detect"), "0 unlogged"),
        Case::plain("something else is spoken")
            .ask(talk("EHLO x\r\n", "EHLO x\r\n").on("tcp-detect"), "0 unlogged"),
    ]
}

fn upstream() -> Vec<Case> {
    let case = |name| {
        Case::new(
            name,
            "{domains: [localhost, '*.shop.test', 'two.shop.test:80', elsewhere.test, 127.0.0.1, 'rewritten.test'], routes: [
            {name: rewritten, match: {prefix: /rewritten}, route: {cluster: auto, host_rewrite_literal: six.shop.test}},
            {name: auto, match: {prefix: /auto}, route: {cluster: auto}},
            {name: name, match: {prefix: /name}, route: {cluster: auto-name}},
            {name: header, match: {prefix: /header}, route: {cluster: auto-header}},
            {name: host, match: {path: /host}, route: {cluster: host}},
            {name: unknown, match: {path: /host-unknown}, route: {cluster: host-unknown}},
            {name: wrong, match: {path: /host-wrong}, route: {cluster: host-wrong}},
            {name: expired, match: {path: /expired}, route: {cluster: expired}},
            {name: stranger, match: {path: /stranger}, route: {cluster: expired-stranger}},
            {name: domain, match: {path: /domain}, route: {cluster: domain}},
            {name: nodomain, match: {path: /nodomain}, route: {cluster: domain-unknown}},
            {name: bound, match: {path: /bound}, route: {cluster: bound}},
            {name: family, match: {path: /family}, route: {cluster: bound-by-family}},
            {name: wrongly, match: {path: /wrongly}, route: {cluster: bound-wrongly}}]}",
        )
    };
    vec![
        case("names of servers")
            .ask(get("/auto").host("localhost"), "200 - auto auto")
            .ask(get("/auto").host("one.shop.test"), "200 - auto auto")
            .ask(get("/auto").host("two.shop.test:80"), "200 - auto auto")
            .ask(get("/auto").host("elsewhere.test"), "503 UF auto auto")
            .ask(get("/auto").host("127.0.0.1"), "503 UF auto auto")
            .ask(get("/rewritten").host("elsewhere.test"), "200 - rewritten auto")
            .ask(get("/name").host("elsewhere.test"), "200 - name auto-name")
            .ask(get("/name").host("127.0.0.1"), "200 - name auto-name")
            .ask(
                get("/header").host("elsewhere.test").header("x-sni", "seven.shop.test"),
                "200 - header auto-header",
            )
            .ask(get("/header").host("one.shop.test"), "200 - header auto-header")
            .ask(
                get("/header").host("one.shop.test").header("x-sni", "elsewhere.test"),
                "503 UF header auto-header",
            )
            .ask(get("/host").host("localhost"), "200 - host host")
            .ask(get("/host-unknown").host("localhost"), "200 - unknown host-unknown")
            .ask(get("/host-wrong").host("localhost"), "503 UF wrong host-wrong")
            .ask(get("/expired").host("localhost"), "200 - expired expired")
            .ask(get("/stranger").host("localhost"), "503 UF stranger expired-stranger")
            .ask(get("/domain").host("localhost"), "200 - domain domain")
            .ask(get("/nodomain").host("localhost"), "503 UF nodomain domain-unknown")
            .ask(get("/bound").host("localhost"), "200 - bound bound")
            .ask(get("/family").host("localhost"), "200 - family bound-by-family")
            .ask(get("/wrongly").host("localhost"), "503 UF wrongly bound-wrongly"),
    ]
}

fn connections() -> Vec<Case> {
    vec![
        Case::plain("endpoints by their metadata")
            .ask(talk("x\n", "x\n").on("tcp-first"), "0 unlogged")
            .ask(talk("x\n", "x\n").on("tcp-first"), "0 unlogged")
            .ask(talk("x\n", "x\n").on("tcp-second"), "0 unlogged")
            .ask(talk("x\n", "x\n").on("tcp-third"), "0 unlogged"),
    ]
}
