//! Documents that are edited while `pillion up` runs, limits, and the access log.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, ensure};
use pillion_tests::client::{self, Ask};
use serde_json::Value;

use super::{MESH, Up};

/// Services of the shop that need nobody else, and somebody who calls.
fn files(reviews: &str, pricing: Option<&str>) -> String {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: reviews}\n\
                   spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}\n";
    let mut text = format!("{MESH}{service}");
    text += &process("reviews", "[pillion-shop, reviews]", reviews);
    text += &process("shopper", "[sleep, infinity]", ", listens: false");
    if let Some(more) = pricing {
        text += &process("pricing", "[pillion-shop, pricing]", more);
    }
    text
}

fn process(name: &str, command: &str, more: &str) -> String {
    format!(
        "---\napiVersion: pillion.io/v1alpha1\nkind: Process\n\
         metadata: {{name: {name}, labels: {{app: {name}}}}}\nspec: {{command: {command}{more}}}\n"
    )
}

/// In one step, as editors do.
fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, file)?)
}

fn outbound(rows: &[Value]) -> anyhow::Result<SocketAddr> {
    let shopper = rows.iter().find(|row| row["process"] == "shopper").context("a shopper")?;
    Ok(shopper["outbound"].as_str().context("an address")?.parse()?)
}

#[tokio::test]
async fn edited_documents_change_what_they_name_and_nothing_else() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("mesh.yaml");
    write(&file, &files("", None))?;
    let up = Up::start_with(&file, &["--access-log"])?;
    up.says("everything is up").await?;
    let rows = up.rows().await?;
    let (reviews, shopper) = (up.names("reviews").await?, up.names("shopper").await?);
    let proxy = outbound(&rows)?;

    write(&file, &files(", env: {SHOP_DELAY_MS: '1'}", None))?;
    up.says("reviews is as its document says").await?;
    let replaced = up.names("reviews").await?;
    ensure!(replaced.len() == 1 && replaced != reviews, "{replaced:?}");

    write(&file, &files(", instances: 2, env: {SHOP_DELAY_MS: '1'}", Some("")))?;
    up.says("pricing is as its document says").await?;
    let again = || async {
        let said = up.process.log().matches("reviews is as its document says").count();
        (said == 2).then_some(())
    };
    up.process.ready("reviews is changed again", again).await?;
    let more = up.names("reviews").await?;
    ensure!(more.len() == 2 && more[0] == replaced[0], "{more:?}: nobody is replaced");
    ensure!(up.names("pricing").await?.len() == 1);

    write(&file, &files(", instances: many", None))?;
    up.says("nothing is changed").await?;
    up.says("mesh.yaml:14").await?;
    ensure!(up.names("reviews").await? == more && up.names("pricing").await?.len() == 1);

    write(&file, &files(", instances: 2, env: {SHOP_DELAY_MS: '1'}", None))?;
    up.says("pricing is in the files no more").await?;
    up.says("pricing-1 is gone").await?;
    ensure!(up.names("pricing").await?.is_empty());
    ensure!(up.names("shopper").await? == shopper, "nobody edited it");

    let mut request = Ask::new(http::Method::GET, "/reviews");
    "reviews.default".clone_into(&mut request.host);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request.headers = vec![("traceparent".to_owned(), trace.to_owned())];
    ensure!(client::send(proxy, &request).await?.status == 200);
    // A line of a sidecar about that request, with its trace.
    let line = || async {
        let log = up.process.log();
        let with_trace = |line: &&str| line.contains("\"traceparent\":\"00-4bf92f35");
        log.lines().filter(with_trace).find(|line| line.contains("-sidecar")).map(str::to_owned)
    };
    let line = up.process.ready("the access log has the trace", line).await?;
    ensure!(line.contains("\"path\":\"/reviews\""), "{line}");

    // Without the caller's doing, a request has an id that all of its lines have.
    request.headers.clear();
    "/reviews?again".clone_into(&mut request.path);
    ensure!(client::send(proxy, &request).await?.status == 200);
    let ids = || async {
        let log = up.process.log();
        let lines = log.lines().filter(|line| line.contains("/reviews?again"));
        let id =
            |line: &str| Some(line.split("\"traceparent\":\"00-").nth(1)?.get(..32)?.to_owned());
        let ids: Vec<String> = lines.filter_map(id).collect();
        (ids.len() == 2).then_some(ids)
    };
    let ids = up.process.ready("both sidecars have a line with an id", ids).await?;
    ensure!(ids[0] == ids[1], "{ids:?}");
    Ok(())
}

#[tokio::test]
async fn limits_hold_or_it_is_said_why_not() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("mesh.yaml");
    let limits = ", resources: {limits: {cpu: 500m, memory: 256Mi}}";
    // Twice as much as it may have: the kernel ends it.
    let greedy = process(
        "greedy",
        "[python3, -c, 'x = bytearray(128 << 20); import time; time.sleep(1000)']",
        ", listens: false, resources: {limits: {memory: 64Mi}}",
    );
    write(&file, &(files(limits, None) + &greedy))?;
    let up = Up::start(&file)?;
    up.says("everything is up").await?;
    let log = up.process.log();
    if let Some(line) = log.lines().find(|line| line.contains("reviews-1 runs without limits: ")) {
        ensure!(line.contains("cgroup"), "it says why: {line}");
        return Ok(());
    }
    let rows = up.rows().await?;
    let row = rows.iter().find(|row| row["process"] == "reviews").context("reviews")?;
    let pid = row["pid"].as_u64().context("a process id")?;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    ensure!(groups.lines().any(|line| line.ends_with("-reviews-1")), "{groups}");
    up.says("greedy-1 ended: signal: 9 (SIGKILL), and is started again").await
}

/// Answers 200 to everything, but 503 to health checks while there is a file.
const SICK: &str = "
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        bad = self.path == '/healthz' and os.path.exists(sys.argv[1])
        self.send_response(503 if bad else 200)
        self.send_header('content-length', '0')
        self.end_headers()
http.server.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";

#[tokio::test]
async fn who_fails_its_health_check_gets_no_traffic_and_comes_back() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, sick) = (dir.path().join("mesh.yaml"), dir.path().join("sick"));
    let script = dir.path().join("sick.py");
    std::fs::write(&script, SICK)?;
    let command = format!("[python3, {}, {}]", script.display(), sick.display());
    let check =
        ", instances: 2, healthCheck: {path: /healthz, interval: 100ms, unhealthyThreshold: 2}";
    write(&file, &files(check, None).replace("[pillion-shop, reviews]", &command))?;
    let up = Up::start(&file)?;
    up.says("everything is up").await?;
    let proxy = outbound(&up.rows().await?)?;
    let mut request = Ask::new(http::Method::GET, "/");
    "reviews.default".clone_into(&mut request.host);
    let status = async || client::send(proxy, &request).await.map(|answer| answer.status);
    ensure!(status().await? == 200);

    std::fs::write(&sick, "")?;
    up.says("reviews-1 is unhealthy: no 200 from /healthz").await?;
    let state = async || {
        let rows = up.rows().await.ok()?;
        let of = rows.iter().filter(|row| row["process"] == "reviews");
        Some(of.map(|row| row["state"].as_str().unwrap_or("").to_owned()).collect::<Vec<_>>())
    };
    let both = |wanted: &'static str| {
        let state = &state;
        move || async move { (state().await? == [wanted, wanted]).then_some(()) }
    };
    up.process.ready("both are unhealthy", both("unhealthy")).await?;
    let nobody = || async { (status().await.ok()? == 503).then_some(()) };
    up.process.ready("nobody is sent there", nobody).await?;

    std::fs::remove_file(&sick)?;
    up.process.ready("both are back", both("ready")).await?;
    let back = || async { (status().await.ok()? == 200).then_some(()) };
    up.process.ready("somebody is sent there", back).await?;
    let rows = up.rows().await?;
    ensure!(rows.iter().all(|row| row["restarts"] == 0), "nobody was started again: {rows:#?}");
    Ok(())
}
