//! `docs/several-machines.md`, line by line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, ensure};
use pillion_tests::netns::{Host, Lab};
use pillion_tests::process::Process;
use pillion_tests::venv::{optional, program};

const PAGE: &str = include_str!("../../../docs/several-machines.md");

/// Copies to the other machine, which has a folder of its name.
const SSH: &str = "#!/bin/sh\ncd \"$DISKS/$1\" && shift && exec \"$@\"\n";

#[tokio::test]
async fn every_line_of_the_page_works() -> anyhow::Result<()> {
    let Some(mut lab) = optional("network namespaces", Lab::new())? else { return Ok(()) };
    let machines = [("one", lab.host("one")?), ("two", lab.host("two")?)];
    let dir = tempfile::tempdir()?;
    for (name, _) in &machines {
        fs::create_dir(dir.path().join(name))?;
    }
    let mesh =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop/mesh").canonicalize()?;
    std::os::unix::fs::symlink(mesh, dir.path().join("one/mesh"))?;
    let ssh = dir.path().join("bin/ssh");
    fs::create_dir(dir.path().join("bin"))?;
    fs::write(&ssh, SSH)?;
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755))?;

    let blocks = blocks()?;
    ensure!(blocks.len() >= 9, "{} blocks", blocks.len());
    // What a block leaves running ends with it.
    let mut running = Vec::new();
    for (number, (name, script)) in blocks.iter().enumerate() {
        let (_, host) = machines.iter().find(|(one, _)| one == name).context(*name)?;
        let process = shell(host, name, (number, script), dir.path())?;
        let status = process.ended().await?;
        ensure!(status.success(), "block {number} on {name}:\n{script}{}", process.describe());
        running.push(process);
    }
    Ok(())
}

fn shell(
    host: &Host,
    name: &str,
    (number, script): (usize, &str),
    disks: &Path,
) -> anyhow::Result<Process> {
    let built = program("pillion")?;
    let built = built.parent().context("a folder")?.display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = host.command("bash");
    command.args(["-e", "-o", "pipefail", "-c", script]).current_dir(disks.join(name));
    command.env("PATH", format!("{}:{built}:{path}", disks.join("bin").display()));
    command.env("DISKS", disks);
    let log = disks.join(format!("block-{number}.log"));
    Process::start(&format!("block {number}"), &mut command, &log)
}

/// What stands between ```` ```sh ```` and its end, with the machine that its first line names.
fn blocks() -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    let parts = PAGE.split("```sh\n").skip(1);
    let block = |part: &'static str| {
        let script = part.split("```").next()?;
        let machine = script.lines().next()?.strip_prefix("# on ")?;
        Some((machine, script))
    };
    parts.map(|part| block(part).with_context(|| part.to_owned())).collect()
}
