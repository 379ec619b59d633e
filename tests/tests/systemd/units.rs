//! The units of `examples/systemd`, as `systemd-analyze` sees them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use pillion_tests::venv::{optional, program};

/// Exposure that no unit may exceed; 10 is a service that is not confined at all.
const MAX_EXPOSURE: f64 = 1.5;

#[test]
fn units_are_well_formed_and_tight() -> anyhow::Result<()> {
    let Some(()) = optional("systemd-analyze", analyze(&["--version"]).map(drop))? else {
        return Ok(());
    };
    let dir = tempfile::tempdir()?;
    let units = install(dir.path())?;
    ensure!(units.len() >= 5, "{units:?}");
    for unit in &units {
        let path = unit.to_string_lossy().into_owned();
        let said = analyze(&["verify", "--man=no", &path])?;
        ensure!(said.trim().is_empty(), "{path}: {said}");
    }
    for unit in units.iter().filter(|unit| unit.extension().is_some_and(|end| end == "service")) {
        let path = unit.to_string_lossy().into_owned();
        let said = analyze(&["security", "--offline=true", "--no-pager", &path])?;
        let exposure = said.lines().last().and_then(|line| line.split(": ").nth(1));
        let exposure: f64 = exposure
            .and_then(|text| text.split_whitespace().next())
            .with_context(|| said.clone())?
            .parse()?;
        ensure!(exposure <= MAX_EXPOSURE, "{path}: {said}");
        confined(unit)?;
    }
    Ok(())
}

/// What no unit may lose.
fn confined(unit: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(unit)?;
    for line in [
        "Type=notify",
        "NoNewPrivileges=yes",
        "PrivateTmp=yes",
        "ProtectSystem=strict",
        "DynamicUser=yes",
        "CapabilityBoundingSet=",
        "MemoryDenyWriteExecute=yes",
        "SystemCallFilter=@system-service",
    ] {
        ensure!(text.lines().any(|one| one == line), "{}: {line} is missing", unit.display());
    }
    Ok(())
}

/// A copy that names the programs of this build; templates as an instance.
fn install(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/systemd");
    let bin = program("pillion")?.parent().context("a folder")?.display().to_string();
    let mut units = Vec::new();
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().replace('@', "@web");
        if !name.ends_with(".service") && !name.ends_with(".socket") {
            continue;
        }
        let text = fs::read_to_string(&path)?.replace("/usr/bin/", &format!("{bin}/"));
        fs::write(folder.join(&name), text)?;
        units.push(folder.join(name));
    }
    Ok(units)
}

fn analyze(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("systemd-analyze").args(args).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "{args:?}: {said}");
    Ok(said)
}
