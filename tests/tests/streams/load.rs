//! Load reports (LRS): the same traffic through both proxies is told alike.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::mesh::ask;
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, socket_address};
use pillion_tests::xds_server::{self, XdsServer};
use serde_json::{Value, json};

use super::{cluster, listener, proxies, table};

/// Issued, succeeded and failed requests by cluster and zone, and those shed, of all reports.
fn sums(server: &XdsServer) -> BTreeMap<String, u64> {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut sums = BTreeMap::new();
    for message in server.heard() {
        for cluster in message["report"].as_array().into_iter().flatten() {
            let name = cluster["cluster_name"].as_str().unwrap_or_default();
            for locality in cluster["upstream_locality_stats"].as_array().into_iter().flatten() {
                let zone = locality["locality"]["zone"].as_str().unwrap_or_default();
                for field in ["issued", "successful", "error"] {
                    let count = number(&locality[format!("total_{field}_requests")]);
                    *sums.entry(format!("{name} {zone} {field}")).or_default() += count;
                }
                for endpoint in locality["upstream_endpoint_stats"].as_array().into_iter().flatten()
                {
                    let count = number(&endpoint["total_issued_requests"]);
                    *sums.entry(format!("{name} {zone} by endpoint")).or_default() += count;
                }
            }
            for shed in cluster["dropped_requests"].as_array().into_iter().flatten() {
                let category = shed["category"].as_str().unwrap_or_default();
                let count = number(&shed["dropped_count"]);
                *sums.entry(format!("{name} shed {category}")).or_default() += count;
            }
        }
    }
    sums.retain(|_, count| *count > 0);
    sums
}

/// Clusters with two zones, one that sheds everything, one that nobody answers for, and the server's.
fn bootstrap([app, other]: [&Backend; 2], [front, port, nobody]: [&Port; 3]) -> Bootstrap {
    let localities = [("a", app), ("b", other)].map(|(zone, backend)| {
        json!({
            "locality": {"region": "r", "zone": zone},
            "lb_endpoints": [{"endpoint": {"address": socket_address(backend.address)}}],
        })
    });
    let mut zoned = cluster("zones", app);
    zoned["load_assignment"] = json!({"cluster_name": "zones", "endpoints": localities});
    let mut sheds = cluster("sheds", app);
    sheds["load_assignment"]["policy"] = json!({"drop_overloads": [
        {"category": "everything", "drop_percentage": {"numerator": 100}},
    ]});
    let mut away = cluster("away", app);
    away["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"] =
        socket_address(nobody.address());
    let mut routes = table("all", "zones");
    let to =
        |name: &str| json!({"match": {"prefix": format!("/{name}")}, "route": {"cluster": name}});
    routes["virtual_hosts"][0]["routes"] = json!(["sheds", "away", "zones"].map(to));
    let mut bootstrap = Bootstrap::of(
        vec![listener(front.address(), "route_config", routes)],
        vec![xds_server::cluster("lrs", port.address()), zoned, sheds, away],
    );
    bootstrap.config["cluster_manager"] = json!({"load_stats_config": {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "lrs"}}],
    }});
    bootstrap
}

async fn story(kind: Kind) -> anyhow::Result<BTreeMap<String, u64>> {
    let dir = tempfile::tempdir()?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let other = Backend::start("other", Speaks::Http1).await?;
    let [front, port, nobody] = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
    let at = [port.address().to_string()];
    let asked = json!({"lrs": {
        "send_all_clusters": true,
        "report_endpoint_granularity": true,
        "load_reporting_interval": "0.2s",
    }});
    let server = XdsServer::start(dir.path(), &at, &asked).await?;
    let proxy = Proxy::start(kind, bootstrap([&app, &other], [&front, &port, &nobody])).await?;
    let reported = |_: ()| async {
        let heard = server.heard();
        let full = heard.iter().filter(|one| one["report"].as_array().is_some_and(|r| r.len() > 2));
        (full.count() > 0).then_some(())
    };
    proxy.process.ready("the first report", || reported(())).await?;
    let hello = server.heard().first().cloned().context("nothing was heard")?;
    ensure!(hello["node"] == "test" && hello["report"] == json!([]), "{hello}");
    for path in ["/zones", "/zones", "/zones", "/zones/404", "/sheds", "/sheds", "/away"] {
        ask(front.address(), "any", path).await?;
    }
    let all = proxy.process.ready("everything is reported", || async {
        let sums = sums(&server);
        let issued = |zone: &str| sums.get(&format!("zones {zone} issued")).copied().unwrap_or(0);
        let shed = sums.get("sheds shed everything");
        (issued("a") + issued("b") == 4 && shed == Some(&2)).then_some(sums)
    });
    let mut all = all.await?;
    all.retain(|name, _| !name.starts_with("lrs"));
    Ok(all)
}

#[tokio::test]
async fn both_proxies_report_the_same_of_the_same() -> anyhow::Result<()> {
    let mut told = Vec::new();
    for kind in proxies()? {
        told.push(story(kind).await.with_context(|| format!("{kind:?}"))?);
    }
    ensure!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:#?}");
    Ok(())
}
