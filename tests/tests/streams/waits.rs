//! How long a listener waits for its routes: as long as their source says.

use anyhow::{Context, ensure};
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::mesh::{ask, reaches};
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy};
use pillion_tests::wait;
use pillion_tests::xds_server::{self, XdsServer, source};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{
    CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, eds_cluster, endpoints, listener, proxies, table,
};

/// Everything on streams of its own; the listeners' routes are waited for so long.
async fn story(kind: Kind, api_type: &str) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let [first, quick] = [Port::reserve()?, Port::reserve()?];
    let [patient, port] = [Port::reserve()?, Port::reserve()?];
    let from = source("xds", api_type);
    let waits = |name: &str, port: &Port, timeout: &str| {
        let mut from = from.clone();
        from["initial_fetch_timeout"] = json!(timeout);
        let rds = json!({"route_config_name": name, "config_source": from});
        let mut made = listener(port.address(), "rds", rds);
        made["name"] = json!(name);
        made
    };
    let mut resources = json!({
        LISTENERS: [waits("first", &first, "15s")],
        CLUSTERS: [eds_cluster("app", from.clone())],
        ENDPOINTS: [endpoints("app", &app)],
        ROUTES: [table("first", "app")],
    });
    let at = [port.address().to_string()];
    let server = XdsServer::start(dir.path(), &at, &resources).await?;
    let mut bootstrap = Bootstrap::of(Vec::new(), vec![xds_server::cluster("xds", port.address())]);
    bootstrap.config["dynamic_resources"] = json!({"lds_config": from, "cds_config": from});
    let proxy = Proxy::start(kind, bootstrap).await?;
    reaches(first.address(), "any", "app").await?;

    // While a proxy starts, Envoy opens no listener before all are there; this is later.
    resources[LISTENERS] = json!([
        waits("first", &first, "15s"),
        waits("quick", &quick, "0.5s"),
        waits("patient", &patient, "0s"),
    ]);
    server.serve(&resources)?;
    let empty = proxy.process.ready("the quick listener gives up", || async {
        let answer = ask(quick.address(), "any", "/").await.ok()?;
        (answer.status == 404).then_some(())
    });
    // Delta says at once what does not exist: then nobody waits.
    if api_type == "GRPC" {
        empty.await?;
        ensure!(TcpStream::connect(patient.address()).await.is_err(), "the patient one waits");
    }
    let tables: Vec<Value> = ["first", "quick", "patient"].map(|name| table(name, "app")).into();
    resources[ROUTES] = json!(tables);
    server.serve(&resources)?;
    for port in [&quick, &patient] {
        let served = wait::until("the routes are there", || async {
            reaches(port.address(), "any", "app").await.ok()
        });
        served.await?;
    }
    Ok(())
}

#[tokio::test]
async fn everything_on_streams_of_its_own_and_as_patient_as_it_is_told() -> anyhow::Result<()> {
    for kind in proxies()? {
        story(kind, "GRPC").await.with_context(|| format!("{kind:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn everything_on_delta_streams_of_its_own() -> anyhow::Result<()> {
    for kind in proxies()? {
        story(kind, "DELTA_GRPC").await.with_context(|| format!("{kind:?}"))?;
    }
    Ok(())
}
