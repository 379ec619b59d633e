//! Bad input: a clear message that names the place, and everything else goes on.

use std::net::TcpListener;
use std::process::Command;

use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::mesh::{Beside, Mesh};
use pillion_tests::venv::program;
use pillion_tests::wait;

use super::{STRICT, route, service};

#[tokio::test]
async fn a_bad_edit_is_told_with_its_place_and_the_last_good_one_holds() -> anyhow::Result<()> {
    let mesh = Mesh::start(&[
        ("mesh.yaml", STRICT),
        ("catalog.yaml", &service("catalog", "http")),
        ("route.yaml", &route("HTTPRoute", "catalog", "v1")),
    ])
    .await?;
    let app = Backend::start("catalog-v1", Speaks::Http1).await?;
    let _sidecar = mesh.sidecar(&Beside::new("catalog", "v1", app.address)).await?;
    let client = mesh.sidecar(&Beside::client("shopper")).await?;
    client.reaches("catalog.default", "catalog-v1").await?;

    let bad = route("HTTPRoute", "catalog", "v2")
        .replace("port: 80}]\n  rules", "port: eighty}]\n  rules");
    mesh.write("route.yaml", &bad)?;
    let told = || async {
        let status = mesh.status().ok()?;
        let problems = status["problems"].as_array()?.clone();
        problems.into_iter().find(|problem| problem["severity"] == "error")
    };
    let problem = wait::until("the status tells of the bad edit", told).await?;
    let text = problem.to_string();
    for part in ["route.yaml", "5", "port", "eighty"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert!(mesh.log().contains("route.yaml:5"), "{}", mesh.log());
    // The route that was good still holds, for newcomers too.
    let late = mesh.sidecar(&Beside::client("late")).await?;
    late.reaches("catalog.default", "catalog-v1").await?;
    client.reaches("catalog.default", "catalog-v1").await
}

#[tokio::test]
async fn a_port_in_use_is_named() -> anyhow::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("mesh.yaml"), STRICT)?;
    let output = Command::new(program("pillion")?)
        .arg("control-plane")
        .arg("--config")
        .arg(dir.path().join("mesh.yaml"))
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .args(["--xds-port", "0", "--admin-port", "0", "--xds-tls-port", &port.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&format!("127.0.0.1:{port}")), "{said}");
    assert!(said.contains("in use"), "{said}");
    Ok(())
}
