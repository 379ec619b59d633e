//! Pages of `docs/` from their first line: each block is a script that is run as it stands, on a machine (a network
//! namespace) of its own, in a folder that is clean but for `examples`.
//!
//! Where a page says `/tmp`, the folder's own is meant, so that pages do not meet there.

mod fragments;
mod machines;
mod page;

use std::fs;

use anyhow::ensure;
use pillion_tests::netns::Lab;
use pillion_tests::venv::optional;

use page::Page;

fn lab() -> anyhow::Result<Option<Lab>> {
    optional("network namespaces", Lab::new())
}

#[tokio::test]
async fn one_machine() -> anyhow::Result<()> {
    let Some(mut lab) = lab()? else { return Ok(()) };
    let page = Page::open(&mut lab, include_str!("../../../docs/one-machine.md"))?;
    let edits =
        [("cargo build --release -p pillion -p pillion-shop\n", ""), ("target/release/", "")];
    let up = page.start("pillion up -f", &edits)?;
    let is_up = || async { up.log().contains("everything is up").then_some(()) };
    up.ready("everything is up", is_up).await?;
    let said = page.run("pillion ps", &[]).await?;
    for part in
        ["catalog-v1-2", "web v1 listening", "web: every instance was replaced", "catalog-v1: 3"]
    {
        ensure!(said.contains(part), "{part} is not in\n{said}");
    }
    ensure!(up.ended().await?.success(), "{}", up.describe());

    let said = page.run("pillion run --service", &[]).await?;
    ensure!(said.contains("my way to the mesh is http://127.0.0.1:"), "{said}");
    page.was_run_whole(&[])
}

#[tokio::test]
async fn capture() -> anyhow::Result<()> {
    let Some(mut lab) = lab()? else { return Ok(()) };
    let page = Page::open(&mut lab, include_str!("../../../docs/capture.md"))?;
    let _mesh = page.start("--service shopper --upstream", &[])?;
    // By absolute form, by CONNECT, and by Python.
    let all = |said: &str| {
        said.matches("<title>Directory listing").count() == 2 && said.ends_with("\n200\n")
    };
    page.until("curl --proxy", &[], all).await?;
    page.until("curl http://127.0.0.1:9001/", &[], |said| said.contains("Directory listing"))
        .await?;
    // Its rules are those of this machine alone.
    let said = page.run("pillion-proxy redirect --dry-run", &[]).await?;
    ensure!(said.contains("table inet pillion"), "{said}");
    // In `machines`, as it needs some.
    page.was_run_whole(&["--interception redirect"])
}

#[tokio::test]
async fn gateway() -> anyhow::Result<()> {
    let Some(mut lab) = lab()? else { return Ok(()) };
    let page = Page::open(&mut lab, include_str!("../../../docs/gateway.md"))?;
    let servers =
        page.start("for port in 9001", &[("curl -i http://127.0.0.1:8080/\n", "wait\n")])?;
    let asked = [
        (
            "for port in 9001 9002 9003; do python3 -m http.server $port --bind 127.0.0.1 & done\n",
            "",
        ),
        ("pillion gateway -f examples/gateway/gateway.yaml &\n", ""),
    ];
    page.until("for port in 9001", &asked, |said| said.contains("200 OK")).await?;
    drop(servers);
    // In `machines`.
    page.was_run_whole(&["--gateway front"])
}

#[tokio::test]
async fn hot_restart() -> anyhow::Result<()> {
    let Some(mut lab) = lab()? else { return Ok(()) };
    let page = Page::open(&mut lab, include_str!("../../../docs/hot-restart.md"))?;
    let first = page.start("--hot-restart-socket", &[])?;
    page.script_until("curl -s localhost:9901/ready", |said| said.contains("LIVE")).await?;
    // Here it is not the only test that runs.
    let folder = page.folder().join("tmp/front.hot").display().to_string();
    page.run("pkill -USR2", &[("-f front.hot", "-f /tmp/front.hot")]).await?;
    let epoch = |said: &str| said.contains("server.hot_restart_epoch: 1");
    page.script_until("curl -s localhost:9901/stats", epoch).await?;
    ensure!(first.ended().await?.success(), "{}", first.describe());
    page.script_until("curl -s localhost:8080/about", |said| said == "a front proxy\n").await?;
    page.script(&format!("pkill -TERM -f {folder}")).await?;
    page.was_run_whole(&[])
}

#[tokio::test]
async fn kubernetes() -> anyhow::Result<()> {
    let Some(mut lab) = lab()? else { return Ok(()) };
    let page = Page::open(&mut lab, include_str!("../../../docs/kubernetes.md"))?;
    // There is no cluster: what would be applied is looked at elsewhere (`manifests`).
    let edits = [("| kubectl apply --server-side -f -", ""), ("kubectl ", "true kubectl ")];
    let said = page.run("pillion install --image", &edits).await?;
    ensure!(said.contains("kind: Deployment") && said.contains("REGISTRY/pillion:TAG"), "{said}");
    let said = page.run("pillion inject -f examples/kubernetes/shop.yaml", &[]).await?;
    ensure!(said.contains("REGISTRY/pillion-redirect:TAG"), "{said}");
    fs::write(
        page.folder().join("FILE"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}\n",
    )?;
    let said =
        page.run("--token-secret pillion-join-token", &[("kubectl ", "true kubectl ")]).await?;
    ensure!(said.contains("pillion-join-token"), "{said}");
    // With a pretended API (`kubernetes`).
    page.was_run_whole(&["pillion control-plane --kubernetes"])
}
