//! Rate limits of gateways, for all together and for each client.

use http::Method;
use pillion_tests::client::{self, Ask};
use pillion_tests::port::Port;
use pillion_tests::wait;

use super::{Running, ask, backend, gateway, route, service};

const POLICIES: &str = "apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: front}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: front}]
  rateLimit: {requests: 3, per: 1h, by: {header: x-user}}
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {name: address}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: address}]
  rateLimit: {requests: 1, per: 1h, burst: 2, by: {clientAddress: true}}
---
";

#[tokio::test]
async fn each_client_has_a_limit_of_its_own() -> anyhow::Result<()> {
    let app = backend("app").await?;
    let port = Port::reserve()?;
    let front = gateway(&format!("  - {{name: http, port: {}, protocol: HTTP}}", port.number()));
    let text = format!(
        "{front}{POLICIES}{}{}{}",
        route("web", "", "web"),
        route("address", "  hostnames: [address.test]", "web"),
        service("web", &[app.address])
    );
    let running = Running::start(&text).await?;
    let as_user = async |user: &str| {
        let mut ask = Ask::new(Method::GET, "/");
        ask.host = "web.test".to_owned();
        ask.headers = vec![("x-user".to_owned(), user.to_owned())];
        client::send(port.address(), &ask).await
    };
    for user in ["one", "two"] {
        for left in ["2", "1", "0"] {
            let answer = as_user(user).await?;
            assert_eq!((answer.status, answer.header("x-ratelimit-remaining")), (200, Some(left)));
            assert_eq!(answer.header("x-ratelimit-limit"), Some("3"));
        }
        let refused = as_user(user).await?;
        assert_eq!((refused.status, refused.header("x-ratelimit-remaining")), (429, Some("0")));
        let reset: u32 = refused.header("x-ratelimit-reset").unwrap_or_default().parse()?;
        assert!(reset > 0, "{refused:?}");
    }
    // Who does not say who he is, is one client with all others who do not.
    for expected in [200, 200, 200, 429] {
        assert_eq!(ask(port.address(), "web.test", "/").await?.status, expected);
    }
    // A route has a limit of its own.
    for expected in [200, 200, 429] {
        assert_eq!(ask(port.address(), "address.test", "/").await?.status, expected);
    }
    let stats = client::get(running.admin.address(), "/stats").await?.text();
    // Those of a route are counted under its name, those of the gateway under the gateway's.
    for line in [
        "default.front.http_local_rate_limit.rate_limited: 3",
        "default.address.0.http_local_rate_limit.rate_limited: 1",
    ] {
        assert!(stats.contains(line), "{stats}");
    }

    // Limits come and go without a new listener.
    let listeners = |stats: &str| {
        stats.lines().find(|line| line.contains("listener_modified")).map(str::to_owned)
    };
    let before = listeners(&stats);
    running.write(&text.replace(POLICIES, ""))?;
    let free = || async { (as_user("one").await.ok()?.status == 200).then_some(()) };
    wait::until("the limit is gone", free).await?;
    let stats = client::get(running.admin.address(), "/stats").await?.text();
    assert_eq!(listeners(&stats), before);
    Ok(())
}
