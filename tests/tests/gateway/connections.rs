//! Connections that are passed on: TLS by server name, and TCP. The same gateway as a bootstrap for Envoy.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::ca::Ca;
use pillion_tests::client::{self, Ask};
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy};
use pillion_tests::venv::program;
use pillion_tests::wait;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::tls::{ask_tls, secret};
use super::{Running, backend, gateway, service};

fn connections(kind: &str, name: &str, section: &str, hosts: &str, to: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}}}
spec: {{parentRefs: [{{name: front, sectionName: {section}}}], {hosts} rules: [{{backendRefs: [{{name: {to}, port: 80}}]}}]}}
---
"
    )
}

#[tokio::test]
async fn tls_and_tcp_are_passed_on() -> anyhow::Result<()> {
    let ca = Ca::new("public")?;
    let mut text = String::new();
    let mut backends = Vec::new();
    for name in ["a", "b"] {
        let tls = ca.server(&ca.leaf_for(&[&format!("{name}.test")])?, false, &["http/1.1"])?;
        let one = Backend::with(name, Speaks::Http1, Some(tls), Arc::default()).await?;
        text += &service(name, &[one.address]);
        text += &connections("TLSRoute", name, "tls", &format!("hostnames: [{name}.test],"), name);
        backends.push(one);
    }
    let echo = Backend::start("echo", Speaks::Tcp).await?;
    text += &service("echo", &[echo.address]);
    text += &connections("TCPRoute", "echo", "tcp", "", "echo");
    let (tls, tcp) = (Port::reserve()?, Port::reserve()?);
    text += &gateway(&format!(
        "  - {{name: tls, port: {}, protocol: TLS, hostname: \"*.test\", tls: {{mode: Passthrough}}}}
  - {{name: tcp, port: {}, protocol: TCP}}",
        tls.number(),
        tcp.number()
    ));
    let _running = Running::start(&text).await?;
    let trust = ca.client(None, &["http/1.1"])?;
    for name in ["a", "b"] {
        let host = format!("{name}.test");
        let answer = ask_tls(tls.address(), (&host, &host), Arc::clone(&trust)).await?;
        assert_eq!(answer.header("x-endpoint"), Some(name));
    }
    assert!(ask_tls(tls.address(), ("c.test", "c.test"), trust).await.is_err());
    let mut stream = BufReader::new(TcpStream::connect(tcp.address()).await?);
    let mut hello = String::new();
    stream.read_line(&mut hello).await?;
    assert_eq!(hello, "hello\n", "the server speaks first");
    stream.write_all(b"ping").await?;
    let mut pong = [0; 4];
    stream.read_exact(&mut pong).await?;
    assert_eq!(&pong, b"ping");
    Ok(())
}

#[tokio::test]
async fn one_bad_certificate_does_not_take_the_others_with_it() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = Ca::new("public")?;
    let good = ca.write(dir.path(), "a", &ca.leaf_for(&["a.test"])?)?;
    let bad = ca.write(dir.path(), "b", &ca.leaf_for(&["b.test"])?)?;
    let app = backend("app").await?;
    let port = Port::reserve()?;
    let listeners = |both: bool| {
        let one = |name: &str| {
            format!(
                "  - {{name: {name}, port: {}, protocol: HTTPS, hostname: {name}.test, tls: {{certificateRefs: [{{name: {name}}}]}}}}\n",
                port.number()
            )
        };
        gateway(&if both { one("a") + &one("b") } else { one("a") })
    };
    let rest = secret("a", &good)
        + &secret("b", &bad)
        + &super::route("web", "", "web")
        + &service("web", &[app.address]);
    let running = Running::start_in(dir, &(listeners(false) + &rest)).await?;
    let whole = std::fs::read_to_string(&bad.key)?;
    std::fs::write(&bad.key, "no key")?;
    running.write(&(listeners(true) + &rest))?;
    running.says("b-key.pem").await?;
    let trust = ca.client(None, &["http/1.1"])?;
    let a = async || ask_tls(port.address(), ("a.test", "a.test"), Arc::clone(&trust)).await;
    let b = async || ask_tls(port.address(), ("b.test", "b.test"), Arc::clone(&trust)).await;
    assert_eq!(a().await?.status, 200);
    assert!(b().await.is_err());
    std::fs::write(&bad.key, whole)?;
    let repaired = || async { (b().await.ok()?.status == 200).then_some(()) };
    wait::until("the repaired certificate is taken up", repaired).await?;
    assert_eq!(a().await?.status, 200);
    Ok(())
}

/// What two proxies shall answer alike.
async fn answers(at: SocketAddr, secure: SocketAddr, ca: &Ca) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let http = [
        ("www.shop.test", "/"),
        ("WWW.shop.test:80", "/cart/1"),
        ("www.shop.test", "/cartoon"),
        ("shop.test", "/"),
        ("old.test", "/a?b=c"),
        ("www.shop.test", "/a/../cart//x"),
        ("www.shop.test", "/cart%2Fx"),
        ("limited.test", "/"),
        ("limited.test", "/"),
    ];
    let tell = |answer: &client::Answer| {
        let header = |name: &str| answer.header(name).unwrap_or("-").to_owned();
        let seen: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        format!(
            "{} {} {} {} {}",
            answer.status,
            header("x-endpoint"),
            header("location"),
            header("x-ratelimit-remaining"),
            seen["target"]
        )
    };
    for (host, path) in http {
        let answer = super::ask(at, host, path).await?;
        found.push(format!("{host}{path}: {}", tell(&answer)));
    }
    let mut odd = Ask::new(Method::GET, "/");
    odd.host = "www.shop.test".to_owned();
    odd.headers = vec![("x_y".to_owned(), "1".to_owned())];
    found.push(format!("underscore: {}", client::send(at, &odd).await?.status));
    for (name, host) in [("a.test", "a.test"), ("a.test", "other.test")] {
        let trust = ca.client(None, &["h2"])?;
        let answer = ask_tls(secure, (name, host), trust).await?;
        found.push(format!("{name} {host}: {}", tell(&answer)));
    }
    Ok(found)
}

const ROUTES: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: front}]
  hostnames: [\"*.shop.test\", a.test]
  rules:
  - backendRefs: [{name: shop, port: 80}]
  - matches: [{path: {value: /cart}}]
    backendRefs: [{name: cart, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: old}
spec:
  parentRefs: [{name: front, sectionName: http}]
  hostnames: [old.test]
  rules:
  - filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.test, statusCode: 301}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: limited}
spec:
  parentRefs: [{name: front, sectionName: http}]
  hostnames: [limited.test]
  rules:
  - backendRefs: [{name: shop, port: 80}]
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: limited}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: limited}]
  rateLimit: {requests: 1, per: 1h, by: {clientAddress: true}}
---
";

#[tokio::test]
async fn a_real_envoy_does_the_same_with_the_printed_bootstrap() -> anyhow::Result<()> {
    if let Err(error) = pillion_tests::proxy::envoy() {
        anyhow::ensure!(std::env::var_os("CI").is_none(), "{error:#}");
        eprintln!("passed over: {error:#}");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let ca = Ca::new("public")?;
    let files = ca.write(dir.path(), "a", &ca.leaf_for(&["a.test"])?)?;
    let backends = [backend("shop").await?, backend("cart").await?];
    let mut all = Vec::new();
    for kind in [Kind::Pillion, Kind::Envoy] {
        let (http, https) = (Port::reserve()?, Port::reserve()?);
        let mut text = gateway(&format!(
            "  - {{name: http, port: {}, protocol: HTTP}}
  - {{name: https, port: {}, protocol: HTTPS, hostname: a.test, tls: {{certificateRefs: [{{name: a}}]}}}}",
            http.number(),
            https.number()
        )) + ROUTES
            + &secret("a", &files);
        for one in &backends {
            text += &service(&one.name, &[one.address]);
        }
        let file = dir.path().join("gateway.yaml");
        std::fs::write(&file, text)?;
        let mut command = Command::new(program("pillion")?);
        let output =
            command.arg("gateway").arg("-f").arg(&file).arg("--print-bootstrap").output()?;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut bootstrap = Bootstrap::new(&String::from_utf8(output.stdout)?)?;
        let places = (http.address(), https.address());
        bootstrap.hold(http);
        bootstrap.hold(https);
        let proxy = Proxy::start(kind, bootstrap).await?;
        all.push(answers(places.0, places.1, &ca).await?);
        drop(proxy);
    }
    assert_eq!(all[0], all[1]);
    let text = all[0].join("\n");
    for expected in
        ["301 - https://new.test:443/a?b=c", "429", "421", "200 cart", "underscore: 400"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    Ok(())
}
