//! Which route answers: hosts of listeners and routes, precedence over several routes, redirects, the edge.

use http::Method;
use pillion_tests::backend::Backend;
use pillion_tests::client::{self, Ask};
use pillion_tests::port::Port;

use super::{Running, ask, backend, gateway, service};

const ROUTES: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: front, sectionName: shop}]
  rules:
  - matches: [{path: {value: /}}]
    backendRefs: [{name: shop, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart}
spec:
  parentRefs: [{name: front, sectionName: shop}]
  hostnames: [www.shop.test, elsewhere.test]
  rules:
  - matches: [{path: {value: /cart}}]
    backendRefs: [{name: cart, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: cart-special}
spec:
  parentRefs: [{name: front, sectionName: shop}]
  hostnames: [www.shop.test]
  rules:
  - matches: [{path: {value: /cart}, headers: [{name: x-special, value: \"1\"}]}]
    backendRefs: [{name: shop, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: rest}
spec:
  parentRefs: [{name: front, port: PORT, sectionName: rest}]
  rules:
  - backendRefs: [{name: rest, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: to-https}
spec:
  parentRefs: [{name: front, sectionName: rest}]
  hostnames: [old.test]
  rules:
  - filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}]
  - matches: [{path: {value: /moved}}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: new.test}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: hsts}
spec:
  parentRefs: [{name: front, sectionName: rest}]
  hostnames: [hsts.test]
  rules:
  - filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier: {set: [{name: Strict-Transport-Security, value: max-age=31536000}]}
    backendRefs: [{name: rest, port: 80}]
---
";

/// A gateway with two listeners on one port, the routes, and what they lead to.
struct Edge {
    port: Port,
    _backends: [Backend; 3],
    _running: Running,
}

impl Edge {
    async fn start() -> anyhow::Result<Self> {
        let backends = [backend("shop").await?, backend("cart").await?, backend("rest").await?];
        let port = Port::reserve()?;
        let number = port.number();
        let mut text = gateway(&format!(
            "  - {{name: shop, port: {number}, protocol: HTTP, hostname: \"*.shop.test\"}}
  - {{name: rest, port: {number}, protocol: HTTP}}"
        ));
        for one in &backends {
            text += &service(&one.name, &[one.address]);
        }
        text += &ROUTES.replace("PORT", &number.to_string());
        let running = Running::start(&text).await?;
        Ok(Self { port, _backends: backends, _running: running })
    }
}

#[tokio::test]
async fn the_most_specific_listener_host_and_match_answers() -> anyhow::Result<()> {
    let edge = Edge::start().await?;
    let gateway = edge.port.address();
    for (host, path, expected) in [
        ("x.shop.test", "/", "shop"),
        ("X.Shop.Test:8080", "/cart", "shop"),
        ("www.shop.test", "/cart/1", "cart"),
        // The most specific host has its own routes only.
        ("www.shop.test", "/else", "404"),
        ("shop.test", "/cart", "rest"),
        // The route's other host is none of its listener's.
        ("elsewhere.test", "/cart", "rest"),
        ("anything", "/", "rest"),
    ] {
        let answer = ask(gateway, host, path).await?;
        let found =
            answer.header("x-endpoint").map_or_else(|| answer.status.to_string(), str::to_owned);
        assert_eq!(found, expected, "{host}{path}: {answer:?}");
    }
    let mut special = Ask::new(Method::GET, "/cart");
    special.host = "www.shop.test".to_owned();
    special.headers = vec![("x-special".to_owned(), "1".to_owned())];
    let answer = client::send(gateway, &special).await?;
    assert_eq!(answer.header("x-endpoint"), Some("shop"), "more headers come first");
    Ok(())
}

#[tokio::test]
async fn redirects_and_the_edge() -> anyhow::Result<()> {
    let edge = Edge::start().await?;
    let (gateway, number) = (edge.port.address(), edge.port.number());

    let moved = ask(gateway, &format!("old.test:{number}"), "/a?b=c").await?;
    assert_eq!(moved.status, 301);
    assert_eq!(moved.header("location"), Some("https://old.test:443/a?b=c"));
    let moved = ask(gateway, &format!("old.test:{number}"), "/moved").await?;
    assert_eq!(moved.status, 302);
    assert_eq!(moved.header("location"), Some(&*format!("http://new.test:{number}/moved")));
    let safe = ask(gateway, "hsts.test", "/").await?;
    assert_eq!(safe.header("strict-transport-security"), Some("max-age=31536000"));

    // What strangers say about themselves does not count.
    let mut forged = Ask::new(Method::GET, "/a//b/../c");
    forged.host = "rest.test".to_owned();
    forged.headers = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-client-cert", "URI=spiffe://shop.local/ns/default/sa/admin"),
        ("x-envoy-internal", "true"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let answer = client::send(gateway, &forged).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = answer.text();
    assert!(seen.contains(r#""target":"/a/c""#), "{seen}");
    assert!(seen.contains(r#"["x-forwarded-for","6.6.6.6,127.0.0.1"]"#), "{seen}");
    assert!(seen.contains(r#"["x-forwarded-proto","http"]"#), "{seen}");
    assert!(!seen.contains("spiffe://"), "{seen}");

    let mut odd = Ask::new(Method::GET, "/");
    odd.host = "rest.test".to_owned();
    odd.headers = vec![("x_forwarded_for".to_owned(), "1".to_owned())];
    assert_eq!(client::send(gateway, &odd).await?.status, 400, "underscores are refused");
    let slashes = ask(gateway, "rest.test", "/a%2fb").await?;
    assert_eq!((slashes.status, slashes.header("location")), (307, Some("/a/b")));
    Ok(())
}
