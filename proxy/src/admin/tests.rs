use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tracing::level_filters::LevelFilter;

use super::*;
use crate::model::endpoint::Health;
use crate::model::listener::Address;
use crate::net::listen;
use crate::telemetry::stats::Registry;

#[derive(Default)]
struct Fake {
    registry: Registry,
    waiting_for: Mutex<Vec<String>>,
    done: Mutex<Vec<String>>,
    quit: Arc<Notify>,
}

impl Fake {
    fn note(&self, what: String) {
        self.done.lock().unwrap().push(what);
    }

    fn done(&self) -> Vec<String> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }
}

impl Source for Fake {
    fn readiness(&self) -> Readiness {
        let waiting_for = self.waiting_for.lock().unwrap().clone();
        let live = waiting_for.is_empty();
        let state = if live { ServerState::Live } else { ServerState::Initializing };
        Readiness { state, waiting_for }
    }

    fn registry(&self) -> Registry {
        self.registry.clone()
    }

    fn clusters(&self) -> Vec<ClusterView> {
        let mut host = HostView::new(Address::Socket("127.0.0.1:80".parse().unwrap()));
        (host.cx_active, host.rq_total) = (2, 7);
        (host.found.ejected, host.health) = (true, Health::Degraded);
        vec![ClusterView {
            name: "a".into(),
            observability_name: "alt".into(),
            added_via_api: true,
            eds_service_name: Some("a.default".into()),
            hosts: vec![host],
            ..ClusterView::default()
        }]
    }

    fn listeners(&self) -> Vec<ListenerView> {
        let address = Address::Socket("[::1]:15001".parse().unwrap());
        vec![ListenerView { name: "outbound".into(), address }]
    }

    fn config_dump(&self) -> Value {
        json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
             "dynamic_active_clusters": [{"cluster": {"name": "a"}}, {"cluster": {"name": "b"}}]},
            {"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
             "dynamic_endpoint_configs": [{"endpoint_config": {"cluster_name": "a"}}]},
        ]})
    }

    fn certs(&self) -> Value {
        json!({"certificates": []})
    }

    fn server_info(&self) -> ServerInfo {
        ServerInfo {
            version: "1.2.3".into(),
            state: ServerState::Live,
            uptime: Duration::from_millis(61_500),
            node: json!({"id": "n"}),
            command_line_options: json!({"concurrency": 2}),
        }
    }

    fn log_levels(&self) -> Vec<(String, LevelFilter)> {
        vec![("all".into(), LevelFilter::WARN)]
    }

    fn set_log_level(&self, logger: Option<&str>, level: LevelFilter) -> Result<(), String> {
        if logger == Some("nobody") {
            return Err("no logger nobody".into());
        }
        self.note(format!("{logger:?}={level}"));
        Ok(())
    }

    fn drain_listeners(&self, what: DrainListeners) {
        self.note(format!("{what:?}"));
    }

    fn fail_health_check(&self, fail: bool) {
        self.note(format!("fail {fail}"));
    }

    fn deregister(&self) {
        self.note("deregister".to_owned());
    }

    fn reopen_logs(&self) {
        self.note("reopen".to_owned());
    }

    fn quit(&self) {
        self.quit.notify_one();
    }
}

/// A server over loopback, ended by `/quitquitquit`.
struct Running {
    address: SocketAddr,
    source: Arc<Fake>,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    fn start() -> Self {
        let any = Address::Socket(([127, 0, 0, 1], 0).into());
        let listener = listen(&any, 16).unwrap();
        let Address::Socket(address) = *listener.address() else { panic!("{listener:?}") };
        let source = Arc::new(Fake::default());
        let shared = source.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let quit = shared.quit.clone();
            runtime.block_on(async move {
                let acceptor = listener.acceptor()?;
                serve(acceptor, shared, async move { quit.notified().await }).await
            })
        });
        Self { address, source, server: Some(server) }
    }

    /// Status, head and body.
    fn ask(&self, method: &str, path: &str, headers: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
        )
        .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask("GET", path, "");
        (status, body)
    }

    fn post(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask("POST", path, "content-length: 0\r\n");
        (status, body)
    }

    fn json(&self, path: &str) -> Value {
        let (status, head, body) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        assert!(head.contains("content-type: application/json"), "{head}");
        serde_json::from_str(&body).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.source.quit.notify_one();
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

#[test]
fn ready_says_what_it_waits_for() {
    let admin = Running::start();
    admin.source.waiting_for.lock().unwrap().push("clusters from the control plane".into());
    let (status, body) = admin.get("/ready");
    assert_eq!((status, body.as_str()), (503, "INITIALIZING\nclusters from the control plane\n"));
    admin.source.waiting_for.lock().unwrap().clear();
    assert_eq!(admin.get("/ready"), (200, "LIVE\n".into()));
}

#[test]
fn stats_in_all_forms() {
    let admin = Running::start();
    let scope = admin.source.registry.scope("cluster", Some(("envoy_cluster_name", "a".into())));
    let (total, _idle) = (scope.counter("upstream_rq_total"), scope.counter("upstream_cx_total"));
    total.add(5);
    let gone = scope.counter("gone");
    gone.inc();
    drop(gone);
    let flat = admin.get("/stats").1;
    assert_eq!(
        flat,
        "cluster.a.gone: 1\ncluster.a.upstream_cx_total: 0\ncluster.a.upstream_rq_total: 5\n"
    );
    assert_eq!(
        admin.get("/stats?usedonly&filter=upstream_%28rq%7Ccx%29_t&type=Counters").1,
        "cluster.a.upstream_rq_total: 5\n"
    );
    let json = admin.json("/stats?format=json&filter=rq_total$");
    assert_eq!(json, json!({"stats": [{"name": "cluster.a.upstream_rq_total", "value": 5}]}));
    let (_, head, body) = admin.ask("GET", "/stats/prometheus", "");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(body.contains("envoy_cluster_gone{envoy_cluster_name=\"a\"} 1\n"), "{body}");
    let (status, again) = admin.get("/stats?format=prometheus");
    assert_eq!(status, 200);
    assert!(again.contains("envoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\"} 5\n"));
    assert!(!again.contains("gone"), "what nobody counts stays no longer than a scrape: {again}");
    assert_eq!(admin.get("/stats?invert_filter&filter=total&type=Counters").1, "");
    assert_eq!(admin.get("/stats?type=TextReadouts").1, "");
    for bad in [
        "/stats?filter=(",
        "/stats?format=xml",
        "/stats?type=x",
        "/stats?histogram_buckets=x",
        "/stats/prometheus?histogram_buckets=disjoint",
    ] {
        assert_eq!(admin.get(bad).0, 400, "{bad}");
    }
    assert_eq!(admin.post("/reset_counters"), (200, "OK\n".into()));
    assert_eq!(total.get(), 0);
}

#[test]
fn clusters_and_listeners() {
    let admin = Running::start();
    let text = admin.get("/clusters").1;
    for line in [
        "a::observability_name::alt\n",
        "a::default_priority::max_connections::1024\n",
        "a::high_priority::max_retries::3\n",
        "a::added_via_api::true\n",
        "a::eds_service_name::a.default\n",
        "a::127.0.0.1:80::cx_active::2\n",
        "a::127.0.0.1:80::rq_total::7\n",
        "a::127.0.0.1:80::health_flags::/failed_outlier_check/degraded_eds_health\n",
        "a::127.0.0.1:80::success_rate::-1\n",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let json = admin.json("/clusters?format=json");
    let host = &json["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(
        host["address"]["socket_address"],
        json!({"address": "127.0.0.1", "port_value": 80})
    );
    assert_eq!(host["stats"][0], json!({"name": "cx_active", "type": "GAUGE", "value": "2"}));
    assert_eq!(host["health_status"]["failed_outlier_check"], true);
    assert_eq!(admin.get("/clusters?format=xml").0, 400);
    assert_eq!(admin.get("/clusters?filter=b"), (200, String::new()));
    assert_eq!(admin.get("/clusters?filter=(").0, 400);
    assert_eq!(admin.get("/listeners").1, "outbound::[::1]:15001\n");
    let listeners = admin.json("/listeners?format=json");
    let address = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    assert_eq!(address, &json!({"address": "::1", "port_value": 15001}));
}

#[test]
fn config_dump_is_narrowed_as_asked() {
    let admin = Running::start();
    let count = |path: &str| admin.json(path)["configs"].as_array().unwrap().len();
    assert_eq!(count("/config_dump"), 1);
    assert_eq!(count("/config_dump?include_eds"), 2);
    assert_eq!(count("/config_dump?resource=dynamic_active_clusters"), 2);
    let named = admin.json("/config_dump?resource=dynamic_active_clusters&name_regex=%5Eb");
    let kind = "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster";
    assert_eq!(named, json!({"configs": [{"@type": kind, "cluster": {"name": "b"}}]}));
    let named = admin.json("/config_dump?name_regex=%5Ea");
    assert_eq!(named["configs"][0]["dynamic_active_clusters"], json!([{"cluster": {"name": "a"}}]));
    assert_eq!(admin.get("/config_dump?resource=nothing").0, 404);
    assert_eq!(admin.get("/config_dump?mask=x").0, 400);
    let masked = admin.json("/config_dump?resource=dynamic_active_clusters&mask=cluster.name");
    assert_eq!(masked["configs"][1], json!({"@type": kind, "cluster": {"name": "b"}}));
    let nobody = admin.json("/config_dump?resource=dynamic_active_clusters&name_regex=nobody");
    assert_eq!(nobody, json!({}));
    assert_eq!(
        admin.json("/config_dump?include_eds&mask=dynamic_endpoint_configs"),
        json!({"configs": [
            {"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
             "dynamic_endpoint_configs": [{"endpoint_config": {"cluster_name": "a"}}]},
        ]})
    );
}

#[test]
fn facts_about_the_server() {
    let admin = Running::start();
    let info = admin.json("/server_info");
    assert_eq!(info["version"], "1.2.3");
    assert_eq!(info["state"], "LIVE");
    assert_eq!(info["uptime_current_epoch"], "61s");
    assert_eq!(info["node"]["id"], "n");
    assert_eq!(info["command_line_options"]["concurrency"], 2);
    assert_eq!(admin.json("/certs"), json!({"certificates": []}));
    assert_eq!(admin.json("/runtime"), json!({"layers": [], "entries": {}}));
    assert_eq!(admin.get("/hot_restart_version"), (200, "disabled".into()));
    let resident = admin.json("/memory")["total_physical_bytes"].as_str().unwrap().to_owned();
    assert!(resident.parse::<u64>().unwrap() > 100_000, "{resident}");
}

#[test]
fn what_does_not_apply_says_so() {
    let admin = Running::start();
    for path in ["/contention", "/heap_dump", "/peak_heap_dump", "/memory/tcmalloc"] {
        let (status, body) = admin.get(path);
        assert_eq!(status, 501, "{path}: {body}");
        assert!(body.contains("does not have this"), "{body}");
    }
    for path in ["/cpuprofiler", "/heapprofiler", "/allocprofiler", "/stats/recentlookups/enable"] {
        assert_eq!(admin.get(path).0, 405, "{path}");
        assert_eq!(admin.post(path).0, 501, "{path}");
    }
    assert_eq!(admin.get("/stats/recentlookups").0, 200);
    assert_eq!(admin.json("/init_dump"), json!({}));
    admin.source.waiting_for.lock().unwrap().push("clusters".into());
    let dump = admin.json("/init_dump");
    assert_eq!(dump["unready_targets_dumps"][0]["target_names"], json!(["clusters"]));
    assert_eq!(admin.get("/runtime_modify?a=b").0, 405);
    assert_eq!(admin.post("/runtime_modify").0, 400);
    assert_eq!(admin.post("/runtime_modify?a=b"), (503, "No admin layer specified".into()));
}

#[test]
fn changes_need_post() {
    let admin = Running::start();
    for path in [
        "/deregister",
        "/drain_listeners",
        "/healthcheck/fail",
        "/healthcheck/ok",
        "/quitquitquit",
        "/reopen_logs",
        "/reset_counters",
        "/logging",
    ] {
        let (status, body) = admin.get(path);
        assert_eq!((status, body), (405, "Method GET not allowed, POST required.".to_owned()));
    }
    assert_eq!(admin.ask("DELETE", "/stats", "").0, 405);
    assert!(admin.source.done().is_empty());
    let ok = (200, String::from("OK\n"));
    assert_eq!(admin.post("/healthcheck/fail"), ok);
    assert_eq!(admin.post("/healthcheck/ok"), ok);
    assert_eq!(admin.post("/drain_listeners?graceful&inboundonly"), ok);
    let what = DrainListeners { graceful: true, inbound_only: true, skip_exit: false };
    assert_eq!(admin.post("/reopen_logs"), ok);
    let done = ["fail true", "fail false", &format!("{what:?}"), "reopen"];
    assert_eq!(admin.source.done(), done);
}

#[test]
fn a_page_of_another_site_changes_nothing() {
    let admin = Running::start();
    let post = |origin: &str| {
        let headers = format!("content-length: 0\r\norigin: {origin}\r\n");
        admin.ask("POST", "/healthcheck/fail", &headers).0
    };
    assert_eq!(post("http://evil.example"), 403);
    assert_eq!(post("null"), 403);
    assert!(admin.source.done().is_empty());
    assert_eq!(post("http://localhost"), 200);
}

#[test]
fn log_levels_are_set_all_or_none() {
    let admin = Running::start();
    let list = (200, String::from("active loggers:\n  all: warning\n"));
    assert_eq!(admin.post("/logging"), list);
    assert!(admin.source.done().is_empty());
    assert_eq!(admin.post("/logging?level=debug"), list);
    assert_eq!(admin.post("/logging?paths=xds:trace,a::b:off"), list);
    assert_eq!(admin.post("/logging?net=critical"), list);
    assert_eq!(
        admin.source.done(),
        ["None=debug", "Some(\"xds\")=trace", "Some(\"a::b\")=off", "Some(\"net\")=error"]
    );
    assert_eq!(admin.post("/logging?xds=info&level=loud").0, 400);
    assert_eq!(admin.post("/logging?paths=xds").0, 400);
    assert!(admin.source.done().is_empty());
    assert_eq!(admin.post("/logging?nobody=info"), (400, "no logger nobody\n".into()));
}

#[test]
fn unknown_paths_get_the_list() {
    let admin = Running::start();
    let (status, body) = admin.get("/nope");
    assert_eq!(status, 404);
    assert!(body.starts_with("invalid path. admin commands are:\n"), "{body}");
    let (_, help) = admin.get("/help");
    assert_eq!(body, format!("invalid path. {help}"));
    for command in ["/config_dump: ", "/quitquitquit (POST): ", "/stats/prometheus: "] {
        assert!(help.contains(command), "{command} is missing in\n{help}");
    }
    let (status, head, home) = admin.ask("GET", "/", "");
    assert_eq!(status, 200);
    assert!(head.contains("text/html"), "{head}");
    assert!(home.contains("<a href=\"/clusters\">"), "{home}");
    let (status, _, body) = admin.ask("HEAD", "/ready", "");
    assert_eq!((status, body.as_str()), (200, ""));
}

#[test]
fn quit_is_answered_before_the_server_ends() {
    let mut admin = Running::start();
    // An idle connection must not hold it up.
    let idle = TcpStream::connect(admin.address).unwrap();
    assert_eq!(admin.post("/quitquitquit"), (200, "OK\n".into()));
    admin.server.take().unwrap().join().unwrap().unwrap();
    assert!(TcpStream::connect(admin.address).is_err());
    drop(idle);
}
