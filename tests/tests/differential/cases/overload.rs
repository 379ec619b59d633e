//! The overload manager: what is done when things become scarce. How scarce they are stands in a
//! file (`injected_resource`), or the limit is so low that it is passed at once.

use std::path::Path;
use std::sync::Arc;

use http::Method;
use pillion_tests::client::Ask;
use pillion_tests::proxy::{Kind, envoy};
use pillion_tests::venv::optional;
use pillion_tests::{client, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::differential::case::{Case, get, grpc, post};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;
use crate::differential::world::{Trust, World};

const ROUTE: &str = "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}],
    response_headers_to_add: [{header: {key: x-of-host, value: 'yes'}}]}";

/// A listener of its own, with a name for its metrics; `MORE` is about the listener.
const LISTENER: &str = "
- name: mine
  stat_prefix: mine
  MORE
  filter_chains:
  - filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: mine
        access_log:
        - name: file
          typed_config:
            '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
            path: '@DIR@/access.log'
            log_format: {text_format_source: {inline_string: \"%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %ROUTE_NAME% %UPSTREAM_CLUSTER% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS_LONG% %ACCESS_LOG_TYPE%\\n\"}}
        route_config: {virtual_hosts: [{name: v, domains: ['*'], routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}]}
        http_filters: [{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]";

const METRICS: &[&str] = &[
    "overload.envoy.overload_actions",
    "overload.envoy.load_shed_points",
    "overload.envoy.resource_monitors.injected_resource",
    "http.http.downstream_rq_overload_close",
    "http.http.downstream_cx_overload",
    "http.http.downstream_rq_5xx",
    "listener.mine.downstream_cx_overload_reject",
];

const ON_PURPOSE: OnPurpose = &[(
    "",
    "headers: only envoy {} | only ours {connection: close}",
    "its body was not read: nobody knows how much more would come",
)];

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn listener(more: &str) -> &'static str {
    leaked(LISTENER.replace("MORE", more))
}

/// `actions` or `loadshed_points` by the pressure in a file.
fn by_file(file: &Path, rest: &str) -> &'static str {
    leaked(format!(
        "{{overload_manager: {{refresh_interval: 0.01s, resource_monitors: [
            {{name: envoy.resource_monitors.injected_resource, typed_config: {{
                '@type': type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig,
                filename: '{}'}}}}], {rest}}}}}",
        file.display()
    ))
}

fn action(name: &str, trigger: &str) -> String {
    format!(
        "{{name: envoy.overload_actions.{name}, triggers: [
            {{name: envoy.resource_monitors.injected_resource, {trigger}}}]}}"
    )
}

/// Envoy looks at the file again when another is moved to its place.
fn put(file: &Path, pressure: &str) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, pressure)?;
    Ok(std::fs::rename(new, file)?)
}

#[tokio::test]
async fn overload_stops_requests() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("pressure");
    put(&file, "0.95\n")?;
    let actions = [
        action("stop_accepting_requests", "threshold: {value: 0.95}"),
        action("disable_http_keepalive", "threshold: {value: 0.96}"),
        action("shrink_heap", "scaled: {scaling_threshold: 0.45, saturation_threshold: 1.0}"),
    ];
    same(Part {
        cases: vec![
            Case::new("no request is taken", ROUTE)
                .ask(get("/"), "503 - - -")
                .ask(get("/").http2(), "503 - - -")
                .ask(post("/", "content"), "503 - - -")
                .ask(get("/").header("content-type", "application/grpc"), "200 - - -")
                .ask(grpc("hello"), "200 - - -")
                .ask(get("/"), "503 - - -"),
            Case::plain("a listener that it leaves alone").ask(get("/").on("mine"), "200 - r a"),
        ],
        filters: "
- {name: m, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation,
    mutations: {response_mutations: [{append: {header: {key: x-filter, value: 'yes'}}}]}}}",
        listeners: listener("bypass_overload_manager: true"),
        bootstrap: by_file(&file, &format!("actions: [{}]", actions.join(", "))),
        settled: &[("overload.envoy.overload_actions.stop_accepting_requests.active", 1)],
        metrics: METRICS,
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

#[tokio::test]
async fn overload_sheds_load_at_points() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("pressure");
    put(&file, "0.5")?;
    let point = |name: &str, trigger: &str| {
        let action = action(name, trigger);
        action.replace("envoy.overload_actions.", "envoy.load_shed_points.")
    };
    let points = [
        point("http_connection_manager_decode_headers", "threshold: {value: 0.5}"),
        point("tcp_listener_accept", "threshold: {value: 0.6}"),
    ];
    same(Part {
        cases: vec![
            Case::new("load is shed", ROUTE)
                .ask(get("/"), "503 - - -")
                .ask(get("/").http2(), "503 - - -"),
        ],
        manager: "append_local_overload: true",
        bootstrap: by_file(&file, &format!("loadshed_points: [{}]", points.join(", "))),
        settled: &[(
            "overload.envoy.load_shed_points.http_connection_manager_decode_headers.scale_percent",
            100,
        )],
        metrics: METRICS,
        ..Part::default()
    })
    .await
}

#[tokio::test]
async fn overload_by_memory_ends_connections() -> anyhow::Result<()> {
    same(Part {
        cases: vec![
            Case::new("the last request of a connection", ROUTE)
                .ask(get("/"), "200 - r a")
                .ask(get("/").http2(), "200 - r a")
                .ask(post("/", "content"), "200 - r a")
                .ask(get("/").does("status=503"), "503 - r a")
                .ask(grpc("hello"), "200 - r a"),
        ],
        bootstrap: "{overload_manager: {refresh_interval: 0.01s, resource_monitors: [
            {name: envoy.resource_monitors.fixed_heap, typed_config: {
                '@type': type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig,
                max_heap_size_bytes: 1}}],
            actions: [{name: envoy.overload_actions.disable_http_keepalive, triggers: [
                {name: envoy.resource_monitors.fixed_heap, threshold: {value: 1.0}}]}]}}",
        settled: &[("overload.envoy.overload_actions.disable_http_keepalive.active", 1)],
        metrics: METRICS,
        ..Part::default()
    })
    .await
}

#[tokio::test]
async fn overload_rejects_connections() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("pressure");
    put(&file, "1")?;
    let reject = action(
        "reject_incoming_connections",
        "scaled: {scaling_threshold: 0.5, saturation_threshold: 0.9}",
    );
    same(Part {
        cases: vec![
            Case::plain("no connection is taken")
                .ask(get("/").on("mine"), "no answer")
                .ask(get("/").on("mine").http2(), "no answer"),
        ],
        listeners: listener(""),
        bootstrap: by_file(&file, &format!("actions: [{reject}]")),
        settled: &[("overload.envoy.overload_actions.reject_incoming_connections.active", 1)],
        metrics: METRICS,
        ..Part::default()
    })
    .await
}

/// What comes and goes: connections wait while none are accepted, timeouts shrink, a limit of
/// connections is there for all.
#[tokio::test]
async fn overload_comes_and_goes() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let trust = Arc::new(Trust::new()?);
    for kind in [Kind::Envoy, Kind::Pillion] {
        accepting(kind, &trust).await?;
        timeouts(kind, &trust).await?;
        connections(kind, &trust).await?;
    }
    Ok(())
}

async fn accepting(kind: Kind, trust: &Arc<Trust>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("pressure");
    put(&file, "1")?;
    let stop = action("stop_accepting_connections", "threshold: {value: 0.9}");
    let part = Part {
        listeners: listener(""),
        bootstrap: by_file(&file, &format!("actions: [{stop}]")),
        settled: &[("overload.envoy.overload_actions.stop_accepting_connections.active", 1)],
        ..Part::default()
    };
    let world = World::start(kind, &part, Arc::clone(trust)).await?;
    let address = world.listener("mine")?;
    // The kernel takes it, and nobody else.
    let mut waiting = TcpStream::connect(address).await?;
    waiting.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
    put(&file, "0")?;
    world.settles("overload.envoy.overload_actions.stop_accepting_connections.active", 0).await?;
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(
        world.metrics(&["listener.mine.downstream_cx_total"]).await?.values().sum::<u64>(),
        1
    );
    Ok(())
}

async fn timeouts(kind: Kind, trust: &Arc<Trust>) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("pressure");
    put(&file, "0")?;
    let reduce = "{name: envoy.overload_actions.reduce_timeouts, triggers: [
        {name: envoy.resource_monitors.injected_resource, scaled: {scaling_threshold: 0.5, saturation_threshold: 1.0}}],
        typed_config: {'@type': type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig,
            timer_scale_factors: [
                {timer: HTTP_DOWNSTREAM_CONNECTION_IDLE, min_timeout: 0.1s},
                {timer: HTTP_DOWNSTREAM_STREAM_IDLE, min_scale: {value: 10}},
                {timer: TRANSPORT_SOCKET_CONNECT, min_scale: {value: 10}}]}}";
    let part = Part {
        listeners: listener(""),
        bootstrap: by_file(&file, &format!("actions: [{reduce}]")),
        ..Part::default()
    };
    let world = World::start(kind, &part, Arc::clone(trust)).await?;
    // An idle connection, which has an hour: it is closed when that shrinks.
    let mut idle = TcpStream::connect(world.listener("mine")?).await?;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await?;
    world.settles("http.mine.downstream_rq_completed", 1).await?;
    put(&file, "1")?;
    let mut answer = String::new();
    idle.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    world.settles("http.mine.downstream_cx_idle_timeout", 1).await
}

async fn connections(kind: Kind, trust: &Arc<Trust>) -> anyhow::Result<()> {
    let free = LISTENER.replace("mine", "free").replace("MORE", "ignore_global_conn_limit: true");
    let part = Part {
        listeners: leaked(LISTENER.replace("MORE", "") + &free),
        bootstrap: "{overload_manager: {refresh_interval: 0.01s, resource_monitors: [
            {name: envoy.resource_monitors.global_downstream_max_connections, typed_config: {
                '@type': type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig,
                max_active_downstream_connections: 1}}]},
            admin: {ignore_global_conn_limit: true}}",
        ..Part::default()
    };
    let world = World::start(kind, &part, Arc::clone(trust)).await?;
    let (first, other) = (world.listener("mine")?, world.listener("http")?);
    let free = world.listener("free")?;
    let held = TcpStream::connect(first).await?;
    world.settles("listener.mine.downstream_cx_active", 1).await?;
    let mut one_more = TcpStream::connect(first).await?;
    let _ = one_more.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = one_more.read_to_end(&mut answer).await;
    assert_eq!(answer, b"", "there is no place for a second one");
    world.settles("listener.mine.downstream_global_cx_overflow", 1).await?;
    let mut ask = Ask::new(Method::GET, "/");
    ask.host = "nowhere.test".to_owned();
    // Whoever does not count is always welcome.
    assert_eq!(client::send(free, &ask).await?.status, 200);
    drop(held);
    let served = || async { client::send(other, &ask).await.ok() };
    let answer = wait::until("its place is free", served).await?;
    assert_eq!(answer.status, 404);
    Ok(())
}
