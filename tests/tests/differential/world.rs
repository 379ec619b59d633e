//! What all cases share: backends, clusters, listeners, certificates.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pillion_tests::backend::{Backend, Ledger, Speaks};
use pillion_tests::ca::{Ca, Files, Leaf, spiffe};
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, DIR, Kind, Proxy, socket_address};
use pillion_tests::{client, wait, yaml};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::case::Client;
use super::metrics::{self, Metrics};
use super::observe::{LogLine, Observed};
use super::part::{Part, Server};

/// One side: a proxy, with backends of its own.
pub(crate) struct World {
    pub(crate) trust: Arc<Trust>,
    proxy: Proxy,
    listeners: BTreeMap<String, SocketAddr>,
    _kept: Kept,
}

/// What ends with the world.
struct Kept {
    _backends: Vec<Backend>,
    _servers: Vec<Server>,
    _refused: Port,
}

/// Metrics that did not move for so long are final.
const STEADY: Duration = Duration::from_millis(150);

/// `@name@` becomes the address of a server, `@name.port@` its port.
fn with_addresses(text: &str, addresses: &[(String, SocketAddr)]) -> String {
    let mut text = text.to_owned();
    for (name, address) in addresses {
        text = text.replace(&format!("@{name}@"), &socket_address(*address).to_string());
        text = text.replace(&format!("@{name}.port@"), &address.port().to_string());
    }
    text
}

/// Authorities and certificates, the same on both sides.
pub(crate) struct Trust {
    ca: Ca,
    other: Ca,
    right: Leaf,
    server: Leaf,
    dir: TempDir,
}

impl World {
    pub(crate) async fn start(kind: Kind, part: &Part, trust: Arc<Trust>) -> anyhow::Result<Self> {
        let backends = backends(&trust).await?;
        let refused = Port::reserve()?;
        let mut addresses: Vec<(String, SocketAddr)> =
            backends.iter().map(|backend| (backend.name.clone(), backend.address)).collect();
        addresses.push(("refused".to_owned(), refused.address()));
        let mut servers = Vec::new();
        for (name, start) in &part.servers {
            let server = start().await.with_context(|| format!("server {name}"))?;
            addresses.push(((*name).to_owned(), server.address));
            servers.push(server);
        }
        let files = trust.named()?;
        let read = |text: &str| {
            let text = files.iter().fold(text.to_owned(), |text, (name, path)| {
                text.replace(name, &path.display().to_string())
            });
            yaml::parse(&with_addresses(&text, &addresses))
        };
        let list = |text: &str| -> anyhow::Result<Vec<Value>> {
            if text.is_empty() { Ok(Vec::new()) } else { Ok(serde_json::from_value(read(text)?)?) }
        };
        let mut clusters = clusters(&backends, refused.address(), &trust)?;
        clusters.extend(list(part.clusters)?);
        let chains = filter_chains(part, &trust, &addresses)?;
        let mut config: Vec<Value> = chains
            .into_iter()
            .map(|(name, chain)| json!({"name": name, "filter_chains": [chain]}))
            .collect();
        config.extend(list(part.listeners)?);
        let mut listeners = BTreeMap::new();
        let mut ports = Vec::new();
        for listener in &mut config {
            if listener.get("address").is_none() {
                let port = Port::reserve()?;
                let name = listener["name"].as_str().context("a listener without a name")?;
                listeners.insert(name.to_owned(), port.address());
                listener["address"] = socket_address(port.address());
                ports.push(port);
            }
        }
        let mut bootstrap = Bootstrap::of(config, clusters);
        if !part.bootstrap.is_empty() {
            yaml::merge(&mut bootstrap.config, read(part.bootstrap)?);
        }
        ports.into_iter().for_each(|port| bootstrap.hold(port));
        let proxy = Proxy::start(kind, bootstrap).await?;
        let kept = Kept { _backends: backends, _servers: servers, _refused: refused };
        let world = Self { trust, proxy, listeners, _kept: kept };
        for (name, wanted) in part.settled {
            world.settles(name, *wanted).await?;
        }
        Ok(world)
    }

    /// Metrics that are not zero; a proxy counts a moment after it answered.
    pub(crate) async fn metrics(&self, prefixes: &[&str]) -> anyhow::Result<Metrics> {
        if prefixes.is_empty() {
            return Ok(Metrics::new());
        }
        let mut last = Metrics::new();
        loop {
            let answer = client::get(self.proxy.admin, "/stats?format=json").await?;
            let now = metrics::read(&answer.body, prefixes)?;
            if now == last {
                return Ok(now);
            }
            last = now;
            tokio::time::sleep(STEADY).await;
        }
    }

    /// Returns when a metric has come to this.
    pub(crate) async fn settles(&self, name: &str, wanted: u64) -> anyhow::Result<()> {
        let has_come = || async {
            let answer = client::get(self.proxy.admin, "/stats?format=json").await.ok()?;
            let now = metrics::read(&answer.body, &[name]).ok()?;
            (now.get(name).copied().unwrap_or(0) == wanted).then_some(())
        };
        wait::until(&format!("{name} comes to {wanted}"), has_come).await
    }

    /// The admin endpoint.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.proxy.admin
    }

    /// A text in which listeners are called by their names in place of their addresses.
    pub(crate) fn without_ports(&self, text: &str) -> String {
        let replace = |text: String, (name, address): (&String, &SocketAddr)| {
            text.replace(&address.to_string().replace(':', "_"), name)
        };
        self.listeners.iter().fold(text.to_owned(), replace)
    }

    pub(crate) fn listener(&self, name: &str) -> anyhow::Result<SocketAddr> {
        self.listeners.get(name).copied().with_context(|| format!("no listener {name}"))
    }

    /// Gives everything that was logged its line, once those of `expected` are there.
    pub(crate) async fn attach_logs(&self, all: &mut [Observed], expected: &[String]) {
        let path = self.proxy.dir().join("access.log");
        let complete = || async {
            let lines = read_log(&path);
            expected.iter().all(|name| lines.contains_key(name)).then_some(())
        };
        // One that never comes is a difference as any other.
        if wait::until("every request is in the access log", complete).await.is_err() {
            eprintln!("the access log is not complete");
        }
        let mut lines = read_log(&path);
        for one in all {
            one.log = lines.remove(&one.name);
        }
    }
}

fn read_log(path: &Path) -> BTreeMap<String, LogLine> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(LogLine::parse).collect()
}

impl Trust {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let ca = Ca::new("right")?;
        let (right, server) = (ca.leaf(&spiffe("client"))?, ca.leaf(&spiffe("server"))?);
        let other = Ca::new("other")?;
        Ok(Self { ca, other, right, server, dir: tempfile::tempdir()? })
    }

    /// What a client of the listener `mtls` shows and speaks.
    pub(crate) fn client(&self, client: Client, http2: bool) -> anyhow::Result<Arc<ClientConfig>> {
        let made = match client {
            Client::OtherAccount => Some(self.ca.leaf(&spiffe("somebody-else"))?),
            Client::OtherAuthority => Some(self.other.leaf(&spiffe("client"))?),
            Client::Expired => Some(self.ca.expired(&spiffe("client"))?),
            Client::Revoked => Some(self.ca.revoked(&spiffe("client"))?),
            Client::Right | Client::Nobody => None,
        };
        let leaf = if client == Client::Right { Some(&self.right) } else { made.as_ref() };
        self.ca.client(leaf, if http2 { &["h2"] } else { &["http/1.1"] })
    }

    /// Files by the names that parts say.
    fn named(&self) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
        let server = self.files("named", &self.server)?;
        let other = self.other.write(self.dir.path(), "named-other", &self.server)?;
        let crl = self.dir.path().join("named.crl");
        std::fs::write(&crl, self.ca.crl()?)?;
        Ok(vec![
            ("@server.chain@", server.chain),
            ("@server.key@", server.key),
            ("@roots@", server.roots),
            ("@other.roots@", other.roots),
            ("@crl@", crl),
        ])
    }

    fn files(&self, name: &str, leaf: &Leaf) -> anyhow::Result<Files> {
        self.ca.write(self.dir.path(), name, leaf)
    }
}

async fn backends(trust: &Trust) -> anyhow::Result<Vec<Backend>> {
    let ledger = Ledger::default();
    let mut all = Vec::new();
    for (name, speaks) in [
        ("a", Speaks::Http1),
        ("b", Speaks::Http1),
        ("h2", Speaks::Http2),
        ("tcp", Speaks::Tcp),
        ("garbage", Speaks::Garbage),
    ] {
        all.push(Backend::with(name, speaks, None, Arc::clone(&ledger)).await?);
    }
    let stranger = trust.other.leaf(&spiffe("server"))?;
    let expired = trust.ca.expired(&spiffe("server"))?;
    for (name, ca, leaf, mutual, speaks) in [
        ("tls", &trust.ca, &trust.server, false, Speaks::Http1),
        ("tls-h2", &trust.ca, &trust.server, false, Speaks::Http2),
        ("tls-mutual", &trust.ca, &trust.server, true, Speaks::Http1),
        ("tls-stranger", &trust.other, &stranger, false, Speaks::Http1),
        ("tls-expired", &trust.ca, &expired, false, Speaks::Http1),
    ] {
        let alpn: &[&str] = if speaks == Speaks::Http2 { &["h2"] } else { &["http/1.1"] };
        let tls = ca.server(leaf, mutual, alpn)?;
        all.push(Backend::with(name, speaks, Some(tls), Arc::clone(&ledger)).await?);
    }
    Ok(all)
}

const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";

fn clusters(
    backends: &[Backend],
    refused: SocketAddr,
    trust: &Trust,
) -> anyhow::Result<Vec<Value>> {
    let at = |name: &str| {
        let found = backends.iter().find(|backend| backend.name == name);
        found.map_or(refused, |backend| backend.address)
    };
    let endpoint = |name: &str, health: &str| json!({"endpoint": {"address": socket_address(at(name))}, "health_status": health});
    let well = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| endpoint(name, "UNKNOWN")).collect()
    };
    let one = |name: &str, more: &str| cluster(name, &[well(&[name])], more);
    // A half of the endpoints is enough for everything.
    let enough = "load_assignment: {policy: {overprovisioning_factor: 200}}";
    let panic0 = "common_lb_config: {healthy_panic_threshold: {value: 0}}";
    let breaker = |name: &str, limit: &str| {
        let more = format!("circuit_breakers: {{thresholds: [{{{limit}}}]}}");
        cluster(name, &[well(&["a"])], &more)
    };
    let mut all = vec![
        one("a", "")?,
        one("b", "")?,
        cluster("ab", &[well(&["a", "b"])], "")?,
        one("h2", HTTP2)?,
        one("garbage", "")?,
        one("tcp", "")?,
        one("refused", "")?,
        cluster("empty", &[], "")?,
        cluster("refused-or-b", &[well(&["refused", "b"])], "")?,
        cluster("failover", &[vec![endpoint("refused", "UNHEALTHY")], well(&["b"])], "")?,
        cluster(
            "healthy-b",
            &[vec![endpoint("a", "UNHEALTHY"), endpoint("b", "HEALTHY")]],
            panic0,
        )?,
        cluster(
            "draining-a",
            &[vec![endpoint("a", "DRAINING"), endpoint("b", "HEALTHY")]],
            panic0,
        )?,
        cluster("sick", &[vec![endpoint("a", "UNHEALTHY")]], panic0)?,
        cluster("panic", &[vec![endpoint("a", "UNHEALTHY")]], "")?,
        cluster("degraded", &[vec![endpoint("a", "DEGRADED"), endpoint("b", "HEALTHY")]], enough)?,
        breaker("no-requests", "max_requests: 0")?,
        breaker("no-pending", "max_pending_requests: 0")?,
        breaker("no-retries", "max_retries: 0")?,
        breaker(
            "high-only",
            "priority: DEFAULT, max_requests: 0}, {priority: HIGH, max_requests: 9",
        )?,
    ];
    all.extend(tls_clusters(trust, at)?);
    Ok(all)
}

fn tls_clusters(trust: &Trust, at: impl Fn(&str) -> SocketAddr) -> anyhow::Result<Vec<Value>> {
    let own = trust.files("client", &trust.right)?;
    let mut all = Vec::new();
    for (name, backend, expected, certificate) in [
        ("tls", "tls", "server", false),
        ("tls-wrong-san", "tls", "another-server", false),
        ("tls-h2", "tls-h2", "server", false),
        ("tls-mutual", "tls-mutual", "server", true),
        ("tls-mutual-without", "tls-mutual", "server", false),
        ("tls-stranger", "tls-stranger", "server", false),
        ("tls-expired", "tls-expired", "server", false),
        ("tls-to-plain", "a", "server", false),
    ] {
        let mut common = json!({
            "validation_context": {
                "trusted_ca": {"filename": own.roots},
                "match_typed_subject_alt_names":
                    [{"san_type": "URI", "matcher": {"exact": spiffe(expected)}}],
            },
        });
        if certificate {
            common["tls_certificates"] = certificates(&own);
        }
        let endpoints = vec![json!({"endpoint": {"address": socket_address(at(backend))}})];
        let more = if backend == "tls-h2" {
            common["alpn_protocols"] = json!(["h2"]);
            HTTP2
        } else {
            ""
        };
        let mut cluster = cluster(name, &[endpoints], more)?;
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": common,
            },
        });
        all.push(cluster);
    }
    Ok(all)
}

fn certificates(files: &Files) -> Value {
    json!([{
        "certificate_chain": {"filename": files.chain},
        "private_key": {"filename": files.key},
    }])
}

/// `priorities`: the endpoints of each.
fn cluster(name: &str, priorities: &[Vec<Value>], more: &str) -> anyhow::Result<Value> {
    let localities = priorities
        .iter()
        .enumerate()
        .map(|(priority, endpoints)| json!({"priority": priority, "lb_endpoints": endpoints}));
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment":
            {"cluster_name": name, "endpoints": localities.collect::<Vec<_>>()},
    });
    if !more.is_empty() {
        yaml::merge(&mut cluster, yaml::parse(more)?);
    }
    Ok(cluster)
}

/// Every listener's one filter chain.
#[expect(clippy::too_many_lines, reason = "one entry a filter chain: a list, not logic")]
fn filter_chains(
    part: &Part,
    trust: &Trust,
    addresses: &[(String, SocketAddr)],
) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let read = |text: &str| yaml::parse(&with_addresses(text, addresses));
    let mut shared = Vec::new();
    for case in &part.cases {
        if let Some(text) = case.vhost {
            let mut vhost = json!({"name": case.slug()});
            yaml::merge(&mut vhost, read(text).with_context(|| case.name)?);
            if vhost.get("domains").is_none() {
                vhost["domains"] = json!([case.host()]);
            }
            shared.push(vhost);
        }
    }
    let table = |vhosts: Vec<Value>| {
        json!({
            "name": "table",
            "virtual_hosts": vhosts,
            "request_headers_to_add": [{"header": {"key": "x-table", "value": "seen"}}],
            "response_headers_to_add": [{"header": {"key": "x-table-answered", "value": "yes"}}],
            "response_headers_to_remove": ["x-secret"],
        })
    };
    let anything = || {
        vec![json!({
            "name": "anything",
            "domains": ["*"],
            "routes": [{"name": "any", "match": {"prefix": "/"}, "route": {"cluster": "a"}}],
        })]
    };
    let server = trust.files("server", &trust.server)?;
    let mut mtls = http(
        table(anything()),
        part.log,
        "forward_client_cert_details: SANITIZE_SET
set_current_client_cert_details: {uri: true}",
    )?;
    mtls["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": certificates(&server),
                "validation_context": {
                    "trusted_ca": {"filename": server.roots},
                    "match_typed_subject_alt_names":
                        [{"san_type": "URI", "matcher": {"exact": spiffe("client")}}],
                },
            },
        },
    });
    let mut main = http(table(shared), part.log, "")?;
    let manager = &mut main["filters"][0]["typed_config"];
    if !part.filters.is_empty() {
        let mut filters: Vec<Value> = serde_json::from_value(read(part.filters)?)?;
        filters.push(manager["http_filters"][0].take());
        manager["http_filters"] = json!(filters);
    }
    if !part.manager.is_empty() {
        yaml::merge(manager, read(part.manager)?);
    }
    let http = |table: Value, more: &str| http(table, part.log, more);
    Ok(vec![
        ("http", main),
        ("edge", http(table(anything()), "use_remote_address: true")?),
        (
            "second-hop",
            http(table(anything()), "use_remote_address: true\nxff_num_trusted_hops: 1")?,
        ),
        (
            "silent",
            http(
                table(anything()),
                "server_header_transformation: PASS_THROUGH
skip_xff_append: true
use_remote_address: true",
            )?,
        ),
        (
            "own-id",
            http(
                table(anything()),
                "preserve_external_request_id: true
always_set_request_id_in_response: true",
            )?,
        ),
        ("no-id", http(table(anything()), "generate_request_id: false")?),
        ("via", http(table(anything()), "via: pillion-test")?),
        (
            "normal",
            http(
                table(anything()),
                "normalize_path: true
merge_slashes: true",
            )?,
        ),
        ("http10", http(table(anything()), "http_protocol_options: {accept_http_10: true}")?),
        ("impatient", http(table(anything()), "stream_idle_timeout: 0.3s")?),
        ("hurried", http(table(anything()), "request_timeout: 0.3s")?),
        (
            "no-port",
            http(
                table(vec![json!({
                    "name": "bare",
                    "domains": ["bare.test"],
                    "routes": [{"name": "bare", "match": {"prefix": "/"}, "route": {"cluster": "a"}}],
                })]),
                "strip_any_host_port: true",
            )?,
        ),
        ("mtls", mtls),
        ("tcp-echo", tcp("tcp-echo", "tcp")),
        ("tcp-refused", tcp("tcp-refused", "refused")),
        ("tcp-empty", tcp("tcp-empty", "empty")),
        ("tcp-unknown", tcp("tcp-unknown", "no-such-cluster")),
    ])
}

fn log(format: &str) -> Value {
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": format!("{DIR}/access.log"),
            "log_format": {"text_format_source": {"inline_string": format}},
        },
    }])
}

fn http(table: Value, log_more: &str, more: &str) -> anyhow::Result<Value> {
    let line = "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %ROUTE_NAME% %UPSTREAM_CLUSTER% \
                %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS_LONG% %ACCESS_LOG_TYPE%";
    let gap = if log_more.is_empty() { "" } else { " " };
    let line = format!("{line}{gap}{log_more}\n");
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": table,
        "access_log": log(&line),
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    if !more.is_empty() {
        yaml::merge(&mut manager, yaml::parse(more)?);
    }
    let name = "envoy.filters.network.http_connection_manager";
    Ok(json!({"filters": [{"name": name, "typed_config": manager}]}))
}

fn tcp(listener: &str, cluster: &str) -> Value {
    let line = format!(
        "{listener}.0 %RESPONSE_CODE% %RESPONSE_FLAGS% - %UPSTREAM_CLUSTER% - \
         %RESPONSE_FLAGS_LONG% %ACCESS_LOG_TYPE%\n"
    );
    json!({"filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp",
            "cluster": cluster,
            "access_log": log(&line),
        },
    }]})
}
