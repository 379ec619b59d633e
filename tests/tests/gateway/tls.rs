//! HTTPS: certificates by server name, renewal, and keys that nobody sees.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use base64::Engine;
use http::Method;
use pillion_tests::ca::{Ca, Files};
use pillion_tests::client::{self, Answer, Ask};
use pillion_tests::port::Port;
use pillion_tests::wait;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Running, backend, check, gateway, route, service};

pub(super) fn secret(name: &str, files: &Files) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata:
  name: {name}
  annotations: {{pillion.io/cert-file: {}, pillion.io/key-file: {}}}
type: kubernetes.io/tls
---
",
        files.chain.display(),
        files.key.display()
    )
}

pub(super) async fn ask_tls(
    gateway: SocketAddr,
    (server_name, host): (&str, &str),
    tls: Arc<ClientConfig>,
) -> anyhow::Result<Answer> {
    let mut ask = Ask::new(Method::GET, "/");
    ask.http2 = tls.alpn_protocols.iter().any(|name| name == b"h2");
    ask.tls = Some(tls);
    (ask.host, ask.server_name) = (host.to_owned(), server_name.to_owned());
    client::send(gateway, &ask).await
}

/// A connection that stays.
struct Kept(TlsStream<TcpStream>);

impl Kept {
    async fn open(gateway: SocketAddr, name: &str, tls: Arc<ClientConfig>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(gateway).await?;
        let name = ServerName::try_from(name.to_owned())?;
        Ok(Self(TlsConnector::from(tls).connect(name, stream).await?))
    }

    async fn ask(&mut self, host: &str) -> anyhow::Result<String> {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n");
        self.0.write_all(request.as_bytes()).await?;
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        loop {
            let count = self.0.read(&mut buffer).await?;
            anyhow::ensure!(count > 0, "the connection was closed: {text}");
            text += &String::from_utf8_lossy(&buffer[..count]);
            let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                length.and_then(|length| length.parse().ok()) == Some(body.len())
            });
            if whole {
                return Ok(text);
            }
        }
    }

    /// The certificate that the server showed.
    fn certificate(&self) -> anyhow::Result<Vec<u8>> {
        let shown = self.0.get_ref().1.peer_certificates().context("no certificate")?;
        Ok(shown.first().context("no certificate")?.to_vec())
    }
}

#[tokio::test]
async fn certificates_are_chosen_by_server_name_and_renewed_under_open_connections()
-> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = Ca::new("public")?;
    let first = ca.write(dir.path(), "a", &ca.leaf_for(&["a.test"])?)?;
    let second = ca.write(dir.path(), "b", &ca.leaf_for(&["b.test", "c.test"])?)?;
    let app = backend("app").await?;
    let port = Port::reserve()?;
    let number = port.number();
    let text = gateway(&format!(
        "  - {{name: a, port: {number}, protocol: HTTPS, hostname: a.test, tls: {{certificateRefs: [{{name: a}}]}}}}
  - {{name: rest, port: {number}, protocol: HTTPS, tls: {{certificateRefs: [{{name: a}}, {{name: b}}]}}}}"
    )) + &secret("a", &first)
        + &secret("b", &second)
        + &route("web", "", "web")
        + &service("web", &[app.address]);
    let running = Running::start_in(dir, &text).await?;
    let gateway = port.address();
    let http1 = ca.client(None, &["http/1.1"])?;
    let http2 = ca.client(None, &["h2"])?;
    for name in ["a.test", "b.test", "c.test"] {
        for tls in [&http1, &http2] {
            let answer = ask_tls(gateway, (name, name), Arc::clone(tls)).await?;
            assert_eq!((answer.status, answer.header("x-endpoint")), (200, Some("app")), "{name}");
            assert!(
                answer.text().contains(r#"["x-forwarded-proto","https"]"#),
                "{}",
                answer.text()
            );
        }
    }
    // A client that comes with another listener's host has to come again.
    let answer = ask_tls(gateway, ("a.test", "b.test"), Arc::clone(&http2)).await?;
    assert_eq!(answer.status, 421);
    let answer = ask_tls(gateway, ("b.test", "a.test"), Arc::clone(&http2)).await?;
    assert_eq!(answer.status, 421);

    let mut kept = Kept::open(gateway, "a.test", Arc::clone(&http1)).await?;
    assert!(kept.ask("a.test").await?.starts_with("HTTP/1.1 200"));
    let before = kept.certificate()?;
    ca.write(running.dir.path(), "a", &ca.leaf_for(&["a.test"])?)?;
    let renewed = || async {
        let fresh = Kept::open(gateway, "a.test", Arc::clone(&http1)).await.ok()?;
        (fresh.certificate().ok()? != before).then_some(())
    };
    wait::until("new connections see the new certificate", renewed).await?;
    for _ in 0..3 {
        assert!(
            kept.ask("a.test").await?.starts_with("HTTP/1.1 200"),
            "the old connection goes on"
        );
    }
    let certs = client::get(running.admin.address(), "/certs").await?.text();
    assert!(certs.contains("a.test"), "{certs}");
    Ok(())
}

#[tokio::test]
async fn keys_in_secrets_are_used_and_never_shown() -> anyhow::Result<()> {
    let ca = Ca::new("public")?;
    let leaf = ca.leaf_for(&["a.test"])?;
    let dir = tempfile::tempdir()?;
    let files = ca.write(dir.path(), "a", &leaf)?;
    let key = leaf.key_pem();
    let encoded = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let chain = std::fs::read_to_string(&files.chain)?;
    let app = backend("app").await?;
    let port = Port::reserve()?;
    let listener = format!(
        "  - {{name: a, port: {}, protocol: HTTPS, tls: {{certificateRefs: [{{name: a}}]}}}}",
        port.number()
    );
    let rest = route("web", "", "web") + &service("web", &[app.address]);
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: {}\n  tls.key: {}\n---\n",
        encoded(&chain),
        encoded(&key)
    );
    let running = Running::start(&format!("{}{secret}{rest}", gateway(&listener))).await?;
    let http1 = ca.client(None, &["http/1.1"])?;
    let answer = ask_tls(port.address(), ("a.test", "a.test"), http1).await?;
    assert_eq!(answer.status, 200);
    let body = key.lines().nth(1).context("a line of the key")?;
    let packed = encoded(&key);
    let hidden = |text: &str| !text.contains(body) && !text.contains(&packed[..40]);
    let dump = client::get(running.admin.address(), "/config_dump").await?.text();
    assert!(hidden(&dump) && dump.contains("certificate|default/a"), "{dump}");
    // A Secret that is wrong is told of without a word of what is in it.
    for (from, to) in [
        ("  tls.key: ", "  tls.key: ["),
        ("  tls.crt", "  tls.cert"),
        ("  tls.key: ", "  tls.key: '!"),
        ("type: kubernetes.io/tls", "type: kubernetes.io/tls\nstringdata: {}"),
    ] {
        let file = running.dir.path().join("bad.yaml");
        std::fs::write(&file, format!("{}{}{rest}", gateway(&listener), secret.replace(from, to)))?;
        let output = check(&file)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(hidden(&said) && said.contains("bad.yaml:"), "{said}");
    }
    assert!(hidden(&running.process.log()), "the log shows the key");
    Ok(())
}
