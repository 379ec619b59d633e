//! Who gets which certificate for a service-account token.

use std::process::Command;

use pillion_tests::ca::Ca;
use pillion_tests::port::Port;
use pillion_tests::process::Process;
use pillion_tests::venv::program;

use super::world::{SHOP, World, proof};

/// Starts a sidecar with this token that claims a service account, and waits for what it says.
async fn claims(world: &World, name: &str, account: &str, says: &str) -> anyhow::Result<()> {
    let [admin, inbound, outbound] = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let mut command = Command::new(program("pillion-proxy")?);
    command
        .args(["--control-plane", &world.mesh.xds_tls().to_string(), "--namespace", SHOP])
        .args(["--service", account, "--service-account", account, "--concurrency", "1"])
        .args(["--admin-port", &admin.number().to_string()])
        .args(["--inbound-port", &inbound.number().to_string()])
        .args(["--outbound-port", &outbound.number().to_string()])
        .arg("--token-file")
        .arg(world.kubernetes.dir().join(format!("{name}.token")))
        .arg("--root-ca-file")
        .arg(world.kubernetes.dir().join(format!("{name}.root")));
    let log = world.kubernetes.dir().join(format!("{name}-{account}.log"));
    let process = Process::start(account, &mut command, &log)?;
    process.ready(says, || async { process.log().contains(says).then_some(()) }).await
}

#[tokio::test]
async fn a_service_account_gets_its_own_identity_and_no_other() -> anyhow::Result<()> {
    let world = World::start().await?;
    proof(&world.kubernetes, "cart").await?;
    claims(&world, "cart", "cart", "spiffe://test.local/ns/shop/sa/cart").await?;
    claims(&world, "cart", "catalog", "may not have a certificate for").await?;

    let (token, _) = proof(&world.kubernetes, "reviews").await?;
    let text = std::fs::read_to_string(&token)?;
    world.kubernetes.revoke(&text);
    let refused = "nor a valid service-account token for the audience `pillion`";
    claims(&world, "reviews", "reviews", refused).await?;
    world.kubernetes.token(&text, SHOP, "reviews", &["https://kubernetes.default.svc"]);
    claims(&world, "reviews", "reviews", refused).await?;
    assert!(!world.mesh.log().contains(&text), "the control plane's log shows a token");

    // Somebody else's root is not believed.
    let stranger = Ca::new("stranger")?;
    let files =
        stranger.write(world.kubernetes.dir(), "stranger", &stranger.leaf("spiffe://x/y")?)?;
    std::fs::copy(files.roots, world.kubernetes.dir().join("cart.root"))?;
    claims(&world, "cart", "cart", "is not signed by an authority that is trusted here").await
}
