//! A mesh at full speed while everything about it changes: routes and policies ten times a second,
//! services and endpoints that come and go, certificates that are renewed.
//!
//! Ten seconds of it belong to every test run. `PILLION_SOAK_SECONDS=600` makes it the long one
//! (`.ci/soak`), which also holds that memory stays flat.

mod memory;

use std::time::{Duration, Instant};

use anyhow::ensure;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client::{self, Ask};
use pillion_tests::load::{Load, Style};
use pillion_tests::mesh::{Beside, Mesh, Sidecar};
use pillion_tests::wait;

use memory::Memory;

const SECONDS: u64 = 10;
const CHANGE_EVERY: Duration = Duration::from_millis(100);
/// The shortest that a certificate authority of ours gives; renewed at half of it.
const CERTIFICATE_TTL: &str = "60s";
/// From this length on, memory says something.
const MEMORY_COUNTS_FROM: u64 = 300;

const FIXED: &str = "apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: soak}
spec: {trustDomain: soak.local, mtls: Strict, outbound: RegistryOnly}
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: default}
spec: {selector: {app: catalog}, ports: [{port: 80, targetPort: main, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog-v1, namespace: default}
spec: {selector: {app: catalog, version: v1}, ports: [{port: 80, targetPort: main, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog-v2, namespace: default}
spec: {selector: {app: catalog, version: v2}, ports: [{port: 80, targetPort: main, appProtocol: http}]}
";

/// What changes, as it is after `turn` changes.
fn changing(turn: u64) -> String {
    let weight = turn % 101;
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: catalog, namespace: default}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: catalog, port: 80}}]
  rules:
  - filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {{set: [{{name: x-turn, value: \"{turn}\"}}]}}
    backendRefs: [{{name: catalog-v1, port: 80, weight: {weight}}}, {{name: catalog-v2, port: 80, weight: {}}}]
---
apiVersion: pillion.io/v1alpha1
kind: TrafficPolicy
metadata: {{name: catalog, namespace: default}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: catalog-v1}}]
  circuitBreaker: {{maxRequests: {}}}
",
        101 - weight,
        1000 + turn % 7,
    );
    // Others come and go.
    for other in 0..turn % 5 {
        text.push_str(&format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: other-{other}, namespace: default}}
spec: {{selector: {{app: other-{other}}}, ports: [{{port: 80, targetPort: main, appProtocol: http}}]}}
"
        ));
    }
    text
}

async fn post(sidecar: &Sidecar, path: &str) -> anyhow::Result<()> {
    let mut ask = Ask::new(http::Method::POST, path);
    ask.host = "admin".to_owned();
    let answer = client::send(sidecar.admin, &ask).await?;
    ensure!(answer.status == 200, "{path}: {}", answer.status);
    Ok(())
}

/// How many endpoints of the two versions a sidecar knows.
async fn endpoints(sidecar: &Sidecar) -> anyhow::Result<usize> {
    let text = client::get(sidecar.admin, "/clusters").await?.text();
    let of_version = |line: &&str| line.starts_with("catalog-v") && line.contains("::health_flags");
    Ok(text.lines().filter(of_version).count())
}

/// How often the configuration of a sidecar was taken up.
async fn updates(sidecar: &Sidecar) -> anyhow::Result<u64> {
    let stats = client::get(sidecar.admin, "/stats?filter=update_success").await?.text();
    let counts = stats.lines().filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

#[tokio::test]
async fn everything_changes_and_nothing_fails() -> anyhow::Result<()> {
    let asked = std::env::var("PILLION_SOAK_SECONDS").ok();
    let seconds = asked.map_or(Ok(SECONDS), |text| text.parse())?;
    let mut apps = Vec::new();
    let files = [("fixed.yaml", FIXED), ("changing.yaml", &changing(0))];
    let mesh = Mesh::start_flagged(&files, &["--certificate-ttl", CERTIFICATE_TTL]).await?;
    let mut servers = Vec::new();
    for (version, name) in [("v1", "a"), ("v1", "b"), ("v2", "c"), ("v2", "d")] {
        let app = Backend::start(name, Speaks::Http1).await?;
        let mut beside = Beside::new("catalog", version, app.address);
        beside.name = format!("catalog-{name}");
        servers.push(mesh.sidecar(&beside).await?);
        apps.push(app);
    }
    let client = mesh.sidecar(&Beside::client("shop")).await?;
    wait::until("the mesh answers", || async {
        let answer = client.ask("catalog", "/").await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await?;

    let styles = [Style::KeepAlive, Style::KeepAlive, Style::Http2, Style::Anew];
    let load = Load::start(client.outbound, "catalog", &styles);
    let begun = Instant::now();
    let before = updates(&client).await?;
    let mut memory =
        Memory::of(&[("client's sidecar", &client), ("server's sidecar", &servers[0])]);
    let (mut turn, mut left, mut away) = (0, 0, None);
    while begun.elapsed() < Duration::from_secs(seconds) {
        turn += 1;
        mesh.write("changing.yaml", &changing(turn))?;
        // One instance after the other leaves, and comes back; the next leaves once it is back.
        if turn % 10 == 5 {
            match away.take() {
                Some(server) => post(server, "/healthcheck/ok").await?,
                None if endpoints(&client).await? == servers.len() => {
                    let server = &servers[left % servers.len()];
                    post(server, "/healthcheck/fail").await?;
                    (left, away) = (left + 1, Some(server));
                }
                None => {}
            }
        }
        memory.sample()?;
        tokio::time::sleep(CHANGE_EVERY).await;
    }
    let good = load.end().await?;
    let taken = updates(&client).await? - before;
    let renewed = client.process.log().matches("certificate renewed").count();
    println!(
        "{seconds} s: {good} requests, none failed; {turn} changes, {taken} updates taken, {renewed} renewals"
    );
    println!("{memory}");
    ensure!(taken >= turn / 4, "of {turn} changes {taken} arrived");
    ensure!(seconds < 120 || renewed > 0, "no certificate was renewed");
    if seconds >= MEMORY_COUNTS_FROM {
        memory.is_flat()?;
    }
    Ok(())
}
