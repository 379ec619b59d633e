//! Resources in files that are replaced.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::ca::{Ca, spiffe};
use pillion_tests::mesh::reaches;
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy};
use pillion_tests::wait;
use serde_json::{Value, json};

use super::{
    CLUSTERS, ENDPOINTS, LISTENERS, ROUTES, SECRETS, cluster, eds_cluster, endpoints, listener,
    proxies, table,
};

/// A `DiscoveryResponse` of one resource, moved into its place.
fn put(path: &Path, kind: &str, mut resource: Value) -> anyhow::Result<()> {
    resource["@type"] = json!(format!("type.googleapis.com/{kind}"));
    let new = path.with_extension("new");
    std::fs::write(&new, json!({"version_info": "1", "resources": [resource]}).to_string())?;
    std::fs::rename(new, path)?;
    Ok(())
}

fn from(path: &Path) -> Value {
    json!({"resource_api_version": "V3", "path_config_source": {"path": path}})
}

async fn arrives(port: &Port, endpoint: &str) -> anyhow::Result<()> {
    let there =
        wait::until(endpoint, || async { reaches(port.address(), "any", endpoint).await.ok() });
    there.await
}

async fn story(kind: Kind) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    let (one, two) =
        (Backend::start("one", Speaks::Http1).await?, Backend::start("two", Speaks::Http1).await?);
    let port = Port::reserve()?;
    let rds = json!({"route_config_name": "routes", "config_source": from(&at("rds.json"))});
    put(&at("lds.json"), LISTENERS, listener(port.address(), "rds", rds))?;
    put(&at("rds.json"), ROUTES, table("routes", "app"))?;
    put(&at("cds.json"), CLUSTERS, eds_cluster("app", from(&at("eds.json"))))?;
    put(&at("eds.json"), ENDPOINTS, endpoints("app", &one))?;
    let mut bootstrap = Bootstrap::of(Vec::new(), vec![cluster("fixed", &one)]);
    bootstrap.config["dynamic_resources"] =
        json!({"lds_config": from(&at("lds.json")), "cds_config": from(&at("cds.json"))});
    let proxy = Proxy::start(kind, bootstrap).await?;
    arrives(&port, "one").await?;

    // Endpoints, then routes, then the clusters themselves.
    put(&at("eds.json"), ENDPOINTS, endpoints("app", &two))?;
    arrives(&port, "two").await?;
    put(&at("rds.json"), ROUTES, table("routes", "fixed"))?;
    arrives(&port, "one").await?;
    put(&at("cds.json"), CLUSTERS, cluster("other", &two))?;
    put(&at("rds.json"), ROUTES, table("routes", "other"))?;
    arrives(&port, "two").await?;
    // What cannot be read changes nothing.
    std::fs::write(at("bad"), "resources: [")?;
    std::fs::rename(at("bad"), at("rds.json"))?;
    put(&at("cds.json"), CLUSTERS, cluster("other", &one))?;
    arrives(&port, "one").await?;
    drop(proxy);
    Ok(())
}

#[tokio::test]
async fn files_are_taken_and_read_again() -> anyhow::Result<()> {
    for kind in proxies()? {
        story(kind).await.with_context(|| format!("{kind:?}"))?;
    }
    Ok(())
}

/// A certificate in a file that a secret in a file names: the folder says when both changed.
#[tokio::test]
async fn a_secret_in_a_file_is_read_again_when_its_folder_moves() -> anyhow::Result<()> {
    for kind in proxies()? {
        let dir = tempfile::tempdir()?;
        let folder = dir.path().join("watched");
        std::fs::create_dir(&folder)?;
        let app = Backend::start("app", Speaks::Http1).await?;
        let port = Port::reserve()?;
        let ca = Ca::new("ca")?;
        let leaf = ca.leaf(&spiffe("server"))?;
        let files = ca.write(&folder, "server", &leaf)?;
        let secret = json!({"name": "server", "tls_certificate": {
            "certificate_chain": {"filename": files.chain},
            "private_key": {"filename": files.key},
            "watched_directory": {"path": folder},
        }});
        put(&dir.path().join("sds.json"), SECRETS, secret)?;
        let mut front = listener(port.address(), "route_config", table("all", "app"));
        let context = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
        front["filter_chains"][0]["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": format!("type.googleapis.com/{context}"),
            "common_tls_context": {"tls_certificate_sds_secret_configs": [
                {"name": "server", "sds_config": from(&dir.path().join("sds.json"))},
            ]},
        }});
        let bootstrap = Bootstrap::of(vec![front], vec![cluster("app", &app)]);
        let proxy = Proxy::start(kind, bootstrap).await?;
        for turn in ["first", "second"] {
            let ca = Ca::new(turn)?;
            let leaf = ca.leaf(&spiffe("server"))?;
            ca.write(&folder, "server", &leaf)?;
            let trusting = ca.client(None, &["http/1.1"])?;
            let mut ask = pillion_tests::client::Ask::new(http::Method::GET, "/");
            ask.host = "any".to_owned();
            ask.tls = Some(trusting);
            let shown = proxy.process.ready("the new certificate is shown", || async {
                pillion_tests::client::send(port.address(), &ask).await.ok().map(drop)
            });
            shown.await.with_context(|| format!("{kind:?}"))?;
        }
    }
    Ok(())
}
