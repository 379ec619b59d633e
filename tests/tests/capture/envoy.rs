//! The real Envoy takes the same listeners, routes and clusters.

use anyhow::{Context, ensure};
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client;
use pillion_tests::mesh::{Beside, Mesh};
use pillion_tests::proxy::{Proxy, envoy};
use pillion_tests::venv::optional;
use pillion_tests::wait;
use serde_json::json;

use super::explicit::{SERVICES, mesh, through, tunnel};
use crate::mesh::clients::envoy_sidecar;

#[tokio::test]
async fn envoy_passes_what_the_mesh_does_not_know_and_opens_tunnels() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let addressed = SERVICES
        .replacen("spec: {ports", "spec: {clusterIP: 10.96.0.11, ports", 1)
        .replacen("spec: {ports", "spec: {clusterIP: 10.96.0.12, ports", 1);
    let mesh_file = mesh("Passthrough");
    let mesh = Mesh::start(&[("mesh.yaml", &mesh_file), ("services.yaml", &addressed)]).await?;
    let redis = Backend::start("redis", Speaks::Tcp).await?;
    let outside = Backend::start("outside", Speaks::Http1).await?;
    let _redis = mesh.sidecar(&Beside::new("redis", "v1", redis.address)).await?;
    let (theirs, outbound) = envoy_sidecar(&mesh, json!({})).await?;
    let url = format!("http://{}/x", outside.address);
    let last = std::cell::RefCell::new(String::new());
    for more in [&[][..], &["--proxytunnel"]] {
        wait::until("a stranger answers", || async {
            let text = through(outbound, &[more, &[&*url]].concat()).await.ok()?;
            last.replace(text.clone());
            text.contains("\"target\":\"/x\"").then_some(())
        })
        .await
        .with_context(|| format!("{more:?}: {}\n{}", last.borrow(), theirs.process.describe()))?;
    }
    wait::until("the tunnel is there", || async {
        let said = tunnel(outbound, "redis.default:6379").await.ok()?;
        (said == "hello\nping\n").then_some(())
    })
    .await?;
    nothing_is_refused(&theirs).await?;
    drop(theirs);

    let (theirs, _) = envoy_sidecar(&mesh, json!({"INTERCEPTION": "REDIRECT"})).await?;
    wait::until("the captured listeners are there", || async {
        let text = client::get(theirs.admin, "/config_dump").await.ok()?.text();
        let wanted = ["outbound|web.default:80|10.96.0.11_80", "direct|redis.default:6379"];
        wanted.iter().all(|name| text.contains(name)).then_some(())
    })
    .await?;
    nothing_is_refused(&theirs).await
}

async fn nothing_is_refused(proxy: &Proxy) -> anyhow::Result<()> {
    let text = client::get(proxy.admin, "/stats?filter=update_rejected").await?.text();
    let refused = text.lines().find(|line| !line.ends_with(": 0"));
    ensure!(refused.is_none(), "{text}\n{}", proxy.process.describe());
    Ok(())
}
