//! `pillion run`: a command with a sidecar of its own.

use std::path::Path;
use std::process::Command;

use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::mesh::{Beside, Mesh};
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::program;
use pillion_tests::wait;

use super::{STRICT, service};

/// Asks for a service of the mesh as any program does that minds HTTP_PROXY.
const ASK: &str = "import urllib.request
answer = urllib.request.urlopen('http://catalog.default/')
print('answered by', answer.headers['x-endpoint'])
raise SystemExit(7)
";

fn run(mesh: &Mesh, command: &[&str], log: &Path) -> anyhow::Result<Process> {
    let mut run = Command::new(program("pillion")?);
    run.args(["run", "--service", "job", "--control-plane", &mesh.xds_tls().to_string()]);
    run.arg("--token-file").arg(mesh.token()).arg("--").args(command);
    Process::start("run", &mut run, log)
}

#[tokio::test]
async fn a_job_reaches_the_mesh_and_its_exit_code_is_kept() -> anyhow::Result<()> {
    let mesh = Mesh::start(&[("mesh.yaml", STRICT), ("catalog.yaml", &service("catalog", "http"))])
        .await?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let catalog = mesh.sidecar(&Beside::new("catalog", "v1", app.address)).await?;
    let client = mesh.sidecar(&Beside::client("shopper")).await?;
    client.reaches("catalog.default", "app").await?;

    let job = run(&mesh, &["python3", "-c", ASK], &mesh.dir().join("job.log"))?;
    let status = job.ended().await?;
    assert_eq!(status.code(), Some(7), "{}", job.describe());
    assert!(job.log().contains("answered by app"), "{}", job.describe());
    drop(catalog);
    Ok(())
}

#[tokio::test]
async fn signals_are_the_commands() -> anyhow::Result<()> {
    let mesh = Mesh::start(&[("mesh.yaml", STRICT)]).await?;
    let script = "trap 'echo told; exit 3' TERM; echo begun; while :; do sleep 0.05; done";
    let job = run(&mesh, &["sh", "-c", script], &mesh.dir().join("job.log"))?;
    job.ready("the command runs", || async { job.log().contains("begun").then_some(()) }).await?;
    job.signal(Signal::TERM);
    let status = job.ended().await?;
    assert_eq!(status.code(), Some(3), "{}", job.describe());
    assert!(job.log().contains("told"), "{}", job.describe());

    let missing = run(&mesh, &["/no/such/command"], &mesh.dir().join("missing.log"))?;
    assert_eq!(missing.ended().await?.code(), Some(127), "{}", missing.describe());
    Ok(())
}

#[tokio::test]
async fn a_command_does_not_outlive_a_run_that_is_killed() -> anyhow::Result<()> {
    let mesh = Mesh::start(&[("mesh.yaml", STRICT)]).await?;
    // It is asked to end, and so is what it started.
    let script = "sleep 1000 & echo child $!; echo own $$; trap 'echo asked' TERM; wait; wait";
    let job = run(&mesh, &["sh", "-c", script], &mesh.dir().join("job.log"))?;
    let numbers = || async {
        let log = job.log();
        let of =
            |word: &str| log.lines().find_map(|line| line.strip_prefix(word)?.parse::<u32>().ok());
        Some([of("child ")?, of("own ")?])
    };
    let [child, own] = job.ready("the command runs", numbers).await?;
    let sidecar = sidecar(job.id()).ok_or_else(|| anyhow::anyhow!("there is no sidecar"))?;
    job.signal(Signal::KILL);
    job.ended().await?;
    for (name, pid) in [("the command", own), ("what it started", child), ("the sidecar", sidecar)]
    {
        let gone = || async { (!is_running(pid)).then_some(()) };
        wait::until(&format!("{name} is gone"), gone).await?;
    }
    assert!(job.log().contains("asked"), "{}", job.describe());
    Ok(())
}

/// The sidecar that a run has started.
fn sidecar(run: i32) -> Option<u32> {
    let numbers = std::fs::read_dir("/proc").ok()?.flatten();
    let mut all = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    all.find(|pid| {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
        let is_child = read("status").is_ok_and(|text| text.contains(&format!("PPid:\t{run}\n")));
        is_child && read("cmdline").is_ok_and(|text| text.contains("--exit-with-stdin"))
    })
}

/// A process that ended, and that nobody asked for its end yet, does not run.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}
