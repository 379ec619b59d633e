//! The API server comes and goes.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use pillion_tests::client;
use pillion_tests::mesh::Beside;
use pillion_tests::port::Port;
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::program;
use pillion_tests::wait;
use serde_json::json;

use super::world::{SHOP, World, cluster, condition, route};

#[tokio::test]
async fn while_the_api_server_is_away_nothing_is_lost() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let client = world.client().await?;
    client.reaches("catalog.shop", "catalog-v1").await?;
    world.kubernetes.kill();
    for _ in 0..50 {
        let answer = client.ask("catalog.shop", "/").await?;
        assert_eq!((answer.status, answer.header("x-endpoint")), (200, Some("catalog-v1")));
    }
    // What happens meanwhile is seen when it is back: the watch goes on where it was.
    world.kubernetes.apply(route(json!(0), json!(1)));
    world.kubernetes.serve().await?;
    client.reaches("catalog.shop", "catalog-v2").await?;
    condition(&world.kubernetes, "Accepted", (2, "True")).await?;

    // Away for too long: its place in the past is forgotten (410), and everything is listed again.
    world.kubernetes.kill();
    world.kubernetes.apply(route(json!(1), json!(0)));
    world.kubernetes.delete("services", SHOP, "catalog-v2");
    world.kubernetes.compact();
    let before = world.kubernetes.requests().len();
    world.kubernetes.serve().await?;
    client.reaches("catalog.shop", "catalog-v1").await?;
    let listed = |requests: &[(String, String)]| {
        requests.iter().any(|(verb, resource)| verb == "list" && resource == "httproutes")
    };
    assert!(listed(&world.kubernetes.requests()[before..]), "it did not list again");
    // The service that was deleted meanwhile.
    condition(&world.kubernetes, "ResolvedRefs", (3, "False")).await?;
    Ok(())
}

#[tokio::test]
async fn it_asks_for_nothing_that_its_roles_do_not_grant() -> anyhow::Result<()> {
    let world = World::start().await?;
    world.client().await?.reaches("catalog.shop", "catalog-v1").await?;
    condition(&world.kubernetes, "Accepted", (1, "True")).await?;
    let granted = include_str!("../../../control-plane/src/source/kubernetes/access.rs");
    for (verb, resource) in world.kubernetes.requests() {
        // The list is code; what it says of a resource stands in one rule with its verbs.
        let rules = granted.split("cluster(").chain(granted.split("own("));
        let verbs = ["get", "list", "watch"].contains(&verb.as_str()).then_some("READ");
        let allows = |rule: &str| {
            let rule = rule.split(");").next().unwrap_or_default();
            rule.contains(&format!("\"{resource}\""))
                && (rule.contains(&format!("\"{verb}\""))
                    || verbs.is_some_and(|read| rule.contains(read)))
        };
        assert!(rules.into_iter().any(allows), "{verb} {resource} is in no rule");
    }
    Ok(())
}

/// Status and body of a page of the HTTPS port. The kubelet does not look at the certificate either.
fn kubelet(port: u16, path: &str) -> Option<(String, String)> {
    let output = Command::new("curl")
        .args(["-sk", "-w", "\n%{http_code}"])
        .arg(format!("https://127.0.0.1:{port}{path}"))
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n')?;
    Some((status.to_owned(), body.to_owned()))
}

#[tokio::test]
async fn a_control_plane_that_starts_without_the_api_server_waits_and_says_so() -> anyhow::Result<()>
{
    let mut kubernetes = cluster().await?;
    kubernetes.kill();
    let dir = tempfile::tempdir()?;
    let ports = [Port::reserve()?, Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let mut command = Command::new(program("pillion")?);
    command
        .args(["control-plane", "--kubernetes", "--proxy-image", "registry.example/proxy:1"])
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .env("KUBECONFIG", kubernetes.kubeconfig());
    let flags = ["--xds-port", "--xds-tls-port", "--admin-port", "--webhook-port"];
    for (flag, port) in flags.into_iter().zip(&ports) {
        command.arg(flag).arg(port.number().to_string());
    }
    let process = Process::start("control-plane", &mut command, &dir.path().join("log"))?;
    let (admin, web) = (ports[2].address(), ports[3].number());
    let lives = || async { (kubelet(web, "/healthz")?.0 == "200").then_some(()) };
    process.ready("it lives", lives).await?;
    let (status, why) = kubelet(web, "/readyz").unwrap_or_default();
    assert_eq!(status, "503");
    assert!(why.starts_with("not ready: waits for the Kubernetes API since "), "{why}");
    assert_eq!(client::get(admin, "/healthz").await?.status, 200);
    assert_eq!(client::get(admin, "/ready").await?.status, 503);
    let log = process.log();
    assert!(log.contains("waits for the Kubernetes API; answers health checks only"), "{log}");

    kubernetes.serve().await?;
    process
        .ready("it serves", || async { (kubelet(web, "/readyz")?.0 == "200").then_some(()) })
        .await?;
    assert_eq!(client::get(admin, "/ready").await?.status, 200);
    // Again, with nothing kept: it waits, and ends when it is told to.
    process.signal(Signal::TERM);
    process.ended().await?;
    kubernetes.kill();
    std::fs::remove_dir_all(dir.path().join("data"))?;
    let waiting = Process::start("control-plane", &mut command, &dir.path().join("log"))?;
    waiting.ready("it lives", lives).await?;
    waiting.signal(Signal::TERM);
    waiting.ended().await?;
    Ok(())
}

#[tokio::test]
async fn a_control_plane_that_starts_without_the_api_server_serves_its_last_good_state()
-> anyhow::Result<()> {
    let mut world = World::start().await?;
    let client = world.client().await?;
    client.reaches("catalog.shop", "catalog-v1").await?;
    let kept = world.mesh.dir().join("data/kubernetes.json");
    let is_whole = || async {
        let text = std::fs::read_to_string(&kept).ok()?;
        (text.contains("catalog-v1") && text.contains("httproutes/shop/catalog")).then_some(text)
    };
    let text = wait::until("the state is kept", is_whole).await?;
    assert!(!text.contains("PRIVATE KEY"), "{text}");
    let mode = std::fs::metadata(&kept)?.permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    world.kubernetes.kill();
    world.mesh.kill_control_plane();
    let since = world.mesh.log().len();
    world.mesh.start_control_plane().await?;
    let says = || world.mesh.status().map(|status| status["problems"].to_string());
    assert!(says()?.contains("serves the last good state of "), "{}", says()?);
    let ready = client::get(world.mesh.admin(), "/ready").await?;
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("the Kubernetes API cannot be read since"), "{}", ready.text());
    let metrics = client::get(world.mesh.admin(), "/metrics").await?.text();
    assert!(metrics.contains("pillion_kubernetes_kept_state 1"), "{metrics}");
    assert!(metrics.contains("pillion_kubernetes_reachable 0"), "{metrics}");
    // A workload that joins only now, by the join token, gets everything.
    let mut late = Beside::client("late");
    late.more = ["--namespace", SHOP].map(str::to_owned).into();
    let late = world.mesh.sidecar(&late).await?;
    late.reaches("catalog.shop", "catalog-v1").await?;
    client.reaches("catalog.shop", "catalog-v1").await?;

    // It goes on with what the API says as soon as that answers, without a request that fails.
    world.kubernetes.serve().await?;
    let well = || async { (!says().ok()?.contains("last good state")).then_some(()) };
    wait::until("the API is read", well).await?;
    let answer = late.ask("catalog.shop", "/").await?;
    assert_eq!((answer.status, answer.header("x-endpoint")), (200, Some("catalog-v1")));
    world.kubernetes.apply(route(json!(0), json!(1)));
    late.reaches("catalog.shop", "catalog-v2").await?;
    let log = world.mesh.log();
    assert!(!log[since..].contains("waits for the Kubernetes API;"), "{}", &log[since..]);
    Ok(())
}

#[tokio::test]
async fn a_copy_of_the_root_that_is_old_is_not_signed_with_for_long() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let kept = world.mesh.dir().join("data/kubernetes.json");
    wait::until("the state is kept", || async { kept.exists().then_some(()) }).await?;
    world.kubernetes.kill();
    world.mesh.stop_control_plane().await?;
    // Somebody replaces the root meanwhile.
    let other = World::start().await?;
    let mut secret = other.kubernetes.get("secrets", "pillion-system", "pillion-ca").unwrap();
    secret["metadata"] = json!({"name": "pillion-ca", "namespace": "pillion-system"});
    world.kubernetes.apply(secret);
    world.mesh.start_control_plane().await?;
    world.kubernetes.serve().await?;
    let says = || async {
        world.mesh.log().contains("has another root certificate than the copy").then_some(())
    };
    wait::until("it has to start anew", says).await?;
    world.mesh.kill_control_plane();
    world.mesh.start_control_plane().await
}
