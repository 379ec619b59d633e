//! The API server comes and goes.

use serde_json::json;

use super::world::{SHOP, World, condition, route};

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
