//! `pillion demo`, and what must not hurt it: a killed instance, an edited route, a killed control
//! plane.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use pillion_tests::client;
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::program;
use pillion_tests::wait;
use rustix::process::{Pid, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// One at a time: a demo is more than 25 processes, and two under load leave none of them the time to answer.
static ALONE: Mutex<()> = Mutex::const_new(());

/// A running demo with its load.
struct Demo {
    process: Process,
    dir: TempDir,
    fleet: Value,
    /// The last to go.
    _alone: MutexGuard<'static, ()>,
}

impl Demo {
    async fn start(args: &[&str]) -> anyhow::Result<Self> {
        let alone = ALONE.lock().await;
        let dir = tempfile::tempdir()?;
        let mesh = dir.path().join("mesh");
        std::fs::create_dir(&mesh)?;
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop/mesh");
        for entry in std::fs::read_dir(example)? {
            let entry = entry?;
            std::fs::copy(entry.path(), mesh.join(entry.file_name()))?;
        }
        let mut command = Command::new(program("pillion")?);
        command.args(["demo", "--no-tui", "--output", "json", "--concurrency", "4"]);
        command.arg("--dir").arg(&mesh).arg("--keep-logs").arg(dir.path().join("logs"));
        let log = dir.path().join("demo.log");
        let process = Process::start("demo", command.args(args), &log)?;
        let file = dir.path().join("logs/fleet.json");
        let described = || async { serde_json::from_slice(&std::fs::read(&file).ok()?).ok() };
        let fleet = process.ready("the demo's fleet is up", described).await?;
        Ok(Self { process, dir, fleet, _alone: alone })
    }

    fn route_file(&self) -> PathBuf {
        self.dir.path().join("mesh/catalog-route.yaml")
    }

    /// Waits until the sidecars of this group served `more` requests more than now.
    async fn serves(&self, group: &str, more: u64) -> anyhow::Result<()> {
        let before = self.served(group).await;
        let enough = || async { (self.served(group).await >= before + more).then_some(()) };
        self.process.ready(&format!("{group} serves {more} requests more"), enough).await
    }

    async fn served(&self, group: &str) -> u64 {
        let mut sum = 0;
        for instance in self.fleet["instances"].as_array().into_iter().flatten() {
            let admin = instance["admin"].as_str().and_then(|text| text.parse().ok());
            if instance["group"] != group || admin.is_none() {
                continue;
            }
            let Some(admin) = admin else { continue };
            let Ok(stats) = client::get(admin, "/stats").await else { continue };
            let text = stats.text();
            let inbound = text.lines().filter(|line| line.starts_with("http.inbound"));
            let values = inbound.filter_map(|line| line.split_once("downstream_rq_total: "));
            sum += values.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).sum::<u64>();
        }
        sum
    }

    fn pids(&self) -> Vec<i64> {
        let instances = self.fleet["instances"].as_array().into_iter().flatten();
        let of_instance =
            |instance: &Value| ["app_pid", "sidecar_pid"].map(|key| instance[key].as_i64());
        let all = instances.flat_map(of_instance).flatten();
        all.chain(self.fleet["control_plane"]["pid"].as_i64()).collect()
    }

    /// Ends it by Ctrl-C, and returns its summary.
    async fn finish(self) -> anyhow::Result<Value> {
        self.process.signal(Signal::INT);
        let status = self.process.ended().await?;
        let log = self.process.log();
        anyhow::ensure!(status.success(), "{status}\n{log}");
        let begin = log.rfind("\n{\n").map_or(0, |at| at + 1);
        let mut values = serde_json::Deserializer::from_str(&log[begin..]).into_iter();
        values.next().context("no summary")?.with_context(|| log.clone())
    }
}

fn kill(pid: &Value) -> anyhow::Result<()> {
    let pid = i32::try_from(pid.as_i64().context("a process id")?)?;
    let pid = Pid::from_raw(pid).context("a process id is not zero")?;
    kill_process(pid, Signal::KILL).context("kill")
}

fn is_gone(pid: i64) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_none_or(|pid| test_kill_process(pid).is_err())
}

fn assert_unhurt(summary: &Value) {
    assert_eq!(summary["failed"], 0, "{summary:#}");
    assert!(summary["requests"].as_u64() > Some(0), "{summary:#}");
    assert_eq!(summary["mtls_percent"], 100.0, "{summary:#}");
}

#[tokio::test]
async fn killing_an_instance_costs_no_request() -> anyhow::Result<()> {
    let demo = Demo::start(&["--rate", "60"]).await?;
    demo.serves("reviews", 40).await?;
    let instances = demo.fleet["instances"].as_array().context("instances")?;
    let victim = instances.iter().find(|one| one["name"] == "reviews-1").context("reviews-1")?;
    kill(&victim["app_pid"])?;
    kill(&victim["sidecar_pid"])?;
    demo.serves("reviews", 80).await?;
    let summary = demo.finish().await?;
    assert_unhurt(&summary);
    assert!(summary["restarts"].as_u64() >= Some(1), "{summary:#}");
    Ok(())
}

#[tokio::test]
async fn editing_the_route_shifts_the_traffic_and_costs_no_request() -> anyhow::Result<()> {
    let demo = Demo::start(&["--rate", "60"]).await?;
    demo.serves("catalog-v1", 40).await?;
    let text = std::fs::read_to_string(demo.route_file())?;
    let all = text.replace("weight: 90", "weight: 0").replace("weight: 10", "weight: 100");
    anyhow::ensure!(all != text, "the example's weights are 90 and 10");
    std::fs::write(demo.route_file(), all)?;
    demo.serves("catalog-v2", 60).await?;
    // What is on its way may still end at v1; after that nothing does.
    let settled = wait::until("v1 is left alone", || async {
        let before = demo.served("catalog-v1").await;
        demo.serves("catalog-v2", 30).await.ok()?;
        (demo.served("catalog-v1").await == before).then_some(())
    });
    settled.await?;
    let summary = demo.finish().await?;
    assert_unhurt(&summary);
    Ok(())
}

#[tokio::test]
async fn killing_the_control_plane_costs_no_request() -> anyhow::Result<()> {
    let demo = Demo::start(&["--rate", "60"]).await?;
    demo.serves("web", 40).await?;
    kill(&demo.fleet["control_plane"]["pid"])?;
    demo.serves("web", 120).await?;
    let summary = demo.finish().await?;
    assert_unhurt(&summary);
    assert!(summary["restarts"].as_u64() >= Some(1), "the control plane came back: {summary:#}");
    Ok(())
}

#[tokio::test]
async fn the_demo_ends_by_itself_and_leaves_no_process_behind() -> anyhow::Result<()> {
    let demo = Demo::start(&["--requests", "300"]).await?;
    let pids = demo.pids();
    assert!(pids.len() > 20, "{:#}", demo.fleet);
    let status = demo.process.ended().await?;
    assert!(status.success(), "{}", demo.process.log());
    let left: Vec<_> = pids.into_iter().filter(|pid| !is_gone(*pid)).collect();
    assert!(left.is_empty(), "still running: {left:?}");
    Ok(())
}
