//! A machine that systemd itself has booted: a container of `systemd-nspawn` whose files are those of this machine, with
//! changes that go when it does, and the programs under test in `/usr/bin`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pillion_tests::netns::Host;
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::program;
use pillion_tests::wait;
use tempfile::TempDir;

/// How long it may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// The machine. Dropping it shuts it down.
#[derive(Debug)]
pub(super) struct Machine {
    name: &'static str,
    container: Process,
    files: Files,
    /// Process id of its systemd.
    pid: u32,
}

/// Its file system: that of this machine, with a layer of its own in memory.
#[derive(Debug)]
struct Files {
    dir: TempDir,
}

impl Files {
    fn mount() -> anyhow::Result<Self> {
        let files = Self { dir: tempfile::tempdir()? };
        let at = files.dir.path();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tmpfs"]).arg(at))?;
        for name in ["changes", "work", "root", "shared"] {
            fs::create_dir(at.join(name))?;
        }
        let layers = format!(
            "lowerdir=/,upperdir={},workdir={}",
            at.join("changes").display(),
            at.join("work").display()
        );
        run(Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &layers])
            .arg(files.root()))?;
        Ok(files)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// What this machine has enabled stays out; Debian's own units are enough.
    fn prepare(&self) -> anyhow::Result<()> {
        let etc = self.root().join("etc");
        fs::remove_dir_all(etc.join("systemd/system"))?;
        fs::create_dir(etc.join("systemd/system"))?;
        // An empty one would have everything enabled that is installed.
        let id = format!("{:032x}", u128::from(std::process::id()) + 0x7069_6c6c_696f_6e00);
        fs::write(etc.join("machine-id"), format!("{id}\n"))?;
        Ok(())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        for mounted in [self.root(), self.dir.path().to_owned()] {
            let _ = Command::new("umount").arg("--lazy").arg(mounted).status();
        }
    }
}

impl Machine {
    /// Boots one with the network of `host`, and waits until everything is started.
    pub(super) async fn boot(name: &'static str, host: &Host) -> anyhow::Result<Self> {
        let files = Files::mount()?;
        files.prepare()?;
        let root = files.root();
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize()?;
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe", "--machine"]);
        command.arg(format!("{name}-{}", std::process::id())).arg("--directory").arg(&root);
        command.arg(format!("--network-namespace-path={}", host.path().display()));
        command.arg(format!("--bind-ro={}:/srv/examples", examples.display()));
        command.arg(format!("--bind={}:/shared", files.dir.path().join("shared").display()));
        for name in ["pillion", "pillion-proxy", "pillion-shop"] {
            command.arg(format!("--bind-ro={}:/usr/bin/{name}", program(name)?.display()));
        }
        command.args(["--boot", "systemd.unit=multi-user.target"]);
        let container = Process::start(name, &mut command, &files.dir.path().join("log"))?;
        let init = || async { child_of(container.id()) };
        let pid = container.ready("systemd is there", init).await?;
        let machine = Self { name, container, files, pid };
        let booted = || async {
            let output = machine.command("systemctl is-system-running").output().ok()?;
            let said = String::from_utf8_lossy(&output.stdout);
            ["running", "degraded"].contains(&said.trim()).then_some(())
        };
        machine.container.ready("systemd has booted", booted).await?;
        Ok(machine)
    }

    /// Runs a script to its good end; what it wrote.
    pub(super) async fn run(&self, script: &str) -> anyhow::Result<String> {
        let mut command = self.command(script);
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let failed = || {
            let journal = self.command("journalctl --no-pager -n 60").output();
            let journal =
                journal.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            format!("on {}: {script}\n{said}\n{}", self.name, journal.unwrap_or_default())
        };
        ensure!(output.status.success(), "{}", failed());
        Ok(said)
    }

    /// Runs it again and again until `good` likes what it wrote.
    pub(super) async fn until(
        &self,
        script: &str,
        good: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        let last = std::cell::RefCell::new(String::new());
        let again = || async {
            let said = self.run(script).await;
            let is_good = said.as_ref().is_ok_and(|said| good(said));
            *last.borrow_mut() = said.unwrap_or_else(|error| format!("{error:#}"));
            is_good.then_some(())
        };
        let found = wait::until(script, again).await;
        found.with_context(|| last.borrow().clone())
    }

    /// A folder of this machine that it has as `/shared`.
    pub(super) fn shared(&self) -> PathBuf {
        self.files.dir.path().join("shared")
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string()]);
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root"]);
        command.args(["env", "-i", "PATH=/shared/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
        command.args(["bash", "-e", "-o", "pipefail", "-c", &format!("cd /srv\n{script}")]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.container.signal(Signal::TERM);
        let begun = Instant::now();
        while self.container.status().is_none() && begun.elapsed() < SHUTDOWN {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The first process that this one has started.
fn child_of(pid: i32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let child = children.split_whitespace().next()?.parse().ok()?;
    // It has become systemd.
    let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
    (name.trim() == "systemd").then_some(child)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(())
}
