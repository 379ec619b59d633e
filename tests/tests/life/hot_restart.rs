//! Another process takes over: no connection is refused, and nothing that is under way is lost.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client::{self, Ask};
use pillion_tests::load::{Load, Style};
use pillion_tests::mesh::{Beside, Mesh, Sidecar};
use pillion_tests::process::Signal;
use pillion_tests::wait;

const MESH: &str = "apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: test}
spec: {trustDomain: test.local, mtls: Strict}
---
apiVersion: v1
kind: Service
metadata: {name: catalog}
spec: {selector: {app: catalog}, ports: [{name: http, port: 80, appProtocol: http}]}
";

const ALL: [Style; 4] = [Style::Anew, Style::KeepAlive, Style::KeepAlive, Style::Http2];

fn renewable(mut beside: Beside, dir: &Path) -> Beside {
    let socket = dir.join(format!("{}.hot", beside.name));
    beside.more.extend(["--hot-restart-socket".to_owned(), socket.to_string_lossy().into_owned()]);
    beside
}

/// Which process in line answers at this admin endpoint.
async fn epoch(admin: SocketAddr) -> Option<u32> {
    let answer = client::get(admin, "/stats?filter=hot_restart_epoch").await.ok()?;
    answer.text().trim().strip_prefix("server.hot_restart_epoch: ")?.parse().ok()
}

async fn is_in_charge(sidecar: &Sidecar, wanted: u32) -> anyhow::Result<()> {
    let admin = sidecar.admin;
    let asked = || async { (epoch(admin).await? == wanted).then_some(()) };
    wait::until(&format!("process {wanted} is in charge"), asked).await?;
    let ready = client::get(admin, "/ready").await?;
    anyhow::ensure!(ready.status == 200, "{} {}", ready.status, ready.text());
    Ok(())
}

#[tokio::test]
async fn sidecars_are_replaced_under_load_even_without_a_control_plane() -> anyhow::Result<()> {
    let mut mesh = Mesh::start(&[("mesh.yaml", MESH)]).await?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let catalog = renewable(Beside::new("catalog", "v1", app.address), mesh.dir());
    let catalog = mesh.sidecar(&catalog).await?;
    let client = mesh.sidecar(&renewable(Beside::client("shopper"), mesh.dir())).await?;
    client.reaches("catalog.default", "app").await?;
    let load = Load::start(client.outbound, "catalog.default", &ALL);
    load.goes_on(100).await?;
    let mut slow = Ask::new(Method::GET, "/");
    "catalog.default".clone_into(&mut slow.host);
    slow.headers = vec![
        ("x-case".to_owned(), "slow".to_owned()),
        ("x-do".to_owned(), "delay=2000".to_owned()),
    ];
    let outbound = client.outbound;
    let slow = tokio::spawn(async move { client::send(outbound, &slow).await });
    let arrived = || async { (app.seen("slow") == 1).then_some(()) };
    wait::until("the slow request is at the application", arrived).await?;

    // By a signal, and by another process with the same command line.
    client.process.signal(Signal::USR2);
    let other = catalog.again()?;
    is_in_charge(&client, 1).await?;
    is_in_charge(&catalog, 1).await?;
    load.goes_on(100).await?;
    assert_eq!(slow.await??.status, 200);
    for old in [&client.process, &catalog.process] {
        assert!(old.ended().await?.success(), "{}", old.describe());
    }

    mesh.kill_control_plane();
    let third = catalog.again()?;
    is_in_charge(&catalog, 2).await?;
    assert!(other.ended().await?.success(), "{}", other.describe());
    load.goes_on(100).await?;
    assert!(third.status().is_none(), "{}", third.describe());
    load.end().await.with_context(|| third.describe())?;
    Ok(())
}

#[tokio::test]
async fn a_successor_that_fails_changes_nothing() -> anyhow::Result<()> {
    let mesh = Mesh::start(&[("mesh.yaml", MESH)]).await?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let _catalog = mesh.sidecar(&Beside::new("catalog", "v1", app.address)).await?;
    let client = mesh.sidecar(&renewable(Beside::client("shopper"), mesh.dir())).await?;
    client.reaches("catalog.default", "app").await?;
    let load = Load::start(client.outbound, "catalog.default", &ALL);
    // It gets the sockets, and is killed before it is ready: its token is no good any more.
    let (token, kept) = (mesh.token(), mesh.dir().join("kept"));
    std::fs::rename(&token, &kept)?;
    let failed = client.again()?;
    assert!(!failed.ended().await?.success(), "{}", failed.describe());
    load.goes_on(100).await?;
    let log = client.process.log();
    assert!(log.contains("a successor ended before it was ready"), "{log}");

    std::fs::rename(kept, token)?;

    let mut other = Beside::client("somebody-else");
    let path = mesh.dir().join("shopper.hot").to_string_lossy().into_owned();
    other.more.extend(["--hot-restart-socket".to_owned(), path]);
    let error = format!("{:#}", mesh.sidecar(&other).await.err().context("it is refused")?);
    assert!(error.contains("of shopper.default, not of somebody-else.default"), "{error}");

    let _good = client.again()?;
    is_in_charge(&client, 1).await?;
    assert!(client.process.ended().await?.success(), "{}", client.process.describe());
    load.end().await?;
    Ok(())
}

#[tokio::test]
async fn without_its_flag_a_hot_restart_is_refused() -> anyhow::Result<()> {
    let mesh = Mesh::start(&[("mesh.yaml", MESH)]).await?;
    let client = mesh.sidecar(&Beside::client("shopper")).await?;
    client.process.signal(Signal::USR2);
    let log = || client.process.log();
    let told = || async { log().contains("it needs --hot-restart-socket").then_some(()) };
    wait::until("SIGUSR2 is answered in the log", told).await?;
    assert!(client.process.status().is_none(), "{}", client.process.describe());
    Ok(())
}
