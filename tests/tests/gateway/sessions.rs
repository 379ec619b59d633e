//! Sessions that stay at their endpoint.

use http::Method;
use pillion_tests::client::{self, Answer, Ask};
use pillion_tests::port::Port;

use super::{Running, backend, gateway, service};

const ROUTES: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: front}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /cookie}}]
    sessionPersistence: {sessionName: seat, type: Cookie}
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /header}}]
    sessionPersistence: {type: Header}
    backendRefs: [{name: web, port: 80}]
  - backendRefs: [{name: web, port: 80}]
---
";

#[tokio::test]
async fn a_session_stays_at_its_endpoint() -> anyhow::Result<()> {
    let mut apps = Vec::new();
    for name in ["one", "two", "three", "four"] {
        apps.push(backend(name).await?);
    }
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let port = Port::reserve()?;
    let front = gateway(&format!("  - {{name: http, port: {}, protocol: HTTP}}", port.number()));
    let text = format!("{front}{ROUTES}{}", service("web", &addresses));
    let _running = Running::start(&text).await?;
    let get = async |path: &str, header: Option<(&str, &str)>| -> anyhow::Result<Answer> {
        let mut ask = Ask::new(Method::GET, path);
        ask.host = "web.test".to_owned();
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        ask.headers = header.map(own).into_iter().collect();
        client::send(port.address(), &ask).await
    };
    let at = |answer: &Answer| answer.header("x-endpoint").map(str::to_owned);

    let first = get("/cookie", None).await?;
    let cookie = first.header("set-cookie").unwrap_or_default().to_owned();
    assert!(cookie.starts_with("seat=") && cookie.ends_with("; HttpOnly"), "{first:?}");
    let pair = cookie.split(';').next().unwrap_or_default();
    for _ in 0..8 {
        let again = get("/cookie/deeper", Some(("cookie", pair))).await?;
        assert_eq!((at(&again), again.header("set-cookie")), (at(&first), None));
    }

    let first = get("/header", None).await?;
    let place = first.header("pillion-session").unwrap_or_default().to_owned();
    assert!(!place.is_empty(), "{first:?}");
    for _ in 0..8 {
        let again = get("/header", Some(("pillion-session", &place))).await?;
        assert_eq!(at(&again), at(&first));
    }

    let free = get("/", Some(("cookie", pair))).await?;
    assert_eq!((free.status, free.header("set-cookie")), (200, None));
    Ok(())
}
