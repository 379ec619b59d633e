//! Several control planes of one cluster.

use pillion_tests::kubernetes::Kubernetes;
use pillion_tests::mesh::Mesh;
use pillion_tests::wait;
use serde_json::json;

use super::world::{World, cluster, condition, pod, route};

async fn holder(kubernetes: &Kubernetes, not: &str) -> anyhow::Result<String> {
    wait::until("there is a leader", || async {
        let lease = kubernetes.get("leases", "pillion-system", "pillion-leader")?;
        let holder = lease["spec"]["holderIdentity"].as_str()?;
        (!holder.is_empty() && holder != not).then(|| holder.to_owned())
    })
    .await
}

#[tokio::test]
async fn control_planes_share_the_root_and_one_of_them_writes() -> anyhow::Result<()> {
    let kubernetes = cluster().await?;
    let mut first = Mesh::in_cluster(kubernetes.kubeconfig()).await?;
    let leader = holder(&kubernetes, "").await?;
    let second = Mesh::in_cluster(kubernetes.kubeconfig()).await?;
    let file =
        |mesh: &Mesh, name: &str| std::fs::read_to_string(mesh.dir().join("data").join(name));
    assert_eq!(file(&first, "root.pem")?, file(&second, "root.pem")?);
    assert_eq!(file(&first, "join-token")?, file(&second, "join-token")?);
    assert!(file(&first, "root.pem")?.contains("BEGIN CERTIFICATE"));

    // A workload of the one reaches a workload of the other.
    let one = pod(&kubernetes, &first, "v1").await?;
    let mut world = World { kubernetes, mesh: second, pods: vec![one] };
    let client = world.client().await?;
    client.reaches("catalog.shop", "catalog-v1").await?;
    assert_eq!(holder(&world.kubernetes, "").await?, leader, "nobody took it over");

    // Asked to go, it gives the lease back; the other one writes from then on.
    first.stop_control_plane().await?;
    let next = holder(&world.kubernetes, &leader).await?;
    world.kubernetes.apply(route(json!("ten"), json!(0)));
    condition(&world.kubernetes, "Accepted", (2, "False")).await?;

    // Killed, it gives nothing back: the lease has to run out first.
    first.start_control_plane().await?;
    assert_eq!(holder(&world.kubernetes, "").await?, next);
    world.mesh.kill_control_plane();
    holder(&world.kubernetes, &next).await?;
    world.kubernetes.apply(route(json!(1), json!(0)));
    condition(&world.kubernetes, "Accepted", (3, "True")).await?;
    Ok(())
}
