//! The questions, in the order in which they are asked.

use http::Method;

use super::Case;
use super::Compare::{self, Head, Json, Lines, LinesUpTo, Text};

/// What both sides are started with.
pub(super) const BOOTSTRAP: &str = r#"
static_resources:
  listeners:
  - name: http
    traffic_direction: INBOUND
    address: {socket_address: {address: 127.0.0.1, port_value: @0@}}
    filter_chains:
    - filters: &filters
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            name: local
            virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
  - name: https
    address: {socket_address: {address: 127.0.0.1, port_value: @1@}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            tls_certificates: [{certificate_chain: {filename: "@chain@"}, private_key: {filename: "@key@"}}]
            validation_context: {trusted_ca: {filename: "@roots@"}}
      filters: *filters
  - name: both
    address: {socket_address: {address: 127.0.0.1, port_value: @2@}}
    additional_addresses: [{address: {socket_address: {address: 127.0.0.1, port_value: @3@}}}]
    filter_chains: [{filters: *filters}]
  clusters:
  - name: a
    type: STATIC
    connect_timeout: 1s
    alt_stat_name: alt_a
    load_assignment:
      cluster_name: a
      endpoints:
      - locality: {region: r, zone: z}
        lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}, hostname: h}
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 10}}}
          load_balancing_weight: 3
          metadata: {filter_metadata: {envoy.lb: {canary: true}}}
      - priority: 1
        lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 11}}}, health_status: UNHEALTHY}]
    outlier_detection: {}
    circuit_breakers: {thresholds: [{max_connections: 3}, {priority: HIGH, max_retries: 7}]}
  - name: tls
    type: STATIC
    load_assignment: {cluster_name: tls, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "::1", port_value: 9}}}, health_status: DRAINING}]}]}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          tls_certificate_sds_secret_configs: [{name: own}]
          validation_context_sds_secret_config: {name: roots}
  - name: empty
    type: STATIC
    load_assignment: {cluster_name: empty}
  secrets:
  - name: own
    tls_certificate: {certificate_chain: {filename: "@named.chain@"}, private_key: {filename: "@named.key@"}}
  - name: roots
    validation_context: {trusted_ca: {inline_string: "@inline@"}}
"#;

const METHODS: &[(&str, &str)] =
    &[("", "only GET, HEAD and POST are taken: a DELETE that does nothing but tell is a mistake")];
const CLEAR: &[(&str, &str)] =
    &[("", "a format that there is not is refused, where Envoy gives text")];
const NO_PROFILER: &[(&str, &str)] =
    &[("", "the allocator keeps no profile: 501 says so, with the way to get one")];
const NO_TRACING: &[(&str, &str)] =
    &[("", "locks are not traced, and there is no flag to: 501 says so")];
const NO_LOOKUPS: &[(&str, &str)] =
    &[("", "metrics are not looked up by name, so there is nothing to record: 501 says so")];
const PROMETHEUS: &[(&str, &str)] =
    &[("content-type:", "with the version of the format, which Prometheus 3 wants to know")];
const SUMMARY: &[(&str, &str)] = &[
    ("content-type:", "as above"),
    (
        "line envoy_cluster_upstream_cx_length_ms{envoy_cluster_name=\"alt_a\",quantile",
        "`NaN`, as the format has it",
    ),
];
const NO_DETAILS: &[(&str, &str)] =
    &[("", "histograms have the buckets of their bounds, which `disjoint` shows")];
const NO_PAGE: &[(&str, &str)] = &[("", "metrics are text: there is no page of them")];

fn case(method: Method, path: &'static str, compare: Compare) -> Case {
    Case { method, path, compare, on_purpose: &[] }
}

fn get(path: &'static str, compare: Compare) -> Case {
    case(Method::GET, path, compare)
}

fn post(path: &'static str, compare: Compare) -> Case {
    case(Method::POST, path, compare)
}

impl Case {
    fn differs(self, on_purpose: &'static [(&'static str, &'static str)]) -> Self {
        Self { on_purpose, ..self }
    }
}

pub(super) fn cases() -> Vec<Case> {
    let all =
        [state(), methods(), stats(), clusters(), dumps(), certificates(), levels(), without()];
    all.into_iter().flatten().collect()
}

fn state() -> Vec<Case> {
    vec![
        get("/ready", Text),
        case(Method::HEAD, "/ready", Text),
        post("/ready", Text),
        get("/server_info", Json(&["state", "concurrency", "id", "cluster", "mode", "drain_time"]))
            .differs(&[
                (
                    ".node.extensions",
                    "what is supported stands in docs/support.md, not in the node",
                ),
                (".node.user_agent_build_version.metadata", "of Envoy's build"),
                (
                    ".command_line_options.",
                    "flags that there are not; `config_yaml` may have keys in it",
                ),
                (".node.client_features", "fields of the node that nothing sets"),
                (".node.dynamic_parameters", "the same"),
                (".node.listening_addresses", "the same"),
            ]),
        post("/healthcheck/fail", Text),
        get("/ready", Text),
        get("/server_info?", Json(&["state"]))
            .differs(&[(".node.", "as before"), (".command_line_options.", "as before")]),
        post("/healthcheck/ok", Text),
        get("/ready?", Text),
        get("/init_dump", Text),
        get("/init_dump?mask=listener", Text),
        get("/hot_restart_version", Text),
        get("/memory", Json(&[])),
        get("/runtime", Json(&[])),
        post("/runtime_modify", Text),
        post("/runtime_modify?a=b", Text),
        post("/reset_counters", Text),
        post("/reopen_logs", Text),
        get("/help", LinesUpTo(":")).differs(&[
            ("line       ", "parameters stand in the line of their path"),
            ("line   /deregister", "ours: to leave the mesh and go on serving"),
        ]),
        get("/nope", LinesUpTo(":"))
            .differs(&[("line       ", "as in /help"), ("line   /deregister", "as in /help")]),
        post("/nope", Head),
        get("/ready/", Head),
        get("/", Head),
    ]
}

/// What changes something has to be posted.
fn methods() -> Vec<Case> {
    let mut all: Vec<Case> = [
        "/quitquitquit",
        "/healthcheck/fail",
        "/healthcheck/ok",
        "/drain_listeners",
        "/drain_listeners?graceful",
        "/reset_counters",
        "/reopen_logs",
        "/logging",
        "/logging?level=debug",
        "/runtime_modify?a=b",
        "/cpuprofiler",
        "/heapprofiler",
        "/allocprofiler",
        "/stats/recentlookups/clear",
        "/stats/recentlookups/disable",
        "/stats/recentlookups/enable",
    ]
    .into_iter()
    .map(|path| get(path, Text))
    .collect();
    all.push(case(Method::PUT, "/quitquitquit", Text));
    all.push(case(Method::DELETE, "/healthcheck/fail", Text));
    all.push(case(Method::DELETE, "/ready", Text).differs(METHODS));
    all.push(case(Method::PUT, "/stats", Head).differs(METHODS));
    all
}

fn stats() -> Vec<Case> {
    let stat = Json(&["name", "value", "supported_quantiles", "upper_bound"]);
    vec![
        get("/stats?filter=alt_a.upstream_cx_(total|active|length_ms)", Text),
        get("/stats?format=text&filter=alt_a.upstream_cx_(total|active|length_ms)", Text),
        get("/stats?format=&filter=alt_a.upstream_cx_(total|active|length_ms)", Text),
        get("/stats?format=json&filter=alt_a.upstream_cx_(total|active)$", stat),
        get("/stats?format=json&filter=alt_a.upstream_cx_(total|length_ms)", stat),
        get("/stats?format=json&filter=no_such_metric", stat),
        get("/stats?filter=no_such_metric", Text),
        get("/stats?format=prometheus&filter=alt_a.upstream_cx_(total|active)$", Lines)
            .differs(PROMETHEUS),
        get("/stats/prometheus?filter=alt_a.upstream_cx_(total|active)$", Lines)
            .differs(PROMETHEUS),
        get("/stats/prometheus?filter=alt_a.upstream_cx_length_ms", Lines).differs(PROMETHEUS),
        get(
            "/stats/prometheus?filter=alt_a.upstream_cx_length_ms&histogram_buckets=summary",
            Lines,
        )
        .differs(SUMMARY),
        get("/stats/prometheus?filter=alt_a.upstream_cx_total$&text_readouts", Lines)
            .differs(PROMETHEUS),
        get("/stats?usedonly&filter=alt_a.(membership_total|upstream_cx_total)$", Text),
        get("/stats?usedonly&filter=alt_a.upstream_cx_length_ms", Text),
        get("/stats?type=Counters&filter=alt_a.(membership_total|upstream_cx_total)$", Text),
        get("/stats?type=Gauges&filter=alt_a.(membership_total|upstream_cx_total)$", Text),
        get("/stats?type=Histograms&filter=alt_a.upstream_cx", Text),
        get("/stats?type=TextReadouts&filter=alt_a", Text),
        get("/stats?type=All&filter=alt_a.(membership_total|upstream_cx_total)$", Text),
        get("/stats?type=&filter=alt_a.(membership_total|upstream_cx_total)$", Text),
        get("/stats?hidden=include&filter=alt_a.membership_total$", Text),
        get("/stats?hidden=only&filter=alt_a.membership_total$", Text),
        get("/stats?hidden=exclude&filter=alt_a.membership_total$", Text),
        get("/stats?filter=alt_a.upstream_cx_length_ms&histogram_buckets=cumulative", Text),
        get("/stats?filter=alt_a.upstream_cx_length_ms&histogram_buckets=disjoint", Text),
        get("/stats?filter=alt_a.upstream_cx_length_ms&histogram_buckets=detailed", Head)
            .differs(NO_DETAILS),
        get("/stats?filter=alt_a.upstream_cx_length_ms&histogram_buckets=summary", Text),
        get(
            "/stats?format=json&filter=alt_a.upstream_cx_length_ms&histogram_buckets=disjoint",
            stat,
        ),
        get(
            "/stats?format=json&filter=alt_a.upstream_cx_length_ms&histogram_buckets=cumulative",
            stat,
        ),
        get("/stats?hidden=nope", Head),
        get("/stats?format=nope", Head),
        get("/stats?filter=(", Head),
        get("/stats?type=nope", Head),
        get("/stats?histogram_buckets=nope", Head),
        get("/stats/prometheus?histogram_buckets=disjoint", Text),
        get("/stats/prometheus?histogram_buckets=nope", Head),
        get("/stats/", Head),
        get("/stats?format=html", Head).differs(NO_PAGE),
        get("/stats?format=active-html", Head).differs(NO_PAGE),
        get("/stats/recentlookups", Head),
    ]
}

fn clusters() -> Vec<Case> {
    let values = Json(&[
        "name",
        "observability_name",
        "max_connections",
        "max_pending_requests",
        "max_retries",
        "priority",
        "type",
        "value",
        "eds_health_status",
        "weight",
        "hostname",
        "region",
        "zone",
        "address",
    ]);
    vec![
        get("/clusters", Lines),
        get("/clusters?format=text", Lines),
        get("/clusters?format=json", values),
        get("/clusters?filter=^tl", Lines),
        get("/clusters?format=json&filter=^tl", values),
        get("/clusters?filter=no-such-cluster", Text),
        get("/clusters?filter=(", Head),
        get("/clusters?format=xml", Head).differs(CLEAR),
        get("/listeners", Lines),
        get("/listeners?format=text", Lines),
        get("/listeners?format=json", Json(&["name", "address"])),
        get("/listeners?format=xml", Head).differs(CLEAR),
    ]
}

const OF_BUILD: &[(&str, &str)] = &[
    (
        ".configs[BootstrapConfigDump].bootstrap.node.user_agent",
        "the bootstrap is dumped as it was given",
    ),
    (".configs[BootstrapConfigDump].bootstrap.node.extensions", "the same"),
    (
        ".configs[].@type: string \"type.googleapis.com/pillion.v1.ControlPlaneStatus\"",
        "ours: what the control plane said, and what could not be served",
    ),
    (".configs[].control_plane", "the same"),
];

const METADATA: &str = "endpoints as they are now; their metadata stand in what was configured";

fn dumps() -> Vec<Case> {
    let values = Json(&[
        "@type",
        "name",
        "cluster_name",
        "prefix",
        "health_status",
        "overprovisioning_factor",
    ]);
    vec![
        get("/config_dump", values).differs(OF_BUILD),
        get("/config_dump?include_eds&", values).differs(&[
            (".configs[BootstrapConfigDump].bootstrap.node.", "as above"),
            (".configs[].@type: string \"type.googleapis.com/pillion", "as above"),
            (".configs[].control_plane", "as above"),
            (
                ".configs[EndpointsConfigDump].static_endpoint_configs[].endpoint_config.endpoints[].lb_endpoints[].metadata",
                METADATA,
            ),
        ]),
        get("/config_dump?name_regex=^a$", values).differs(OF_BUILD),
        get("/config_dump?resource=static_listeners", values),
        get("/config_dump?resource=static_clusters", values),
        get("/config_dump?resource=static_clusters&name_regex=^a$", values),
        get("/config_dump?resource=static_clusters&name_regex=no-such-cluster", Text),
        get("/config_dump?resource=static_clusters&mask=cluster.name", values),
        get("/config_dump?resource=static_route_configs", values),
        get("/config_dump?resource=static_secrets", values),
        get("/config_dump?include_eds&resource=static_endpoint_configs", values).differs(&[(
            ".configs[].endpoint_config.endpoints[].lb_endpoints[].metadata",
            METADATA,
        )]),
        get("/config_dump?resource=static_endpoint_configs", Head),
        get("/config_dump?resource=dynamic_active_clusters", Head),
        get("/config_dump?mask=bootstrap.node.id", values),
        get("/config_dump?mask=bootstrap.node.id,static_clusters.last_updated", Head)
            .differs(&[("", "a mask of parts of several dumps is applied to each, not refused")]),
        get("/config_dump?resource=nope", Text),
        get("/config_dump?resource=bootstrap", Text),
        get("/config_dump?mask=nope", Text),
        get("/config_dump?resource=static_clusters&mask=nope", Head),
        get("/config_dump?name_regex=(", Head),
    ]
}

fn certificates() -> Vec<Case> {
    vec![get("/certs", Json(&["dns", "uri", "ip_address", "days_until_expiration"]))]
}

fn levels() -> Vec<Case> {
    let ours: &[(&str, &str)] =
        &[("line ", "loggers that there are here; those of Envoy's names mean the same")];
    let clear: &[(&str, &str)] = &[("", "several at once are taken, all or none")];
    vec![
        post("/logging", Lines).differs(ours),
        post("/logging?level=warning", Lines).differs(ours),
        post("/logging?level=", Lines).differs(ours),
        post("/logging?paths=upstream:debug,http:info", Lines).differs(ours),
        post("/logging?upstream=error", Lines).differs(ours),
        post("/logging?level=nope", Head),
        post("/logging?paths=nope:debug", Head),
        post("/logging?paths=upstream", Head),
        post("/logging?nope=debug", Head),
        post("/logging?level=info&http=debug", Head).differs(clear),
        post("/logging?level=warning", Head),
    ]
}

/// What only Envoy has.
fn without() -> Vec<Case> {
    vec![
        get("/contention", Head).differs(NO_TRACING),
        get("/heap_dump", Head).differs(NO_PROFILER),
        get("/peak_heap_dump", Head).differs(NO_PROFILER),
        get("/memory/tcmalloc", Head).differs(NO_PROFILER),
        post("/cpuprofiler", Head).differs(NO_PROFILER),
        post("/heapprofiler", Head),
        post("/allocprofiler", Head).differs(NO_PROFILER),
        post("/stats/recentlookups/clear", Head).differs(NO_LOOKUPS),
        post("/stats/recentlookups/disable", Head).differs(NO_LOOKUPS),
        post("/stats/recentlookups/enable", Head).differs(NO_LOOKUPS),
    ]
}
