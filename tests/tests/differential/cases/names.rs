//! The names of metrics: everything that Envoy counts has the same name and kind here, or stands in
//! a list with the reason.

use std::collections::{BTreeMap, BTreeSet};

use pillion_tests::client;
use pillion_tests::proxy::{Kind, envoy};
use pillion_tests::venv::optional;

use crate::differential::case::{Case, Client, get, grpc};
use crate::differential::observe;
use crate::differential::part::Part;
use crate::differential::world::{Trust, World};

/// What Envoy has and we do not: parts of names, and why.
const NOT_HERE: &[(&str, &str)] = &[
    ("_bytes_buffered", "buffers belong to the kernel and to hyper, which do not tell"),
    ("upstream_flow_control_", "the same: flow control is hyper's"),
    ("downstream_flow_control_", "the same"),
    (
        "connections_accepted_per_socket_event",
        "how Envoy's event loop takes connections in batches",
    ),
    (".default.total_match_count", "how often Envoy looked up its own table of transport sockets"),
    ("watchdog_", "threads are watched by the service manager (sd_notify), which restarts"),
    ("thread_local_cluster_manager.", "clusters are made once, and are not inflated for threads"),
    ("http.async-client.", "requests of the proxy itself do not go through a connection manager"),
    ("http.admin.", "the admin endpoint is a server of its own, and is not counted"),
    ("listener.admin.", "the same"),
    ("dns.cares.", "c-ares is not in use; `cluster.<name>.update_*` count what DNS answers"),
    ("overload.refresh_interval_delay", "there is no timer that could be late"),
    ("envoy.overload_actions.reset_high_memory_stream", "streams have fixed limits instead"),
    (".version", "of clusters that are not discovered, where it is zero for ever"),
    (
        ".ssl.certificate.",
        "`/certs` has every certificate with its dates, and `server.days_until_first_cert_expiring` the first",
    ),
    (
        "_ssl_socket_factory.",
        "nothing serves before its secrets are there; renewals are counted in `sds.<name>.`",
    ),
    (
        "downstream_listener_filter_error",
        "a socket that breaks so early counts as `downstream_listener_filter_remote_close`",
    ),
    ("downstream_rq_response_before_rq_complete", "it is an answer like any other"),
    (
        "rq_reset_after_downstream_response_started",
        "the access log's flags and details say that an answer broke off",
    ),
    ("tracing.health_check", "health checks are traced as other requests are"),
    (".ssl.sigalgs.", "rustls does not tell which algorithm signed"),
    ("http2.cookie", "the HTTP/2 library does not tell"),
    ("http2.deferred_stream_close", "the same"),
    ("http2.goaway_sent", "the same"),
    ("http2.header_", "the same"),
    ("http2.headers_cb_no_stream", "the same"),
    ("http2.keepalive_timeout", "the same"),
    ("http2.outbound_", "the same"),
    ("http2.pending_send_bytes", "the same"),
    ("http2.rx_messaging_error", "the same"),
    ("http2.stream_refused_errors", "the same"),
    ("http2.trailers", "the same"),
    ("http2.tx_flush_timeout", "the same"),
];

/// The same of the codec of all connection managers together, which the connection managers count
/// each for itself.
const OF_ALL_CODECS: &[&str] = &[
    "http2.streams_active",
    "http2.rx_reset",
    "http2.tx_reset",
    "http2.metadata_empty_frames",
    "http2.nghttp2_downstream_connections",
    "http2.nghttp2_upstream_connections",
    "http2.oghttp2_downstream_connections",
    "http2.oghttp2_upstream_connections",
];

/// What we have and Envoy does not: starts of names, and why.
const ONLY_HERE: &[(&str, &str)] = &[
    (
        "access_logs.",
        "lines written and lost; Envoy counts services only, and only where there are any",
    ),
    ("tracing.opentelemetry.", "there from the start; Envoy's are with the first tracer"),
    ("http.http.downstream_rq_mtls_total", "ours: who proved who they are"),
    ("http.http.downstream_rq_plain_total", "ours: who did not"),
    ("cluster.", "see ONLY_HERE_OF_CLUSTERS"),
];

/// The ends of those names of clusters.
const ONLY_HERE_OF_CLUSTERS: &[&str] = &["upstream_rq_drop_overload"];

/// Name (or family) and kind.
type Kinds = BTreeMap<String, String>;

struct Counted {
    names: BTreeSet<String>,
    kinds: Kinds,
}

const CLUSTERS: &str = "
- name: checked
  type: STATIC
  connect_timeout: 1s
  load_assignment: {cluster_name: checked, endpoints: [{lb_endpoints: [{endpoint: {address: @a@}}]}]}
  circuit_breakers: {thresholds: [{track_remaining: true, retry_budget: {}}]}
  outlier_detection: {}
  health_checks: [{timeout: 1s, interval: 100s, unhealthy_threshold: 2, healthy_threshold: 2, http_health_check: {path: /}}]
- name: by-name
  type: STRICT_DNS
  connect_timeout: 1s
  load_assignment: {cluster_name: by-name, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: localhost, port_value: @a.port@}}}}]}]}
- name: parts
  type: STATIC
  lb_subset_config: {fallback_policy: ANY_ENDPOINT, subset_selectors: [{keys: [v]}]}
  load_assignment: {cluster_name: parts, endpoints: [{lb_endpoints: [{endpoint: {address: @a@}}]}]}
";

fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "names",
            "{routes: [{match: {prefix: /checked}, route: {cluster: checked}},
              {match: {prefix: /by-name}, route: {cluster: by-name}},
              {match: {prefix: /parts}, route: {cluster: parts}},
              {match: {prefix: /tls}, route: {cluster: tls}},
              {match: {prefix: /test.Echo}, route: {cluster: h2}},
              {match: {prefix: /gone}, route: {cluster: refused}},
              {match: {prefix: /direct}, direct_response: {status: 200}},
              {match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx}}}]}",
        )
        .ask(get("/checked"), "")
        .ask(get("/by-name"), "")
        .ask(get("/parts"), "")
        .ask(get("/tls"), "")
        .ask(get("/gone"), "")
        .ask(get("/direct"), "")
        .ask(get("/again").does("status=503"), "")
        .ask(get("/inside").header("x-envoy-internal", "true"), "")
        .ask(grpc("hello"), ""),
        Case::plain("names with a certificate").ask(get("/x").by(Client::Right), ""),
        Case::plain("names without one").ask(get("/x").by(Client::Nobody), ""),
    ]
}

async fn count(kind: Kind, part: &Part, trust: &std::sync::Arc<Trust>) -> anyhow::Result<Counted> {
    let world = World::start(kind, part, std::sync::Arc::clone(trust)).await?;
    for case in &part.cases {
        for (index, probe) in case.probes.iter().enumerate() {
            observe::observe(&world, &case.probe_name(index), &probe.ask).await;
        }
    }
    // What is counted a moment after the answer.
    world.metrics(&["cluster.", "http.http."]).await?;
    let flat = client::get(world.admin(), "/stats").await?;
    let flat = world.without_ports(&String::from_utf8(flat.body)?);
    let name = |line: &str| {
        let name = line.split_once(": ")?.0;
        // Which one is agreed on is a matter of taste: rustls begins with other ones than BoringSSL.
        let agreed = [".ssl.ciphers.", ".ssl.curves."].into_iter();
        let end = agreed.filter_map(|part| name.find(part).map(|at| at + part.len())).next();
        Some(end.map_or(name, |end| &name[..end]).to_owned())
    };
    let prometheus = client::get(world.admin(), "/stats/prometheus").await?;
    let prometheus = String::from_utf8(prometheus.body)?;
    let typed = prometheus.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let typed = typed.filter_map(|line| line.split_once(' '));
    Ok(Counted {
        names: flat.lines().filter_map(name).collect(),
        kinds: typed.map(|(family, kind)| (family.to_owned(), kind.to_owned())).collect(),
    })
}

fn not_here(name: &str) -> bool {
    NOT_HERE.iter().any(|(part, _)| name.contains(part)) || OF_ALL_CODECS.contains(&name)
}

fn only_here(name: &str) -> bool {
    let of_clusters = |name: &str| ONLY_HERE_OF_CLUSTERS.iter().any(|end| name.ends_with(end));
    ONLY_HERE
        .iter()
        .any(|(start, _)| name.starts_with(start) && (*start != "cluster." || of_clusters(name)))
}

#[tokio::test]
async fn metrics_have_the_same_names_and_kinds() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let part = Part { cases: cases(), clusters: CLUSTERS, ..Part::default() };
    let trust = std::sync::Arc::new(Trust::new()?);
    let (theirs, ours) =
        tokio::try_join!(count(Kind::Envoy, &part, &trust), count(Kind::Pillion, &part, &trust))?;
    let mut lines = Vec::new();
    for name in theirs.names.difference(&ours.names).filter(|name| !not_here(name)) {
        lines.push(format!("missing: {name}"));
    }
    for name in ours.names.difference(&theirs.names).filter(|name| !only_here(name)) {
        lines.push(format!("Envoy has no {name}"));
    }
    for (family, kind) in &theirs.kinds {
        match ours.kinds.get(family) {
            Some(own) if own != kind => lines.push(format!("{family}: {kind} there, {own} here")),
            _ => {}
        }
    }
    assert!(theirs.names.len() > 1000, "Envoy counts {} things", theirs.names.len());
    // A reason without a name would be one that nobody needs.
    for (part, why) in NOT_HERE {
        if !theirs.names.iter().any(|name| name.contains(part)) {
            lines.push(format!("Envoy has no metric with {part} ({why})"));
        }
    }
    assert!(lines.is_empty(), "{}:\n{}", lines.len(), lines.join("\n"));
    Ok(())
}
