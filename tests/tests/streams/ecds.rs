//! HTTP filters whose settings come from elsewhere (ECDS).

use anyhow::{Context, ensure};
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client::{self, Answer};
use pillion_tests::mesh::ask;
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, socket_address};
use pillion_tests::wait;
use pillion_tests::xds_server::{self, XdsServer, source};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{EXTENSIONS, cluster, listener, proxies, table};

const MUTATION: &str =
    "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
const BUFFER: &str = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer";

/// Settings that put this into the answer's header `mark`.
fn marks(text: &str) -> Value {
    json!({
        "@type": MUTATION,
        "mutations": {"response_mutations": [{"append": {
            "header": {"key": "mark", "value": text},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }}]},
    })
}

fn serving(marked: Option<&str>, other: Value) -> Value {
    let marked = marked.map(|text| json!({"name": "marked", "typed_config": marks(text)}));
    let other = json!({"name": "default", "typed_config": other});
    json!({EXTENSIONS: marked.into_iter().chain([other]).collect::<Vec<_>>()})
}

/// One more answer on a connection that stays open; its header `mark`.
async fn on(stream: &mut TcpStream) -> anyhow::Result<Option<String>> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: any\r\n\r\n").await?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let field = |name: &str| {
                head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
            };
            let length = field("content-length: ").and_then(|text| text.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Ok(field("mark: "));
            }
        }
        let n = stream.read(&mut buffer).await?;
        ensure!(n > 0, "the connection was closed");
        seen.extend_from_slice(&buffer[..n]);
    }
}

async fn until(port: &Port, what: &str, is: impl Fn(&Answer) -> bool) -> anyhow::Result<Answer> {
    wait::until(what, || async {
        ask(port.address(), "any", "/").await.ok().filter(|answer| is(answer))
    })
    .await
}

async fn story(kind: Kind) -> anyhow::Result<Vec<String>> {
    let dir = tempfile::tempdir()?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let [front, port] = [Port::reserve()?, Port::reserve()?];
    let from = source("ecds", "DELTA_GRPC");
    let mut made = listener(front.address(), "route_config", table("all", "app"));
    let filters = &mut made["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    let router = filters[0].take();
    *filters = json!([
        {"name": "marked", "config_discovery":
            {"config_source": from, "type_urls": [MUTATION]}},
        {"name": "default", "config_discovery": {
            "config_source": from,
            "type_urls": [MUTATION],
            "default_config": {
                "@type": MUTATION,
                "mutations": {"response_mutations":
                    [{"append": {"header": {"key": "default", "value": "yes"}}}]},
            },
            "apply_default_config_without_warming": true,
        }},
        router,
    ]);
    let at = [port.address().to_string()];
    // Of another type than is expected: it is refused, and the default holds.
    let wrong = json!({"@type": BUFFER, "max_request_bytes": 5});
    let server = XdsServer::start(dir.path(), &at, &serving(Some("one"), wrong.clone())).await?;
    let clusters = vec![xds_server::cluster("ecds", port.address()), cluster("app", &app)];
    let proxy = Proxy::start(kind, Bootstrap::of(vec![made], clusters)).await?;
    let marked = |text: &'static str| move |answer: &Answer| answer.header("mark") == Some(text);
    let answer = until(&front, "the first settings hold", marked("one")).await?;
    ensure!(answer.header("default") == Some("yes"), "{:?}", answer.headers);
    let nack = proxy.process.ready("the wrong type is refused", || async {
        server.heard().into_iter().find(|one| one["error"].as_str().is_some_and(|e| !e.is_empty()))
    });
    nack.await?;

    // New settings hold for the next request of a connection that is open already.
    let mut open = TcpStream::connect(front.address()).await?;
    ensure!(on(&mut open).await?.as_deref() == Some("one"));
    server.serve(&serving(Some("two"), marks("not last")))?;
    until(&front, "the second settings hold", marked("two")).await?;
    ensure!(on(&mut open).await?.as_deref() == Some("two"));
    let answer = until(&front, "the default is gone", |answer| answer.header("default").is_none());
    answer.await?;

    // Without settings and without a default, requests are refused.
    server.serve(&serving(None, marks("not last")))?;
    until(&front, "nobody is served", |answer| answer.status == 500).await?;
    server.serve(&serving(Some("three"), wrong))?;
    let last = until(&front, "the third settings hold", marked("three")).await?;
    ensure!(last.status == 200);
    let stats = client::get(proxy.admin, "/stats?filter=extension_config_discovery").await?.text();
    let reloads = |name: &str| {
        let line = format!("extension_config_discovery.http_filter.{name}");
        stats.lines().filter(|one| one.contains(&line)).map(str::to_owned).collect::<Vec<_>>()
    };
    let counted = [reloads("marked.config_reload"), reloads("default.config_fail")].concat();
    let dump = client::get(proxy.admin, "/config_dump?resource=ecds_filters").await?.text();
    ensure!(dump.contains("three"), "{dump}");
    Ok(counted)
}

#[tokio::test]
async fn settings_come_change_go_and_come_back_on_open_connections() -> anyhow::Result<()> {
    for kind in proxies()? {
        let counted = story(kind).await.with_context(|| format!("{kind:?}"))?;
        ensure!(counted.iter().any(|line| line.ends_with("reload: 4")), "{kind:?} {counted:?}");
    }
    Ok(())
}

/// A listener that cannot do without its settings waits for them.
#[tokio::test]
async fn a_listener_waits_for_settings_and_no_longer_than_it_is_told() -> anyhow::Result<()> {
    for kind in proxies()? {
        let dir = tempfile::tempdir()?;
        let app = Backend::start("app", Speaks::Http1).await?;
        let [front, port] = [Port::reserve()?, Port::reserve()?];
        let mut from = source("ecds", "GRPC");
        from["initial_fetch_timeout"] = json!("0.5s");
        let mut made = listener(front.address(), "route_config", table("all", "app"));
        let filters = &mut made["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
        let router = filters[0].take();
        *filters = json!([
            {"name": "marked", "config_discovery":
                {"config_source": from, "type_urls": [MUTATION]}},
            router,
        ]);
        made["address"] = socket_address(front.address());
        let at = [port.address().to_string()];
        let server = XdsServer::start(dir.path(), &at, &json!({})).await?;
        let clusters = vec![xds_server::cluster("ecds", port.address()), cluster("app", &app)];
        let proxy = Proxy::start(kind, Bootstrap::of(vec![made], clusters)).await?;
        let refused = until(&front, "it gives up", |answer| answer.status == 500);
        refused.await.with_context(|| format!("{kind:?}"))?;
        server.serve(&serving(Some("late"), marks("not last")))?;
        let served = until(&front, "late is better than never", |answer| answer.status == 200);
        let served = served.await.with_context(|| format!("{kind:?}"))?;
        ensure!(served.header("mark") == Some("late"), "{kind:?} {:?}", served.headers);
        drop(proxy);
    }
    Ok(())
}

/// Rules for everybody.
fn rules(action: &str) -> Value {
    let everybody = json!({"permissions": [{"any": true}], "principals": [{"any": true}]});
    json!({"action": action, "policies": {"everybody": everybody}})
}

#[tokio::test]
async fn what_a_route_says_holds_for_a_filter_that_comes_from_elsewhere() -> anyhow::Result<()> {
    for kind in proxies()? {
        let dir = tempfile::tempdir()?;
        let app = Backend::start("app", Speaks::Http1).await?;
        let [front, port] = [Port::reserve()?, Port::reserve()?];
        let mut routes = table("all", "app");
        let routes_of_all = &mut routes["virtual_hosts"][0]["routes"];
        let mut closed = routes_of_all[0].clone();
        closed["match"] = json!({"prefix": "/closed"});
        closed["typed_per_filter_config"] = json!({"rules": {
            "@type": format!("{RBAC}PerRoute"),
            "rbac": {"rules": rules("DENY")},
        }});
        *routes_of_all = json!([closed, routes_of_all[0].clone()]);
        let mut made = listener(front.address(), "route_config", routes);
        let filters = &mut made["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
        let router = filters[0].take();
        let from = source("ecds", "DELTA_GRPC");
        let discovery = json!({"config_source": from, "type_urls": [RBAC]});
        *filters = json!([{"name": "rules", "config_discovery": discovery}, router]);
        let settings = json!({"@type": RBAC, "rules": rules("ALLOW")});
        let served = json!({EXTENSIONS: [{"name": "rules", "typed_config": settings}]});
        let server = XdsServer::start(dir.path(), &[port.address().to_string()], &served).await?;
        let clusters = vec![xds_server::cluster("ecds", port.address()), cluster("app", &app)];
        let proxy = Proxy::start(kind, Bootstrap::of(vec![made], clusters)).await?;
        until(&front, "the settings are there", |answer| answer.status == 200).await?;
        let closed = ask(front.address(), "any", "/closed").await?;
        ensure!(closed.status == 403, "{kind:?}: {}", closed.status);
        drop((proxy, server));
    }
    Ok(())
}
