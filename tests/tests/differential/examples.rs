//! The configurations that the README shows, as they stand in `examples/`, on both proxies: only
//! their ports, paths and the host outside are exchanged for those of the test.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::ensure;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use pillion_tests::backend::{Backend, Ledger, Speaks};
use pillion_tests::ca::Ca;
use pillion_tests::client::{self, Ask};
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, envoy};
use pillion_tests::venv::{optional, program};
use tempfile::TempDir;

/// An example with other words in it.
struct Example {
    text: String,
    ports: Vec<Port>,
}

impl Example {
    fn new(name: &str) -> anyhow::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        Ok(Self { text: std::fs::read_to_string(folder.join(name))?, ports: Vec::new() })
    }

    /// Every `old`, of which there must be one.
    fn with(mut self, old: &str, new: &str) -> anyhow::Result<Self> {
        ensure!(self.text.contains(old), "no `{old}` in the example");
        self.text = self.text.replace(old, new);
        Ok(self)
    }

    /// A port of the test's own in place of this one; returns its number.
    fn own_port(mut self, old: u16) -> anyhow::Result<Self> {
        let port = Port::reserve()?;
        self =
            self.with(&format!("port_value: {old} "), &format!("port_value: {} ", port.number()))?;
        self.ports.push(port);
        Ok(self)
    }

    fn port(mut self, old: u16, new: u16) -> anyhow::Result<Self> {
        self = self.with(&format!("port_value: {old} "), &format!("port_value: {new} "))?;
        Ok(self)
    }

    /// Starts it; the address of the first port that was exchanged is where to ask.
    async fn start(self, kind: Kind) -> anyhow::Result<(Proxy, std::net::SocketAddr)> {
        let at = self.ports.first().map(Port::address);
        let mut bootstrap = Bootstrap::new(&self.text)?;
        self.ports.into_iter().for_each(|port| bootstrap.hold(port));
        let proxy = Proxy::start(kind, bootstrap).await?;
        Ok((proxy, at.expect("a port was exchanged")))
    }
}

fn ask(method: Method, host: &str, path: &str) -> Ask {
    let mut ask = Ask::new(method, path);
    host.clone_into(&mut ask.host);
    ask
}

const BOTH: [Kind; 2] = [Kind::Envoy, Kind::Pillion];

#[tokio::test]
async fn the_front_proxy() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    for kind in BOTH {
        let ledger = Ledger::default();
        let one = Backend::with("one", Speaks::Http1, None, Arc::clone(&ledger)).await?;
        let two = Backend::with("two", Speaks::Http1, None, ledger).await?;
        let example = Example::new("front.yaml")?
            .own_port(8080)?
            .port(8081, one.address.port())?
            .port(8082, two.address.port())?;
        let (_proxy, at) = example.start(kind).await?;
        let about = client::send(at, &ask(Method::GET, "any", "/about")).await?;
        ensure!(about.text() == "a front proxy\n", "{kind:?}: {}", about.text());
        for _ in 0..10 {
            let answer = client::send(at, &ask(Method::GET, "any", "/")).await?;
            ensure!(answer.status == 200, "{kind:?}: {}", answer.status);
        }
        ensure!(one.connections() > 0 && two.connections() > 0, "{kind:?}: one got everything");
    }
    Ok(())
}

/// `certs/` as the README makes it.
fn certificates() -> anyhow::Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let pillion = |args: &[&str]| -> anyhow::Result<()> {
        let mut command = Command::new(program("pillion")?);
        let output = command.current_dir(dir.path()).arg("ca").args(args).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    pillion(&["init", "--data-dir", "ca", "--trust-domain", "shop.local"])?;
    for account in ["shop", "catalog", "stranger"] {
        let out = format!("certs/{account}");
        pillion(&["issue", "--data-dir", "ca", "--service-account", account, "--out", &out])?;
    }
    Ok(dir)
}

#[tokio::test]
async fn the_sidecar_with_mtls() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let dir = certificates()?;
    let folder = format!("filename: {}/certs/", dir.path().display());
    let app = Backend::start("app", Speaks::Http1).await?;
    for kind in BOTH {
        let example = |shop: &str| {
            Example::new("envoy/sidecar.yaml")?
                .own_port(15001)?
                .own_port(15006)?
                .port(8080, app.address.port())?
                .with("filename: certs/", &folder)?
                .with("/certs/shop/", &format!("/certs/{shop}/"))
        };
        let (_proxy, at) = example("shop")?.start(kind).await?;
        let answer = client::send(at, &ask(Method::GET, "catalog", "/")).await?;
        ensure!(answer.status == 200, "{kind:?}: {} {}", answer.status, answer.text());
        let seen = answer.text();
        ensure!(seen.contains("spiffe://shop.local/ns/default/sa/shop"), "{kind:?}: {seen}");
        let post = client::send(at, &ask(Method::POST, "catalog", "/")).await?;
        ensure!(post.status == 403, "{kind:?}: a POST got {}", post.status);
        let other = client::send(at, &ask(Method::GET, "orders", "/")).await?;
        ensure!(other.status == 404, "{kind:?}: another host got {}", other.status);

        // Another identity of the same authority is not let in.
        let (_proxy, at) = example("stranger")?.start(kind).await?;
        let answer = client::send(at, &ask(Method::GET, "catalog", "/")).await?;
        ensure!(answer.status == 403, "{kind:?}: a stranger got {}", answer.status);
    }
    Ok(())
}

#[tokio::test]
async fn the_way_out_with_tls() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let (ca, other) = (Ca::new("public")?, Ca::new("other")?);
    let named = ca.leaf_for(&["localhost"])?;
    let roots = ca.write(dir.path(), "named", &named)?.roots;
    let imposter = other.leaf_for(&["localhost"])?;
    let tls = |ca: &Ca, leaf| ca.server(leaf, false, &["http/1.1"]);
    let ledger = Ledger::default();
    let outside = tls(&ca, &named)?;
    let outside =
        Backend::with("outside", Speaks::Http1, Some(outside), Arc::clone(&ledger)).await?;
    let imposter = tls(&other, &imposter)?;
    let imposter = Backend::with("imposter", Speaks::Http1, Some(imposter), ledger).await?;
    for kind in BOTH {
        let example = |to: &Backend| {
            Example::new("egress.yaml")?
                .own_port(8888)?
                .port(443, to.address.port())?
                .with("/etc/ssl/certs/ca-certificates.crt", &roots.to_string_lossy())?
                .with("example.com", "localhost")
        };
        let (_proxy, at) = example(&outside)?.start(kind).await?;
        let mut request = ask(Method::GET, "localhost", "/");
        request.headers.push(("x-internal".to_owned(), "secret".to_owned()));
        let answer = client::send(at, &request).await?;
        ensure!(answer.status == 200, "{kind:?}: {} {}", answer.status, answer.text());
        ensure!(answer.header("x-endpoint") == Some("outside"), "{kind:?}: {}", answer.text());
        ensure!(!answer.text().contains("secret"), "{kind:?}: {}", answer.text());
        let answer = client::send(at, &ask(Method::GET, "elsewhere.example", "/")).await?;
        ensure!(answer.status == 403, "{kind:?}: another host got {}", answer.status);

        // A certificate of an authority that nobody trusts.
        let (_proxy, at) = example(&imposter)?.start(kind).await?;
        let answer = client::send(at, &ask(Method::GET, "localhost", "/")).await?;
        ensure!(answer.status == 503, "{kind:?}: an imposter got {}", answer.status);
    }
    Ok(())
}

/// A token with these claims beside issuer and audience, by the secret of `keys.json`.
fn token(keys: &Path, more: &str) -> anyhow::Result<String> {
    let set: serde_json::Value = serde_json::from_slice(&std::fs::read(keys)?)?;
    let secret = URL_SAFE_NO_PAD.decode(set["keys"][0]["k"].as_str().unwrap_or_default())?;
    let claims = format!(
        r#"{{"iss":"https://login.example","aud":"shop","exp":4000000000,"sub":"joe"{more}}}"#
    );
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"example"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag)))
}

#[tokio::test]
async fn the_proxy_that_asks_for_tokens() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/envoy/keys.json");
    let (joe, admin) = (token(&keys, "")?, token(&keys, r#","role":"admin""#)?);
    let server = Backend::start("server", Speaks::Http1).await?;
    for kind in BOTH {
        let (_proxy, at) = Example::new("envoy/tokens.yaml")?
            .own_port(8080)?
            .port(8081, server.address.port())?
            .with("filename: keys.json", &format!("filename: {}", keys.display()))?
            .start(kind)
            .await?;
        for (path, token, status) in [
            ("/", None, 401),
            ("/health", None, 200),
            ("/", Some("bad"), 401),
            ("/", Some(joe.as_str()), 200),
            ("/admin", Some(&joe), 403),
            ("/admin", Some(&admin), 200),
            ("//admin", Some(&joe), 403),
        ] {
            let mut request = ask(Method::GET, "any", path);
            // Whoever claims to be somebody in a header is not believed.
            request.headers.push(("x-role".to_owned(), "admin".to_owned()));
            if let Some(token) = token {
                request.headers.push(("authorization".to_owned(), format!("Bearer {token}")));
            }
            let answer = client::send(at, &request).await?;
            ensure!(answer.status == status, "{kind:?}: {path}: {}", answer.status);
        }
    }
    Ok(())
}
