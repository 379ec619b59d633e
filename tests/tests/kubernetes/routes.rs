//! Routes, pods and what is said about them.

use serde_json::json;

use super::world::{SHOP, World, condition, route};
use pillion_tests::wait;

#[tokio::test]
async fn pods_are_reached_and_an_edit_of_a_weight_shifts_the_requests() -> anyhow::Result<()> {
    let world = World::start().await?;
    let client = world.client().await?;
    client.reaches("catalog.shop", "catalog-v1").await?;
    condition(&world.kubernetes, "Accepted", (1, "True")).await?;
    condition(&world.kubernetes, "ResolvedRefs", (1, "True")).await?;

    world.kubernetes.apply(route(json!(0), json!(1)));
    client.reaches("catalog.shop", "catalog-v2").await?;
    condition(&world.kubernetes, "Accepted", (2, "True")).await?;

    // A pod that is not ready takes no requests, whatever its sidecar says.
    world.kubernetes.delete("httproutes", SHOP, "catalog");
    world.pods[1].ready(&world.kubernetes, false);
    client.reaches("catalog.shop", "catalog-v1").await?;
    wait::until("requests go to the ready pod only", || async {
        for _ in 0..20 {
            let answer = client.ask("catalog.shop", "/").await.ok()?;
            if answer.header("x-endpoint") != Some("catalog-v1") {
                return None;
            }
        }
        Some(())
    })
    .await?;
    world.pods[1].ready(&world.kubernetes, true);
    client.reaches("catalog.shop", "catalog-v2").await?;
    Ok(())
}

#[tokio::test]
async fn a_bad_route_says_why_and_takes_nothing_with_it() -> anyhow::Result<()> {
    let world = World::start().await?;
    let client = world.client().await?;
    client.reaches("catalog.shop", "catalog-v1").await?;
    let foreign = json!({"controllerName": "example.com/other", "parentRef": {"name": "gateway"}, "conditions": []});
    let mut with_foreign = route(json!(1), json!(0));
    with_foreign["status"] =
        world.kubernetes.get("httproutes", SHOP, "catalog").unwrap()["status"].clone();
    if with_foreign["status"].is_null() {
        with_foreign["status"] = json!({"parents": []});
    }
    with_foreign["status"]["parents"].as_array_mut().unwrap().push(foreign.clone());
    world.kubernetes.set_status(with_foreign);

    world.kubernetes.apply(route(json!("ten"), json!(1)));
    let message = condition(&world.kubernetes, "Accepted", (2, "False")).await?;
    assert!(message.starts_with("spec.rules[0].backendRefs[0].weight: "), "{message}");
    // Its last good version is in force, and other changes go on.
    client.reaches("catalog.shop", "catalog-v1").await?;
    world.kubernetes.apply(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "direct", "namespace": SHOP},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "catalog-v1"}],
            "rules": [{"backendRefs": [{"name": "catalog-v2", "port": 80}]}],
        },
    }));
    client.reaches("catalog-v1.shop", "catalog-v2").await?;
    let problems = world.mesh.status()?["problems"].to_string();
    assert!(problems.contains("httproutes/shop/catalog"), "{problems}");

    let mut dangling = route(json!(1), json!(1));
    dangling["spec"]["rules"][0]["backendRefs"][1]["name"] = json!("catalog-v3");
    world.kubernetes.apply(dangling);
    condition(&world.kubernetes, "Accepted", (3, "True")).await?;
    let message = condition(&world.kubernetes, "ResolvedRefs", (3, "False")).await?;
    assert!(message.contains("did you mean `catalog-v"), "{message}");
    let parents =
        &world.kubernetes.get("httproutes", SHOP, "catalog").unwrap()["status"]["parents"];
    assert!(parents.as_array().unwrap().contains(&foreign), "{parents}");
    Ok(())
}
