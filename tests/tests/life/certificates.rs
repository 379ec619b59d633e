//! Certificates that are wrong, and certificates that are renewed.

use std::process::Command;
use std::sync::Arc;

use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::ca::{Ca, spiffe};
use pillion_tests::client::{self, Ask};
use pillion_tests::mesh::ask;
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Proxy};
use pillion_tests::venv::program;
use pillion_tests::wait;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{client_tls, cluster, listener, server_tls};

/// What `pillion-proxy` says about a listener with this TLS, and how it ends.
fn validated(tls: Value) -> anyhow::Result<(bool, String)> {
    let dir = tempfile::tempdir()?;
    let mut front = listener("front", "127.0.0.1:1".parse()?, "app");
    front["filter_chains"][0]["transport_socket"] = tls;
    let config = serde_json::json!({
        "static_resources": {
            "listeners": [front],
            "clusters": [cluster("app", "127.0.0.1:2".parse()?)],
        },
    });
    let file = dir.path().join("bootstrap.json");
    std::fs::write(&file, config.to_string())?;
    let run = |more: &[&str]| -> anyhow::Result<(bool, String)> {
        let mut command = Command::new(program("pillion-proxy")?);
        let output = command.arg("-c").arg(&file).args(more).output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
    };
    let (fine, said) = run(&["--mode", "validate"])?;
    // What is refused when it is checked does not start either.
    let (starts, also_said) = run(&[])?;
    anyhow::ensure!(
        fine == starts,
        "checked: {said}
started: {also_said}"
    );
    Ok((fine, said + &also_said))
}

#[test]
fn unusable_files_are_named() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = Ca::new("right")?;
    let good = ca.write(dir.path(), "good", &ca.leaf(&spiffe("server"))?)?;
    let other = ca.write(dir.path(), "other", &ca.leaf(&spiffe("server"))?)?;
    let mut mixed = good.clone();
    mixed.key = other.key;
    let (fine, said) = validated(server_tls(&mixed, false))?;
    assert!(!fine && said.contains("other-key.pem") && said.contains("match"), "{said}");

    let mut empty = good.clone();
    empty.chain = dir.path().join("empty.pem");
    std::fs::write(&empty.chain, "nothing here")?;
    let (fine, said) = validated(server_tls(&empty, false))?;
    assert!(!fine && said.contains("empty.pem") && said.contains("PEM"), "{said}");

    let mut missing = good;
    missing.key = dir.path().join("missing.pem");
    let (fine, said) = validated(server_tls(&missing, false))?;
    assert!(!fine && said.contains("missing.pem") && said.contains("No such file"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_peer_that_is_not_who_it_should_be_is_named() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = Ca::new("right")?;
    let right = ca.leaf(&spiffe("server"))?;
    let files = ca.write(dir.path(), "right", &right)?;
    let mut clusters = Vec::new();
    let mut listeners = Vec::new();
    let mut backends = Vec::new();
    let mut ports = Vec::new();
    for (name, leaf, expected) in [
        ("fine", ca.leaf(&spiffe("server"))?, "server"),
        ("wrong", ca.leaf(&spiffe("server"))?, "payments"),
        ("expired", ca.expired(&spiffe("server"))?, "server"),
    ] {
        let tls = ca.server(&leaf, false, &["http/1.1"])?;
        let backend = Backend::with(name, Speaks::Http1, Some(tls), Arc::default()).await?;
        let mut cluster = cluster(name, backend.address);
        cluster["transport_socket"] = client_tls(&files, &spiffe(expected));
        clusters.push(cluster);
        let port = Port::reserve()?;
        listeners.push(listener(name, port.address(), name));
        ports.push(port);
        backends.push(backend);
    }
    let addresses: Vec<_> = ports.iter().map(Port::address).collect();
    let mut bootstrap = Bootstrap::of(listeners, clusters);
    ports.into_iter().for_each(|port| bootstrap.hold(port));
    let _proxy = Proxy::pillion(bootstrap).await?;

    assert_eq!(ask(addresses[0], "any", "/").await?.status, 200);
    let wrong = ask(addresses[1], "any", "/").await?;
    let text = wrong.text();
    assert_eq!(wrong.status, 503, "{text}");
    assert!(text.contains(&spiffe("server")) && text.contains(&spiffe("payments")), "{text}");
    let expired = ask(addresses[2], "any", "/").await?;
    assert_eq!(expired.status, 503);
    assert!(expired.text().contains("expired"), "{}", expired.text());
    // The good one is not touched by it.
    assert_eq!(ask(addresses[0], "any", "/").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn renewed_certificates_drop_no_connection() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = Ca::new("right")?;
    let files = ca.write(dir.path(), "server", &ca.leaf(&spiffe("server"))?)?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let port = Port::reserve()?;
    let address = port.address();
    let mut front = listener("front", address, "app");
    front["filter_chains"][0]["transport_socket"] = server_tls(&files, false);
    let mut bootstrap = Bootstrap::of(vec![front], vec![cluster("app", app.address)]);
    bootstrap.hold(port);
    let _proxy = Proxy::pillion(bootstrap).await?;

    let config = ca.client(None, &["http/1.1"])?;
    let mut open = connect(address, &config).await?;
    let first = certificate(&open);
    assert!(exchange(&mut open).await?.starts_with("HTTP/1.1 200"));

    ca.write(dir.path(), "server", &ca.leaf(&spiffe("server"))?)?;
    let renewed = || async {
        let connection = connect(address, &config).await.ok()?;
        (certificate(&connection) != first).then_some(())
    };
    wait::until("new connections see the new certificate", renewed).await?;
    // The connection from before goes on.
    assert!(exchange(&mut open).await?.starts_with("HTTP/1.1 200"));

    // Half of a rotation is not taken: the old pair stays.
    std::fs::write(&files.chain, "no certificate")?;
    let mut again = Ask::new(Method::GET, "/");
    again.host = "any".to_owned();
    again.tls = Some(config);
    for _ in 0..20 {
        assert_eq!(client::send(address, &again).await?.status, 200);
    }
    Ok(())
}

async fn connect(
    address: std::net::SocketAddr,
    config: &Arc<ClientConfig>,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost")?;
    Ok(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?)
}

fn certificate(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let (_, session) = stream.get_ref();
    session
        .peer_certificates()
        .and_then(|all| all.first())
        .map(|one| one.to_vec())
        .unwrap_or_default()
}

/// One keep-alive request; the head of its answer.
async fn exchange(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: any\r\n\r\n").await?;
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).await?;
        anyhow::ensure!(n > 0, "the connection was closed");
        read.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|text| text.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            return Ok(text);
        }
    }
}
