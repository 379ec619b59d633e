//! The jobs of `examples/nomad`, without Nomad: what their tasks say is read from the files and run as processes, with
//! the variables, templates and order that Nomad would give them.

mod job;

use anyhow::{Context, ensure};
use pillion_tests::client;
use pillion_tests::process::Signal;
use pillion_tests::wait;
use serde_json::Value;

use job::{Allocation, Cluster, Hook};

#[tokio::test]
async fn the_jobs_make_a_mesh() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut cluster = Cluster::default();

    let control = Allocation::of("control-plane", dir.path())?;
    let running = control.start("control-plane", &cluster)?;
    let admin = control.address("admin")?;
    let up = || async { client::get(admin, "/ready").await.ok().filter(|it| it.status == 200) };
    running.ready("the control plane is ready", up).await?;
    cluster.control_plane = Some(control.address("xds")?);
    let token = control.folder().join("alloc/data/pillion/join-token");
    cluster.token = std::fs::read_to_string(token)?.trim().to_owned();

    let reviews = Allocation::of("reviews", dir.path())?;
    let sidecar = reviews.start("sidecar", &cluster)?;
    let warm = reviews.start("warm", &cluster)?;
    ensure!(warm.ended().await?.success(), "{}{}", warm.describe(), sidecar.describe());
    let program = reviews.start("reviews", &cluster)?;
    known(admin, "reviews", true).await.with_context(|| sidecar.describe())?;
    let health = reviews.address("health")?;
    ensure!(client::get(health, "/healthz/ready").await?.status == 200, "the service's check");

    let report = Allocation::of("report", dir.path())?;
    let job = report.start("report", &cluster)?;
    ensure!(job.ended().await?.success(), "{}", job.describe());
    ensure!(job.log().contains("reviews"), "{}", job.describe());

    // As Nomad stops an allocation: the program, its sidecar, what comes after.
    let keys = reviews.folder().join("alloc/data/sidecar");
    ensure!(keys.exists(), "the sidecar keeps its key there");
    for process in [&program, &sidecar] {
        process.signal(Signal::TERM);
        ensure!(process.ended().await?.success(), "{}", process.describe());
    }
    known(admin, "reviews", false).await?;
    let tidy = reviews.start("tidy", &cluster)?;
    ensure!(tidy.ended().await?.success() && !keys.exists(), "{}", tidy.describe());
    Ok(())
}

#[test]
fn the_order_of_the_tasks_is_the_sidecars() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let reviews = Allocation::of("reviews", dir.path())?;
    ensure!(reviews.hook("sidecar")? == Hook::PrestartSidecar);
    ensure!(reviews.hook("warm")? == Hook::Prestart);
    ensure!(reviews.hook("reviews")? == Hook::Main);
    ensure!(reviews.hook("tidy")? == Hook::Poststop);
    Ok(())
}

/// Waits until the control plane has a ready workload of this service, or none.
async fn known(admin: std::net::SocketAddr, service: &str, wanted: bool) -> anyhow::Result<()> {
    let probe = || async {
        let answer = client::get(admin, "/api/v1/status").await.ok()?;
        let status: Value = serde_json::from_slice(&answer.body).ok()?;
        let workloads = status["workloads"].as_array()?;
        let found = workloads.iter().any(|one| one["service"] == service && one["ready"] == true);
        (found == wanted).then_some(())
    };
    wait::until(&format!("{service} is known: {wanted}"), probe).await
}
