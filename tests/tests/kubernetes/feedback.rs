//! What proxies refuse is told in the status of the objects that it comes from.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use pillion_tests::ads;
use pillion_tests::mesh::Mesh;
use pillion_tests::process::Process;
use pillion_tests::wait;
use serde_json::Value;

use super::world::{SHOP, cluster, condition};

/// Starts a proxy that refuses routes in these words.
async fn refusing(
    xds: SocketAddr,
    dir: &Path,
    (node, text): (&str, &str),
) -> anyhow::Result<Process> {
    let mut command = Command::new(ads::python()?.python());
    command.arg("-c").arg(include_str!("nack.py")).args([
        &xds.to_string(),
        "RouteConfiguration",
        text,
        node,
    ]);
    let process = Process::start(node, &mut command, &dir.join(format!("{node}.log")))?;
    let answered = || async { process.log().contains("RouteConfiguration").then_some(()) };
    process.ready("it got its routes", answered).await?;
    Ok(process)
}

#[tokio::test]
async fn what_a_proxy_refuses_stands_in_the_status_whichever_replica_heard_it() -> anyhow::Result<()>
{
    const APPLIED: &str = "pillion.io/Applied";
    let kubernetes = cluster().await?;
    let first = Mesh::in_cluster(kubernetes.kubeconfig()).await?;
    condition(&kubernetes, APPLIED, (1, "True")).await?;
    let mut second = Mesh::in_cluster(kubernetes.kubeconfig()).await?;
    let one = refusing(first.xds(), first.dir(), ("one", "outbound: no such wings")).await?;
    let message = condition(&kubernetes, APPLIED, (1, "False")).await?;
    assert_eq!(message, "the proxy one refuses it: outbound: no such wings");

    // One more, which the other replica hears: neither takes the other's words away.
    let two = refusing(second.xds(), second.dir(), ("two", "outbound: nor these")).await?;
    let says = |wanted: &'static str| {
        let kubernetes = &kubernetes;
        wait::until(wanted, move || async move {
            let route = kubernetes.get("httproutes", SHOP, "catalog")?;
            let conditions = &route["status"]["parents"][0]["conditions"];
            let found = conditions.as_array()?.iter().find(|one| one["type"] == APPLIED)?;
            (found["message"] == wanted).then_some(())
        })
    };
    says("2 proxies refuse it, such as one: outbound: no such wings").await?;
    drop(one);
    says("the proxy two refuses it: outbound: nor these").await?;
    drop(two);
    says("no proxy refuses it").await?;

    // The leader goes: what is refused is known to the next one.
    let _two = refusing(second.xds(), second.dir(), ("two", "outbound: nor these")).await?;
    says("the proxy two refuses it: outbound: nor these").await?;
    drop(first);
    let leases = |requests: &[(String, String)]| {
        requests.iter().filter(|one| one.0 == "patch" && one.1 == "leases").count()
    };
    assert!(leases(&kubernetes.requests()) > 0);
    second.stop_control_plane().await?;
    let route: Option<Value> = kubernetes.get("httproutes", SHOP, "catalog");
    assert!(route.is_some_and(|route| route.to_string().contains("nor these")));
    Ok(())
}
