//! `AuthorizationPolicy` and `GRPCRoute` objects of the API: they hold, say how they are, and a mistake in one takes
//! nothing with it.

use http::Method;
use pillion_tests::client::{self, Ask};
use pillion_tests::kubernetes::Kubernetes;
use pillion_tests::mesh::Sidecar;
use pillion_tests::wait;
use serde_json::{Value, json};

use super::world::{SHOP, World};

fn policy(spec: Value) -> Value {
    json!({
        "apiVersion": "pillion.io/v1alpha1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "catalog", "namespace": SHOP}, "spec": spec,
    })
}

async fn answers(from: &Sidecar, path: &str, wanted: u16) -> anyhow::Result<()> {
    wait::until(&format!("{path} is answered by {wanted}"), || async {
        (from.ask("catalog.shop", path).await.ok()?.status == wanted).then_some(())
    })
    .await
}

/// Waits until its `Accepted` says so of this generation; gives the message.
async fn accepted(
    kubernetes: &Kubernetes,
    kind: &str,
    (generation, status): (u64, &str),
) -> anyhow::Result<String> {
    wait::until(&format!("{kind} is Accepted: {status}"), || async {
        let object = kubernetes.get(kind, SHOP, "catalog")?;
        let all = &object["status"];
        // Routes say it to each parent.
        let all =
            all["conditions"].as_array().or_else(|| all["parents"][0]["conditions"].as_array())?;
        let found = all.iter().find(|one| one["type"] == "Accepted")?;
        let same = found["observedGeneration"] == generation && found["status"] == status;
        same.then(|| found["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

#[tokio::test]
async fn a_policy_of_the_api_decides_who_asks() -> anyhow::Result<()> {
    let world = World::start().await?;
    let client = world.client().await?;
    client.reaches("catalog.shop", "catalog-v1").await?;
    let rule = |account: &str| {
        json!({
            "targetRefs": [{"group": "", "kind": "Service", "name": "catalog"}],
            "rules": [{"from": {"serviceAccounts": [account]}, "to": {"paths": ["/products"]}}],
        })
    };
    world.kubernetes.apply(policy(rule("cart")));
    accepted(&world.kubernetes, "authorizationpolicies", (1, "True")).await?;
    answers(&client, "/products", 403).await?;

    world.kubernetes.apply(policy(rule("shopper")));
    accepted(&world.kubernetes, "authorizationpolicies", (2, "True")).await?;
    answers(&client, "/products", 200).await?;
    answers(&client, "/other", 403).await?;

    // Whoever writes it wrong is told, and nobody gets in by that.
    let mut wrong = rule("shopper");
    wrong["action"] = json!("Forbid");
    world.kubernetes.apply(policy(wrong));
    let message = accepted(&world.kubernetes, "authorizationpolicies", (3, "False")).await?;
    assert!(message.contains("spec.action"), "{message}");
    answers(&client, "/products", 200).await?;
    answers(&client, "/other", 403).await?;

    world.kubernetes.delete("authorizationpolicies", SHOP, "catalog");
    answers(&client, "/other", 200).await
}

#[tokio::test]
async fn a_grpc_route_of_the_api_is_followed() -> anyhow::Result<()> {
    let world = World::start().await?;
    let client = world.client().await?;
    client.reaches("catalog.shop", "catalog-v1").await?;
    world.kubernetes.delete("httproutes", SHOP, "catalog");
    world.kubernetes.apply(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
        "metadata": {"name": "catalog", "namespace": SHOP},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "catalog"}],
            "rules": [
                {"matches": [{"method": {"service": "shop.v1.Catalog", "method": "Find"}}],
                    "backendRefs": [{"name": "catalog-v2", "port": 80}]},
                {"backendRefs": [{"name": "catalog-v1", "port": 80}]},
            ],
        },
    }));
    accepted(&world.kubernetes, "grpcroutes", (1, "True")).await?;
    for (method, wanted) in [("Find", "catalog-v2"), ("List", "catalog-v1")] {
        let mut ask = Ask::new(Method::POST, &format!("/shop.v1.Catalog/{method}"));
        "catalog.shop".clone_into(&mut ask.host);
        ask.headers = vec![("content-type".to_owned(), "application/grpc".to_owned())];
        wait::until(&format!("{method} goes to {wanted}"), || async {
            for _ in 0..10 {
                let answer = client::send(client.outbound, &ask).await.ok()?;
                if answer.header("x-endpoint") != Some(wanted) {
                    return None;
                }
            }
            Some(())
        })
        .await?;
    }
    Ok(())
}
