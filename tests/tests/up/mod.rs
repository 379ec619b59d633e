//! `pillion up`: the shop as processes of this machine, changed while it is under load.

mod edits;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use pillion_tests::mesh::ask;
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::program;
use pillion_tests::wait;
use rustix::process::{Pid, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A running `pillion up`.
struct Up {
    process: Process,
    dir: TempDir,
}

/// Its processes are in groups of their own: only `pillion up` itself can end them all.
impl Drop for Up {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        let begun = Instant::now();
        while self.process.status().is_none() && begun.elapsed() < wait::LIMIT {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Up {
    fn start(files: &Path) -> anyhow::Result<Self> {
        Self::start_with(files, &[])
    }

    fn start_with(files: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = Command::new(program("pillion")?);
        command.arg("up").arg("-f").arg(files).arg("--data-dir").arg(dir.path()).args(more);
        let process = Process::start("up", &mut command, &dir.path().join("up.log"))?;
        Ok(Self { process, dir })
    }

    async fn says(&self, text: &str) -> anyhow::Result<()> {
        let said = || async { self.process.log().contains(text).then_some(()) };
        self.process.ready(&format!("it says `{text}`"), said).await
    }

    /// Runs a command to its end; what else the test does goes on meanwhile.
    async fn pillion(&self, args: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(program("pillion")?);
        let data = ["--data-dir".as_ref(), self.dir.path().as_os_str()];
        command.args(&args[..1]).args(data).args(&args[1..]);
        Ok(tokio::task::spawn_blocking(move || command.output()).await??)
    }

    async fn change(&self, args: &[&str]) -> anyhow::Result<()> {
        let output = self.pillion(args).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{args:?}: {said}\n{}", self.process.describe());
        Ok(())
    }

    async fn rows(&self) -> anyhow::Result<Vec<Value>> {
        let output = self.pillion(&["ps", "--output", "json"]).await?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    async fn names(&self, process: &str) -> anyhow::Result<Vec<String>> {
        let rows = self.rows().await?;
        let of = rows.iter().filter(|row| row["process"] == process);
        Ok(of.filter_map(|row| row["name"].as_str().map(str::to_owned)).collect())
    }
}

/// Asks for the shop's front again and again; how many answers there were, and which were bad.
async fn load(proxy: SocketAddr, stop: Arc<AtomicBool>) -> (u32, Vec<String>) {
    let (mut count, mut bad) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        match ask(proxy, "web.default", "/").await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => bad.push(format!("{} {}", answer.status, answer.text())),
            Err(error) => bad.push(format!("{error:#}")),
        }
    }
    (count, bad)
}

#[tokio::test]
async fn rolling_restarts_and_scaling_fail_no_request() -> anyhow::Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop/mesh");
    let up = Up::start(&example)?;
    up.says("everything is up").await?;
    let rows = up.rows().await?;
    assert!(rows.iter().all(|row| row["state"] == "ready"), "{rows:#?}");
    let shopper = rows.iter().find(|row| row["process"] == "shopper").context("a shopper")?;
    let proxy: SocketAddr = shopper["outbound"].as_str().context("an address")?.parse()?;
    let stop = Arc::new(AtomicBool::new(false));
    let running: Vec<_> = (0..3).map(|_| tokio::spawn(load(proxy, Arc::clone(&stop)))).collect();

    let before = up.names("web").await?;
    for args in [
        ["restart", "web"],
        ["scale", "catalog-v1=3"],
        ["restart", "cart"],
        ["scale", "catalog-v1=1"],
    ] {
        up.change(&args).await?;
    }
    stop.store(true, Ordering::Relaxed);
    let mut answers = 0;
    for task in running {
        let (count, bad) = task.await?;
        assert!(bad.is_empty(), "{} of {count} failed: {bad:#?}", bad.len());
        answers += count;
    }
    assert!(answers > 20, "there was load: {answers}");
    let after = up.names("web").await?;
    assert_eq!(after.len(), before.len());
    assert!(after.iter().all(|name| !before.contains(name)), "{before:?} {after:?}");
    assert_eq!(up.names("catalog-v1").await?.len(), 1);

    // It is found by its data folder.
    let status = up.pillion(&["status"]).await?;
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && said.contains("~cart-2.default"), "{said}");

    let unknown = up.pillion(&["restart", "nonsense"]).await?;
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("expected one of"), "{said}");

    let pids: Vec<i32> =
        up.rows().await?.iter().filter_map(|row| row["pid"].as_i64()?.try_into().ok()).collect();
    up.process.signal(Signal::INT);
    assert!(up.process.ended().await?.success(), "{}", up.process.describe());
    for pid in pids {
        let gone = Pid::from_raw(pid).is_none_or(|pid| test_kill_process(pid).is_err());
        assert!(gone, "{pid} still runs");
    }
    Ok(())
}

/// Even where they take no notice of who started them: SIGTERM first, then SIGKILL.
#[tokio::test]
async fn when_it_is_killed_nothing_goes_on() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, told) = (dir.path().join("mesh.yaml"), dir.path().join("told"));
    let stubborn =
        format!("trap 'echo told > {}' TERM; while true; do sleep 0.1; done", told.display());
    let documents =
        [("stubborn", stubborn.as_str()), ("calm", "sleep 1000 & wait")].map(|(name, script)| {
            let command = serde_json::json!(["sh", "-c", script]);
            process(
                name,
                &format!("{{command: {command}, listens: false, terminationGracePeriod: 1s}}"),
            )
        });
    std::fs::write(&file, documents.join("---\n").replacen(MESH, "", 1))?;
    let up = Up::start(&file)?;
    up.says("everything is up").await?;
    let rows = up.rows().await?;
    let pids: Vec<i32> =
        rows.iter().filter_map(|row| row["pid"].as_i64()?.try_into().ok()).collect();
    assert_eq!(pids.len(), 2, "{rows:#?}");
    up.process.signal(Signal::KILL);
    for pid in pids {
        // The group, and with it what the program started.
        let group = Pid::from_raw(pid).context("a process")?;
        let gone =
            || async { rustix::process::test_kill_process_group(group).is_err().then_some(()) };
        wait::until(&format!("{pid} is gone"), gone).await?;
    }
    assert!(told.exists(), "it was asked first");
    Ok(())
}

const MESH: &str = "apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: test}
spec: {trustDomain: test.local}
";

fn process(name: &str, spec: &str) -> String {
    format!(
        "{MESH}---\napiVersion: pillion.io/v1alpha1\nkind: Process\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

#[tokio::test]
async fn jobs_end_and_crashes_are_shown() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("mesh.yaml");
    let text = process("job", "{command: [sh, -c, echo done], listens: false, restart: OnFailure}");
    std::fs::write(&file, text)?;
    let up = Up::start(&file)?;
    up.says("everything is up").await?;
    up.says("done").await?;
    up.says("job-1 ended: exit status: 0").await?;
    let stopped = || async {
        let rows = up.rows().await.ok()?;
        (rows[0]["state"] == "stopped" && rows[0]["restarts"] == 0).then_some(())
    };
    up.process.ready("the job is not started again", stopped).await?;
    up.change(&["down"]).await?;
    assert!(up.process.ended().await?.success(), "{}", up.process.describe());

    let text = process("crash", "{command: [sh, -c, 'echo no luck; exit 3']}");
    std::fs::write(&file, text)?;
    let up = Up::start(&file)?;
    let status = up.process.ended().await?;
    let log = up.process.log();
    assert!(!status.success(), "{log}");
    assert!(log.contains("crash-1: ended: exit status: 3") && log.contains("no luck"), "{log}");
    Ok(())
}

#[tokio::test]
async fn mistakes_are_told_with_their_place() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("mesh.yaml");
    std::fs::write(&file, process("web", "{comand: [web]}"))?;
    let up = Up::start(&file)?;
    assert!(!up.process.ended().await?.success());
    let log = up.process.log();
    assert!(log.contains("mesh.yaml:9") && log.contains("did you mean `command`"), "{log}");
    Ok(())
}
