//! The load balancer of one file: instances that die, and edits, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pillion_tests::port::Port;
use pillion_tests::process::{Process, Signal};
use pillion_tests::venv::program;
use pillion_tests::wait;

use super::{Running, ask, backend, check, gateway, load, route, service};

#[test]
fn the_examples_are_right() -> anyhow::Result<()> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/gateway");
    let output = check(&folder.join("gateway.yaml"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
    let mut command = std::process::Command::new(program("pillion")?);
    let output = command.arg("check").arg(folder.join("egress.yaml")).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("warning"), "{said}");
    Ok(())
}

/// A web server that can be killed.
async fn instance(dir: &std::path::Path, name: &str) -> anyhow::Result<(Process, Port)> {
    let port = Port::reserve()?;
    let mut command = std::process::Command::new("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.number().to_string()]);
    std::fs::create_dir_all(dir.join(name))?;
    command.current_dir(dir.join(name));
    let process = Process::start(name, &mut command, &dir.join(format!("{name}.log")))?;
    let address = port.address();
    let ready = || async { ask(address, "any", "/").await.ok() };
    process.ready("it answers", ready).await?;
    Ok((process, port))
}

#[tokio::test]
async fn an_instance_that_dies_and_edits_fail_no_request() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut instances = Vec::new();
    for name in ["a", "b", "c"] {
        instances.push(instance(dir.path(), name).await?);
    }
    let addresses: Vec<_> = instances.iter().map(|(_, port)| port.address()).collect();
    let port = Port::reserve()?;
    let front = gateway(&format!("  - {{name: http, port: {}, protocol: HTTP}}", port.number()));
    let all = |count: usize, extra: &str| {
        format!("{front}{}{}{extra}", route("web", "", "web"), service("web", &addresses[..count]))
    };
    let running = Running::start(&all(3, "")).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> =
        (0..3).map(|_| tokio::spawn(load(port.address(), Arc::clone(&stop)))).collect();

    // One dies in the middle of it.
    instances[0].0.signal(Signal::KILL);
    instances[0].0.ended().await?;
    for _ in 0..50 {
        assert_eq!(ask(port.address(), "any", "/").await?.status, 200);
    }
    // An edit that adds a header says that it is in force.
    let policy = "apiVersion: pillion.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: web}\nspec: {targetRefs: [{group: \"\", kind: Service, name: web}], timeout: {request: 20s}}\n";
    running.write(&all(2, policy))?;
    running.says("the configuration changed").await?;
    // A bad edit leaves everything as it was, and is told with its place.
    running.write(&all(3, policy).replace("timeout", "timeuot"))?;
    running.says("did you mean `timeout`").await?;
    for _ in 0..50 {
        assert_eq!(ask(port.address(), "any", "/").await?.status, 200);
    }
    // An edit of the listener itself: a second one on the same port.
    let two = front
        .replace("---", "  - {name: other, port: PORT, protocol: HTTP, hostname: other.test}\n---");
    let two = two.replace("PORT", &port.number().to_string());
    running.write(&format!(
        "{two}{}{}",
        route("web", "  hostnames: [any.test]", "web"),
        service("web", &addresses)
    ))?;
    let gone = || async {
        (ask(port.address(), "other.test", "/").await.ok()?.status == 404).then_some(())
    };
    wait::until("the new listener answers for its host", gone).await?;
    stop.store(true, Ordering::Relaxed);
    let mut answers = 0;
    for task in tasks {
        let (count, bad) = task.await?;
        assert!(
            bad.is_empty(),
            "{} of {count} failed: {bad:#?}\n{}",
            bad.len(),
            running.process.describe()
        );
        answers += count;
    }
    assert!(answers > 50, "there was load: {answers}");
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_from_the_start_is_told_and_ends_it() -> anyhow::Result<()> {
    let app = backend("app").await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("gateway.yaml");
    let good = format!(
        "{}{}{}",
        gateway("  - {name: http, port: 18080, protocol: HTTP}"),
        route("web", "", "web"),
        service("web", &[app.address])
    );
    for (from, to, expected) in [
        ("protocol: HTTP}", "protocol: HTPP}", "did you mean `HTTP`"),
        ("name: front}]", "name: fornt}]", "did you mean `front`"),
        ("gatewayClassName: pillion", "gatewayClassName: other", "no Gateway of gatewayClassName"),
        ("protocol: HTTP}", "protocol: HTTPS}", "tls.certificateRefs"),
        (
            "parentRefs: [{name: front}]",
            "parentRefs: [{name: front, sectionName: x}]",
            "no listener named `x`",
        ),
        (
            "protocol: HTTP}",
            "protocol: HTTP, hostname: a.test}\n  - {name: b, port: 18080, protocol: TCP}",
            "cannot be told apart",
        ),
    ] {
        std::fs::write(&file, good.replace(from, to))?;
        let output = check(&file)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{expected}: {said}");
    }
    std::fs::write(&file, &good)?;
    assert!(check(&file)?.status.success());
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() -> anyhow::Result<()> {
    let app = backend("app").await?;
    let listener = format!("  - {{name: http, port: {}, protocol: HTTP}}", app.address.port());
    let text = format!(
        "{}{}{}",
        gateway(&listener),
        route("web", "", "web"),
        service("web", &[app.address])
    );
    let error = Running::start(&text).await.err().map(|error| format!("{error:#}"));
    let error = error.unwrap_or_default();
    assert!(error.contains("cannot bind 127.0.0.1"), "{error}");
    Ok(())
}

#[tokio::test]
async fn the_proxy_hands_over_to_pillion() -> anyhow::Result<()> {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/gateway");
    let mut command = std::process::Command::new(program("pillion-proxy")?);
    command.arg("gateway").arg("-f").arg(example.join("gateway.yaml")).arg("--check");
    let output = command.output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
