//! `pillion run`: a command with a sidecar of its own.

use std::path::Path;
use std::process::Command;

use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::mesh::{Beside, Mesh};
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::program;

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
