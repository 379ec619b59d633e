//! Blocks of pages that need other machines besides.

use std::fs;
use std::process::Command;

use anyhow::ensure;
use pillion_tests::netns::Host;
use pillion_tests::process::Process;
use pillion_tests::wait;

use super::lab;
use super::page::{Page, shell};

/// A control plane at the address that the pages use, and its token for everybody.
async fn control_plane(host: &Host, page: &Page, config: &str) -> anyhow::Result<Process> {
    let script = format!(
        "pillion control-plane --address 10.77.0.1 --config {config} --data-dir control-plane &
         until pillion status > /dev/null; do sleep 0.1; done
         install -m 644 control-plane/join-token join-token
         wait"
    );
    let mut command = shell(host, page.folder())?;
    let log = page.folder().join("control-plane.log");
    let process = Process::start("control plane", command.args(["-c", &script]), &log)?;
    let token = page.folder().join("join-token");
    process.ready("the token is there", || async { token.exists().then_some(()) }).await?;
    Ok(process)
}

/// What a shell on a machine says, when it ends well.
fn said(command: &mut Command, script: &str) -> Option<String> {
    let output = command.args(["-c", script]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn captured_traffic() -> anyhow::Result<()> {
    let Some(mut lab) = lab()? else { return Ok(()) };
    let (one, two) = (lab.host("one")?, lab.host("two")?);
    // This is the third machine: 10.77.0.3, as the page says.
    let page = Page::open(&mut lab, include_str!("../../../docs/capture.md"))?;
    fs::set_permissions(page.folder(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let _control_plane = control_plane(&one, &page, "examples/capture/mesh").await?;
    let mut server = page.host().command("python3");
    server.args(["-m", "http.server", "8000"]).current_dir(page.folder());
    let _server = Process::start("server", &mut server, &page.folder().join("server.log"))?;
    let asks = |script: &str| -> anyhow::Result<bool> {
        Ok(said(&mut shell(&two, page.folder())?, script)
            .is_some_and(|text| text.contains("Directory listing")))
    };
    let plain = "curl -fsS --max-time 5 http://10.77.0.3:8000/";
    wait::until("the server answers", || async { asks(plain).ok()?.then_some(()) }).await?;

    let sidecar = page.start("--interception redirect", &[])?;
    page.run("pillion-proxy redirect --dry-run", &[("pillion-proxy redirect --undo", "true")])
        .await?;
    let shopper =
        "pillion-proxy --control-plane 10.77.0.1:15012 --token-file join-token --service shopper";
    let mut command = shell(&two, page.folder())?;
    let log = page.folder().join("shopper.log");
    let _shopper = Process::start("shopper", command.args(["-c", shopper]), &log)?;
    let by_mesh = "curl -fsS --max-time 5 --proxy http://127.0.0.1:15001 http://web.default/";
    sidecar.ready("the mesh leads there", || async { asks(by_mesh).ok()?.then_some(()) }).await?;
    ensure!(!asks(plain)?, "plain text to a strict service");
    page.script("pillion-proxy redirect --undo").await?;
    ensure!(asks(plain)?, "all of it is taken back");
    Ok(())
}

#[tokio::test]
async fn a_gateway_of_a_mesh() -> anyhow::Result<()> {
    let Some(mut lab) = lab()? else { return Ok(()) };
    let one = lab.host("one")?;
    let page = Page::open(&mut lab, include_str!("../../../docs/gateway.md"))?;
    let _control_plane = control_plane(&one, &page, "examples/gateway/gateway.yaml").await?;
    let edits = [("10.0.0.1", "10.77.0.1"), ("/etc/pillion/certificates", "certificates")];
    let gateway = page.start("--gateway front", &edits)?;
    // Its instances have no sidecars, and the mesh is strict: the route leads to nobody.
    let ask = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/";
    let answers = || async {
        let said = said(&mut shell(page.host(), page.folder()).ok()?, ask)?;
        (said == "503").then_some(())
    };
    gateway.ready("the gateway answers", answers).await
}
