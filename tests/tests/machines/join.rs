//! Who may join, and at which address.

use anyhow::{Context, ensure};
use pillion_tests::venv::optional;

use super::world::{Part, World};

const REVIEWS: Part = Part { service: "reviews", version: "v1" };

#[tokio::test]
async fn a_wrong_token_is_refused_in_words() -> anyhow::Result<()> {
    let Some(mut world) = optional("network namespaces", World::start().await)? else {
        return Ok(());
    };
    let right = std::fs::read_to_string(world.token(1))?;
    let parts: Vec<&str> = right.trim().split('.').collect();
    let [scheme, secret, root] = parts[..] else { anyhow::bail!("three parts") };
    let other = |text: &str| format!("{}{}", &text[..20], "A".repeat(text.len() - 20));
    let cases = [
        // Of this mesh, but not the one that was handed out.
        ("secret", format!("{scheme}.{}.{root}", other(secret)), "not one of this control plane"),
        // Of another mesh: the control plane is not the one that it belongs to.
        ("root", format!("{scheme}.{secret}.{}", other(root)), "did not present the root"),
    ];
    for (name, token, expected) in cases {
        let path = world.folder(1).join(format!("{name}.token"));
        world.put(&path, token.as_bytes())?;
        let path = path.to_string_lossy().into_owned();
        let (sidecar, _) = world.sidecar(1, ("reviews", name), &["--token-file", &path])?;
        let said = || async { sidecar.log().contains("cannot get an identity").then_some(()) };
        sidecar.ready("it says that it may not join", said).await?;
        let log = sidecar.log();
        ensure!(log.contains(expected), "{log}");
        ensure!(
            !log.contains(secret) && !log.contains(&other(secret)),
            "it tells the secret: {log}"
        );
        ensure!(world.advertised(name)?.is_none(), "{name} is in the mesh");
    }
    Ok(())
}

#[tokio::test]
async fn the_address_towards_the_control_plane_is_told_unless_one_is_said() -> anyhow::Result<()> {
    let Some(mut world) = optional("network namespaces", World::start().await)? else {
        return Ok(());
    };
    let second = world.machines[1].clone();
    for args in [
        ["link", "add", "other0", "type", "bridge"].as_slice(),
        &["addr", "add", "192.0.2.7/24", "dev", "other0"],
        &["link", "set", "other0", "up"],
        &["addr", "add", "10.77.0.200/24", "dev", "eth0"],
    ] {
        let (fine, text) = second.run("ip", args)?;
        ensure!(fine, "{args:?}: {text}");
    }
    let instance = world.instance(1, REVIEWS, "reviews-1")?;
    instance.warm().await?;
    world.known("reviews-1", true).await?;
    let found = world.advertised("reviews-1")?.context("an address")?;
    ensure!(found == second.address(), "{found}");

    let more = ["--address", "10.77.0.200", "--app", "1"];
    let (said, ports) = world.sidecar(1, ("reviews", "reviews-2"), &more)?;
    super::world::warm(&second, &said, ports.admin).await?;
    let inbound = format!("10.77.0.200:{}", ports.inbound);
    let listens = || async {
        let (_, text) = second.run("ss", &["-Hltn"]).ok()?;
        text.contains(&inbound).then_some(())
    };
    said.ready("its sidecar listens at the address that was said", listens).await
}
