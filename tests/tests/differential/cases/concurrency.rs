//! Adaptive concurrency and admission control.

use std::sync::Arc;

use http::Method;
use pillion_tests::client::{self, Ask};
use pillion_tests::proxy::{Kind, envoy};
use pillion_tests::venv::optional;

use crate::differential::case::{Case, get, grpc};
use crate::differential::part::Part;
use crate::differential::same;
use crate::differential::world::{Trust, World};

const ADMISSION: &str = "
- name: admission
  disabled: true
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.admission_control.v3.AdmissionControl
    enabled: {default_value: true, runtime_key: admission}
    sampling_window: 100s
    max_rejection_probability: {default_value: {value: 0}, runtime_key: never}
    success_criteria: {http_criteria: {http_success_status: [{start: 200, end: 300}, {start: 404, end: 405}]},
      grpc_criteria: {grpc_success_status: [0, 5]}}
- name: defaults
  disabled: true
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.admission_control.v3.AdmissionControl
    sampling_window: 100s
    max_rejection_probability: {default_value: {value: 0}, runtime_key: never}
    success_criteria: {}";

#[tokio::test]
async fn admission_control() -> anyhow::Result<()> {
    let on = |name: &str| -> &'static str {
        let config = format!(
            "typed_per_filter_config: {{{name}: {{'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {{}}}}}}"
        );
        let text = format!(
            "{{routes: [
                {{name: g, match: {{prefix: /test.Echo}}, route: {{cluster: h2}}, {config}}},
                {{name: down, match: {{prefix: /down}}, route: {{cluster: refused}}, {config}}},
                {{name: r, match: {{prefix: /}}, route: {{cluster: a}}, {config}}}]}}"
        );
        Box::leak(text.into_boxed_str())
    };
    let cases = |name, of| {
        Case::new(name, on(of))
            .ask(get("/"), "200 - r a")
            .ask(get("/").does("status=404"), "404 - r a")
            .ask(get("/").does("status=400"), "400 - r a")
            .ask(get("/").does("status=503"), "503 - r a")
            .ask(get("/down"), "503 UF down refused")
            .ask(grpc("hello"), "200 - g h2")
            .ask(grpc("hello").does("grpc=5"), "200 - g h2")
            .ask(grpc("hello").does("grpc=14"), "200 - g h2")
            .ask(grpc("hello").does("grpc-trailer=0"), "200 - g h2")
            .ask(grpc("hello").does("grpc-trailer=5"), "200 - g h2")
            .ask(grpc("hello").does("grpc-trailer=13"), "200 - g h2")
    };
    same(Part {
        cases: vec![
            cases("admission by criteria", "admission"),
            cases("admission by default", "defaults"),
        ],
        filters: ADMISSION,
        metrics: &["http.http.admission_control"],
        ..Part::default()
    })
    .await
}

/// So many requests at once are let through while the time without load is not known yet.
const AT_ONCE: usize = 2;

const ADAPTIVE: &str = "
- name: adaptive
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency
    concurrency_limit_exceeded_status: {code: TooManyRequests}
    gradient_controller_config:
      concurrency_limit_params: {concurrency_update_interval: 100s, max_concurrency_limit: 7}
      min_rtt_calc_params: {interval: 1000s, request_count: 3, min_concurrency: 2, jitter: {value: 0}}";

#[tokio::test]
async fn adaptive_concurrency() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let trust = Arc::new(Trust::new()?);
    for kind in [Kind::Envoy, Kind::Pillion] {
        let case =
            Case::new("waits", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}");
        let part = Part { cases: vec![case], filters: ADAPTIVE, ..Part::default() };
        let world = World::start(kind, &part, Arc::clone(&trust)).await?;
        let address = world.listener("http")?;
        let ask = |script: &str| {
            let mut ask = Ask::new(Method::GET, "/");
            ask.host = "waits.test".to_owned();
            ask.headers.push(("x-do".to_owned(), script.to_owned()));
            ask
        };
        let slow = ask("hang");
        let held: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let slow = slow.clone();
                tokio::spawn(async move { client::send(address, &slow).await })
            })
            .collect();
        world.settles("http.http.downstream_rq_active", AT_ONCE as u64).await?;
        let refused = client::send(address, &ask("")).await?;
        assert_eq!(refused.status, 429, "{kind:?}: as many as may be are under way");
        assert!(refused.text().contains("reached concurrency limit"), "{kind:?}");
        held.iter().for_each(tokio::task::JoinHandle::abort);
        world.settles("http.http.downstream_rq_active", 0).await?;
        let metrics = "http.http.adaptive_concurrency.gradient_controller";
        let of = |name: &str| format!("{metrics}.{name}");
        let mut found = world.metrics(&[metrics]).await?;
        assert_eq!(found.remove(&of("rq_blocked")), Some(1), "{kind:?}: {found:?}");
        assert_eq!(found.remove(&of("concurrency_limit")), Some(2), "{kind:?}: {found:?}");
        assert_eq!(found.remove(&of("min_rtt_calculation_active")), Some(1), "{kind:?}: {found:?}");
        // After three answers the time without load is known.
        for _ in 0..3 {
            assert_eq!(client::send(address, &ask("")).await?.status, 200);
        }
        let known = of("min_rtt_calculation_active");
        world.settles(&known, 0).await?;
    }
    Ok(())
}
