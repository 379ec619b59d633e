//! The filter that answers checks of the proxy itself, while the proxy is told to fail.

use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client::{self, Ask};
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, envoy, socket_address};
use pillion_tests::venv::optional;

const CONFIG: &str = "
node: {id: own, cluster: shop}
static_resources:
  listeners:
  - name: http
    address: @LISTENER@
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          route_config:
            name: all
            virtual_hosts:
            - {name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: app}}]}
          http_filters:
          - name: own
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
              pass_through_mode: false
              headers: [{name: ':path', string_match: {exact: /own}}]
          - name: through
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck
              pass_through_mode: true
              headers: [{name: ':path', string_match: {exact: /through}}]
          - name: router
            typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: app
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: @APP@}}]}]
";

/// Status and the headers of health, by path, before the proxy is told to fail, then, and after it.
async fn play(kind: Kind) -> anyhow::Result<Vec<String>> {
    let app = Backend::start("app", Speaks::Http1).await?;
    let port = Port::reserve()?;
    let listener = port.address();
    let text = CONFIG
        .replace("@LISTENER@", &socket_address(listener).to_string())
        .replace("@APP@", &socket_address(app.address).to_string());
    let mut bootstrap = Bootstrap::new(&text)?;
    bootstrap.hold(port);
    let proxy = Proxy::start(kind, bootstrap).await?;
    let mut lines = Vec::new();
    for told in ["", "/healthcheck/fail", "/healthcheck/ok"] {
        if !told.is_empty() {
            client::send(proxy.admin, &Ask::new(Method::POST, told)).await?;
        }
        for path in ["/own", "/through", "/other"] {
            let answer = client::get(listener, path).await?;
            let of = |name: &str| answer.header(name).unwrap_or("-").to_owned();
            lines.push(format!(
                "{told} {path} {} {} {}",
                answer.status,
                of("x-envoy-upstream-healthchecked-cluster"),
                of("x-envoy-immediate-health-check-fail")
            ));
        }
    }
    Ok(lines)
}

#[tokio::test]
async fn both_fail_when_they_are_told_to() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let (theirs, ours) = tokio::try_join!(play(Kind::Envoy), play(Kind::Pillion))?;
    assert_eq!(theirs, ours);
    assert_eq!(theirs[0], " /own 200 shop -");
    assert_eq!(theirs[3], "/healthcheck/fail /own 503 shop true");
    assert_eq!(theirs[5], "/healthcheck/fail /other 200 - true");
    Ok(())
}
