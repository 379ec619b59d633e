//! Secrets from a server of their own, as SPIRE and istio-agent serve them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::ca::{Ca, Leaf, spiffe};
use pillion_tests::client::{self, Ask};
use pillion_tests::mesh::{ask, reaches};
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy};
use pillion_tests::venv::program;
use pillion_tests::wait;
use pillion_tests::xds_server::{self, XdsServer, source};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{SECRETS, cluster, listener, proxies, table};

/// What the server has, of this authority.
fn secrets(dir: &Path, ca: &Ca, leaf: &Leaf) -> anyhow::Result<Value> {
    let files = ca.write(dir, "secret", leaf)?;
    let inline = |path| anyhow::Ok(json!({"inline_string": std::fs::read_to_string(path)?}));
    Ok(json!({SECRETS: [
        {"name": "server", "tls_certificate": {
            "certificate_chain": inline(files.chain)?,
            "private_key": inline(files.key)?,
        }},
        {"name": "roots", "validation_context": {"trusted_ca": inline(files.roots)?}},
    ]}))
}

/// Both sides of mTLS, with the same secrets.
fn tls(side: &str, from: &Value) -> Value {
    let sds = |name: &str| json!({"name": name, "sds_config": from});
    let mut context = json!({
        "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}"),
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [sds("server")],
            "validation_context_sds_secret_config": sds("roots"),
        },
    });
    if side == "DownstreamTlsContext" {
        context["require_client_certificate"] = json!(true);
    }
    json!({"name": "tls", "typed_config": context})
}

/// A listener that speaks mTLS before `app`, and a plain one that leads to it over mTLS.
fn bootstrap(
    (inner, outer): (SocketAddr, SocketAddr),
    app: &Backend,
    sds: Value,
    from: &Value,
) -> Bootstrap {
    let mut secure = listener(inner, "route_config", table("inner", "app"));
    secure["filter_chains"][0]["transport_socket"] = tls("DownstreamTlsContext", from);
    secure["name"] = json!("inner");
    let plain = listener(outer, "route_config", table("outer", "secure"));
    let mut over_tls = json!({
        "name": "secure",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "secure", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": pillion_tests::proxy::socket_address(inner)}},
        ]}]},
    });
    over_tls["transport_socket"] = tls("UpstreamTlsContext", from);
    Bootstrap::of(vec![secure, plain], vec![sds, cluster("app", app), over_tls])
}

/// First messages of all streams: method and names.
fn asked(server: &XdsServer, from: usize) -> BTreeSet<String> {
    let first = |one: &&Value| one["answers"] == false;
    let heard = server.heard();
    let lines = heard.iter().skip(from).filter(first);
    lines.map(|one| format!("{} {} {}", one["method"], one["names"], one["node"])).collect()
}

async fn connect(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
) -> anyhow::Result<(TlsStream<TcpStream>, Vec<u8>)> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost")?;
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
    let peer = stream.get_ref().1.peer_certificates().context("no certificate")?;
    let leaf = peer.first().context("no certificate")?.to_vec();
    Ok((stream, leaf))
}

async fn one_more(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: any\r\n\r\n").await?;
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("\r\n\r\n") {
        let n = stream.read(&mut buffer).await?;
        ensure!(n > 0, "the connection was closed");
        seen.extend_from_slice(&buffer[..n]);
    }
    ensure!(seen.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&seen));
    Ok(())
}

/// What the server heard of one proxy, in the order of the story.
async fn story(kind: Kind, api_type: &str, over_unix: bool) -> anyhow::Result<BTreeSet<String>> {
    let dir = tempfile::tempdir()?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let [inner, outer, port] = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let socket = dir.path().join("sds.sock");
    let (address, sds) = if over_unix {
        (format!("unix:{}", socket.display()), xds_server::cluster_at("sds", &socket))
    } else {
        (port.address().to_string(), xds_server::cluster("sds", port.address()))
    };
    let server = XdsServer::start(dir.path(), &[address], &json!({})).await?;
    let from = source("sds", api_type);
    let both = (inner.address(), outer.address());
    let proxy = Proxy::spawn(kind, bootstrap(both, &app, sds, &from))?;

    // Nothing is served before the secrets are there.
    let waits = proxy.process.ready("both secrets are asked for", || async {
        (asked(&server, 0).len() >= 2).then_some(())
    });
    waits.await?;
    let early = ask(both.1, "any", "/").await;
    ensure!(!early.is_ok_and(|answer| answer.status == 200), "served without secrets");
    let ca = Ca::new("first")?;
    let leaf = ca.leaf(&spiffe("server"))?;
    server.serve(&secrets(dir.path(), &ca, &leaf)?)?;
    reaches(both.1, "any", "app").await?;
    let first = asked(&server, 0);

    // They rotate, authority and all; open connections stay.
    let me = ca.client(Some(&leaf), &["http/1.1"])?;
    let (mut open, shown) = connect(both.0, &me).await?;
    one_more(&mut open).await?;
    let next = Ca::new("second")?;
    let renewed = next.leaf(&spiffe("server"))?;
    server.serve(&secrets(dir.path(), &next, &renewed)?)?;
    let me = next.client(Some(&renewed), &["http/1.1"])?;
    let rotated = wait::until("new connections show the new certificate", || async {
        let (mut stream, now) = connect(both.0, &me).await.ok()?;
        one_more(&mut stream).await.ok()?;
        (now != shown).then_some(())
    });
    rotated.await?;
    one_more(&mut open).await?;
    let through = wait::until("the way through is there again", || async {
        reaches(both.1, "any", "app").await.ok()
    });
    through.await?;

    // Without the server the last secrets stay.
    drop(server);
    let mut ask = Ask::new(Method::GET, "/");
    ask.host = "any".to_owned();
    ask.tls = Some(me);
    let answer = client::send(both.0, &ask).await?;
    ensure!(answer.status == 200, "{}", answer.status);
    reaches(both.1, "any", "app").await?;
    let log = proxy.process.log();
    ensure!(!log.contains("PRIVATE KEY"), "a key is in the log");
    let dump = client::get(proxy.admin, "/config_dump").await?.text();
    ensure!(!dump.contains("PRIVATE KEY") && dump.contains("\"server\""), "{dump}");
    Ok(first)
}

#[test]
fn the_example_with_a_spire_agent_is_right() -> anyhow::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/envoy/spire.yaml");
    let mut command = Command::new(program("pillion-proxy")?);
    let output = command.arg("-c").arg(file).args(["--mode", "validate"]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test]
async fn secrets_come_over_a_unix_socket_and_rotate() -> anyhow::Result<()> {
    let mut heard = Vec::new();
    for kind in proxies()? {
        heard.push(story(kind, "GRPC", true).await.with_context(|| format!("{kind:?}"))?);
    }
    ensure!(heard.windows(2).all(|pair| pair[0] == pair[1]), "{heard:#?}");
    Ok(())
}

#[tokio::test]
async fn secrets_come_in_delta_over_tcp_and_rotate() -> anyhow::Result<()> {
    let mut heard = Vec::new();
    for kind in proxies()? {
        heard.push(story(kind, "DELTA_GRPC", false).await.with_context(|| format!("{kind:?}"))?);
    }
    ensure!(heard.windows(2).all(|pair| pair[0] == pair[1]), "{heard:#?}");
    Ok(())
}
