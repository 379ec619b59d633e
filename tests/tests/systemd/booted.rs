//! The section on systemd of `docs/several-machines.md`, line by line on two machines that systemd has booted; and then
//! what it does with our units: reloads, kills by its watchdog, and ports that it holds.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::ensure;
use pillion_tests::netns::Lab;
use pillion_tests::venv::optional;

use super::machine::Machine;

const PAGE: &str = include_str!("../../../docs/several-machines.md");

/// Leaves what is to be run elsewhere in the shared folder.
const SSH: &str = "#!/bin/sh\nshift\ncat > /shared/stdin\necho \"$@\" > /shared/command\n";

/// The application, and a watchdog that is quick.
const REVIEWS: &str = "systemd-run --quiet --unit=reviews -p DynamicUser=yes pillion-shop reviews --port 8080
mkdir -p /etc/systemd/system/pillion-proxy@reviews.service.d
printf '[Service]\\nWatchdogSec=4\\n' > /etc/systemd/system/pillion-proxy@reviews.service.d/quick.conf
systemctl daemon-reload
systemctl restart pillion-proxy@reviews
";

/// Somebody who calls, with ports that systemd can hold.
const SHOPPER: &str = "install -D -m 600 /var/lib/pillion/join-token /etc/pillion/join-token
install -D -m 644 -t /etc/systemd/system examples/systemd/pillion-proxy@*
echo PILLION_CONTROL_PLANE=10.77.0.1:15012 > /etc/pillion/proxy.env
systemctl enable --now pillion-proxy@shopper
";

const ASK: &str = "curl -fsS -o /dev/null --max-time 20 --proxy http://127.0.0.1:15001 http://reviews.default/reviews";

/// Asks until there is the file `stop`, and says of each answer whether it was good.
fn load() -> String {
    format!(
        "while [ ! -e /run/stop ]; do {ASK} 2> /run/error && echo good >> /run/answers || cat /run/error >> /run/answers; done
echo end >> /run/answers"
    )
}

async fn begin_load(machine: &Machine) -> anyhow::Result<()> {
    fs::write(machine.shared().join("load"), load())?;
    let begin = "rm -f /run/answers /run/stop; systemd-run --quiet --collect bash /shared/load";
    machine.run(begin).await.map(drop)
}

/// Waits for some good answers more. What was said of the others.
async fn end_load(machine: &Machine) -> anyhow::Result<Vec<String>> {
    let count = |said: &str| said.lines().filter(|line| *line == "good").count();
    let now = count(&machine.run("cat /run/answers").await?);
    machine.until("cat /run/answers", |said| count(said) >= now + 20).await?;
    machine.run("touch /run/stop").await?;
    machine.until("cat /run/answers", |said| said.ends_with("end\n")).await?;
    let said = machine.run("cat /run/answers").await?;
    let others = said.lines().filter(|line| !["good", "end"].contains(line));
    Ok(others.map(str::to_owned).collect())
}

/// What a block of the page does, as root: `# ` stands before each line.
fn blocks() -> Vec<String> {
    let blocks = PAGE.split("```console\n").skip(1).filter_map(|part| part.split("```").next());
    let lines = |block: &str| {
        block.lines().filter_map(|line| line.strip_prefix("# ")).collect::<Vec<_>>().join("\n")
    };
    blocks.map(lines).collect()
}

async fn main_process(machine: &Machine, unit: &str) -> anyhow::Result<String> {
    machine.run(&format!("systemctl show -p MainPID --value {unit}")).await
}

#[tokio::test]
async fn the_page_works_and_units_do_as_they_say() -> anyhow::Result<()> {
    let installed = Command::new("systemd-nspawn").arg("--version").output();
    if optional("systemd-nspawn (Debian package systemd-container)", installed.map_err(Into::into))?
        .is_none()
    {
        return Ok(());
    }
    let Some(mut lab) = optional("network namespaces", Lab::new())? else { return Ok(()) };
    let hosts = [lab.host("one")?, lab.host("two")?];
    let one = optional("a machine with systemd", Machine::boot("one", &hosts[0]).await)?;
    let Some(one) = one else { return Ok(()) };
    let two = Machine::boot("two", &hosts[1]).await?;

    fs::create_dir(one.shared().join("bin"))?;
    fs::write(one.shared().join("bin/ssh"), SSH)?;
    fs::set_permissions(one.shared().join("bin/ssh"), fs::Permissions::from_mode(0o755))?;
    let blocks = blocks();
    ensure!(blocks.len() == 2, "{blocks:?}");
    one.run(&blocks[0]).await?;
    fs::copy(one.shared().join("stdin"), two.shared().join("stdin"))?;
    let command = fs::read_to_string(one.shared().join("command"))?;
    two.run(&format!("{} < /shared/stdin", command.trim())).await?;
    let said = two.run(&blocks[1]).await?;
    ensure!(said.contains("active (running)") && said.contains("serving: "), "{said}");

    two.run(REVIEWS).await?;
    one.run(SHOPPER).await?;
    one.until(ASK, |_| true).await?;
    reloads(&one, &two).await?;
    watchdog(&one, &two).await?;
    sockets(&one).await?;
    // They end by themselves, and in time.
    two.run("systemctl stop pillion-proxy@reviews").await?;
    let said = two.run("systemctl show -p Result pillion-proxy@reviews").await?;
    ensure!(said.trim() == "Result=success", "{said}");
    Ok(())
}

/// More often than the watchdog looks: whoever takes over says at once that he lives.
async fn reloads(one: &Machine, two: &Machine) -> anyhow::Result<()> {
    begin_load(one).await?;
    for _ in 0..5 {
        let before = main_process(two, "pillion-proxy@reviews").await?;
        two.run("systemctl reload pillion-proxy@reviews").await?;
        let script = "systemctl show -p MainPID --value pillion-proxy@reviews";
        two.until(script, |now| now != before && now.trim() != "0").await?;
    }
    let bad = end_load(one).await?;
    ensure!(bad.is_empty(), "{bad:?}");
    let said = two.run("systemctl show -p NRestarts,ActiveState pillion-proxy@reviews").await?;
    ensure!(said.contains("NRestarts=0") && said.contains("ActiveState=active"), "{said}");
    Ok(())
}

/// One that hangs is ended and started again.
async fn watchdog(one: &Machine, two: &Machine) -> anyhow::Result<()> {
    two.run("kill -STOP $(systemctl show -p MainPID --value pillion-proxy@reviews)").await?;
    let script = "systemctl show -p NRestarts,ActiveState pillion-proxy@reviews";
    two.until(script, |said| said.contains("NRestarts=1") && said.contains("ActiveState=active"))
        .await?;
    let said = two.run("journalctl --no-pager -u pillion-proxy@reviews").await?;
    ensure!(said.contains("Watchdog timeout"), "{said}");
    one.until(ASK, |_| true).await
}

/// systemd holds the ports: who comes while the sidecar is away waits, and is not refused.
async fn sockets(one: &Machine) -> anyhow::Result<()> {
    one.run(
        "systemctl stop pillion-proxy@shopper; systemctl enable --now pillion-proxy@shopper.socket",
    )
    .await?;
    // The first one who asks has it started.
    one.until(ASK, |_| true).await?;
    begin_load(one).await?;
    let active =
        |said: &str| said.contains("SubState=running") && said.contains("ActiveState=active");
    let state = "systemctl show -p SubState,ActiveState,MainPID pillion-proxy@shopper";
    one.run("systemctl restart pillion-proxy@shopper").await?;
    one.until(state, active).await?;
    let bad = end_load(one).await?;
    ensure!(bad.is_empty(), "{bad:?}");
    // What is under way in a process that is killed is lost, and nothing else.
    begin_load(one).await?;
    let before = main_process(one, "pillion-proxy@shopper").await?;
    one.run(&format!("kill -KILL {before}")).await?;
    one.until(state, |said| active(said) && !said.contains(&format!("MainPID={before}"))).await?;
    let bad = end_load(one).await?;
    ensure!(bad.iter().all(|line| !line.contains("connect to")), "{bad:?}");
    Ok(())
}
