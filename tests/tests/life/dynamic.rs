//! Resources of a management server that is not ours.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use pillion_tests::ads::{Ads, follow, python};
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client;
use pillion_tests::mesh::{ask, reaches};
use pillion_tests::port::Port;
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::{optional, program};
use pillion_tests::{wait, yaml};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{cluster, listener};

const LISTENERS: &str = "envoy.config.listener.v3.Listener";
const CLUSTERS: &str = "envoy.config.cluster.v3.Cluster";

/// A proxy of ours that follows a management server.
struct Follower {
    dir: TempDir,
    server: Port,
    admin: Port,
    front: Port,
}

impl Follower {
    fn new() -> anyhow::Result<Self> {
        let [server, admin, front] = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
        Ok(Self { dir: tempfile::tempdir()?, server, admin, front })
    }

    fn start(&self, data: &Path) -> anyhow::Result<Process> {
        let mut bootstrap = yaml::parse("node: {id: follower, cluster: test}")?;
        let admin = pillion_tests::proxy::socket_address(self.admin.address());
        bootstrap["admin"] = json!({"address": admin});
        follow(&mut bootstrap, self.server.address());
        let file = self.dir.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap.to_string())?;
        let mut command = Command::new(program("pillion-proxy")?);
        command.arg("-c").arg(file).arg("--data-dir").arg(data).args(["--concurrency", "1"]);
        Process::start("pillion", &mut command, &self.dir.path().join("proxy.log"))
    }

    fn resources(&self, cluster_name: &str, clusters: Vec<Value>) -> Value {
        json!({
            LISTENERS: [listener("front", self.front.address(), cluster_name)],
            CLUSTERS: clusters,
        })
    }

    async fn answers(&self, endpoint: &str) -> anyhow::Result<()> {
        reaches(self.front.address(), "any", endpoint).await
    }
}

#[tokio::test]
async fn a_refused_resource_is_named_and_the_rest_is_served() -> anyhow::Result<()> {
    if optional("grpcio and xds-protos", python())?.is_none() {
        return Ok(());
    }
    let app = Backend::start("app", Speaks::Http1).await?;
    let follower = Follower::new()?;
    let mut bad = cluster("bad", app.address);
    bad["lrs_report_endpoint_metrics"] = json!(["cpu_utilization"]);
    let resources = follower.resources("good", vec![bad, cluster("good", app.address)]);
    let ads = Ads::start(follower.dir.path(), &follower.server, &resources).await?;
    let proxy = follower.start(&follower.dir.path().join("data"))?;
    follower.answers("app").await?;

    // The server is told which resource, which field and why.
    let nack = ads.process.ready("the NACK arrives", || async {
        let log = ads.process.log();
        log.lines().find(|line| line.starts_with("NACK")).map(str::to_owned)
    });
    let nack = nack.await?;
    for part in ["Cluster", "bad", "lrs_report_endpoint_metrics", "not supported"] {
        assert!(nack.contains(part), "no `{part}` in {nack}");
    }
    let log = proxy.log();
    assert!(log.contains("bad") && log.contains("lrs_report_endpoint_metrics"), "{log}");

    // The dump has what is in force, and what was refused with its reason.
    let dump = client::get(follower.admin.address(), "/config_dump").await?.text();
    let dump: Value = serde_json::from_str(&dump)?;
    let clusters = dump["configs"].as_array().into_iter().flatten();
    let clusters = clusters.filter_map(|one| one["dynamic_active_clusters"].as_array());
    let clusters: Vec<_> = clusters.flatten().collect();
    assert!(clusters.iter().any(|one| one["cluster"]["name"] == "good"), "{clusters:#?}");
    let bad =
        clusters.iter().find(|one| one["name"] == "bad").map(|one| one["error_state"].to_string());
    assert!(
        bad.as_ref().is_some_and(|text| text.contains("lrs_report_endpoint_metrics")),
        "{clusters:#?}"
    );

    // Once it is right, it is taken.
    ads.serve(&follower.resources("bad", vec![cluster("bad", app.address)]))?;
    let answer = wait::until("the mended cluster is there", || async {
        let stats = client::get(follower.admin.address(), "/clusters").await.ok()?.text();
        stats.contains("bad::").then_some(())
    });
    answer.await?;
    follower.answers("app").await
}

#[tokio::test]
async fn a_proxy_restarts_without_its_server() -> anyhow::Result<()> {
    if optional("grpcio and xds-protos", python())?.is_none() {
        return Ok(());
    }
    let app = Backend::start("app", Speaks::Http1).await?;
    let follower = Follower::new()?;
    let data = follower.dir.path().join("data");
    let resources = follower.resources("app", vec![cluster("app", app.address)]);
    let ads = Ads::start(follower.dir.path(), &follower.server, &resources).await?;
    let proxy = follower.start(&data)?;
    follower.answers("app").await?;
    let file = data.join("last-good.binpb");
    wait::until("the last good configuration is kept", || async { file.exists().then_some(()) })
        .await?;
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await?.success(), "{}", proxy.describe());
    drop(ads);

    let proxy = follower.start(&data)?;
    follower.answers("app").await?;
    drop(proxy);

    // A damaged file is told, and is no reason to end.
    std::fs::write(&file, b"\xff\xff\xff damaged")?;
    let proxy = follower.start(&data)?;
    let told = || async { proxy.log().contains("last-good.binpb").then_some(()) };
    proxy.ready("the damaged file is told", told).await?;
    let _ads = Ads::start(follower.dir.path(), &follower.server, &resources).await?;
    follower.answers("app").await
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_proxy_goes_on() -> anyhow::Result<()> {
    if optional("grpcio and xds-protos", python())?.is_none() {
        return Ok(());
    }
    let app = Backend::start("app", Speaks::Http1).await?;
    let follower = Follower::new()?;
    // A disk of two pages; who may not mount one gets a folder that cannot be written.
    let disk = follower.dir.path().join("disk");
    std::fs::create_dir(&disk)?;
    let _mounted = Mounted::tmpfs(&disk);
    if std::fs::write(disk.join("filler"), vec![0; 1 << 20]).is_ok() {
        std::fs::remove_dir_all(&disk)?;
        std::fs::write(&disk, "no folder")?;
    }
    let resources = follower.resources("app", vec![cluster("app", app.address)]);
    let _ads = Ads::start(follower.dir.path(), &follower.server, &resources).await?;
    let proxy = follower.start(&disk)?;
    follower.answers("app").await?;
    let told = || async {
        let log = proxy.log();
        (log.contains("WARN") && log.contains(&*disk.to_string_lossy())).then_some(())
    };
    proxy.ready("the full disk is told with its path", told).await?;
    assert_eq!(ask(follower.front.address(), "any", "/").await?.status, 200);
    Ok(())
}

/// A small file system that goes away with this.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn tmpfs(path: &'a Path) -> Option<Self> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=8k", "pillion-test"]).arg(path);
        let fine = command.output().is_ok_and(|output| output.status.success());
        fine.then_some(Self(path))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).output();
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_and_the_other_listeners_serve() -> anyhow::Result<()> {
    if optional("grpcio and xds-protos", python())?.is_none() {
        return Ok(());
    }
    let app = Backend::start("app", Speaks::Http1).await?;
    let follower = Follower::new()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let mut resources = follower.resources("app", vec![cluster("app", app.address)]);
    if let Some(listeners) = resources[LISTENERS].as_array_mut() {
        listeners.push(listener("second", address, "app"));
    }
    let _ads = Ads::start(follower.dir.path(), &follower.server, &resources).await?;
    let proxy = follower.start(&follower.dir.path().join("data"))?;
    follower.answers("app").await?;
    let told = || async {
        let log = proxy.log();
        let line = log.lines().find(|line| line.contains(&address.to_string()))?;
        (line.contains("second") && line.contains("in use")).then_some(())
    };
    proxy.ready("the port in use is told", told).await
}
