//! The YAML of the pages, as `pillion check` sees it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use pillion_tests::venv::program;

#[test]
fn every_fragment_of_a_mesh_is_right() -> anyhow::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let dir = tempfile::tempdir()?;
    let mut checked = 0;
    for entry in fs::read_dir(docs)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let parts = text.split("```yaml\n").skip(1).filter_map(|part| part.split("```").next());
        // Others are of Envoy's configuration.
        let ours: Vec<&str> = parts.filter(|part| part.contains("apiVersion:")).collect();
        if ours.is_empty() {
            continue;
        }
        let file = dir.path().join("page.yaml");
        fs::write(&file, ours.join("---\n"))?;
        let output = Command::new(program("pillion")?).arg("check").arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let good = output.status.success() && said.contains("0 warnings");
        ensure!(good, "{}: {said}", path.display());
        checked += ours.len();
    }
    ensure!(checked > 8, "{checked} fragments");
    Ok(())
}

#[test]
fn the_examples_that_pages_name_are_there() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = fs::read_dir(root.join("docs"))?.map(|entry| anyhow::Ok(entry?.path()));
    let pages: Vec<_> = docs.chain([Ok(root.join("README.md"))]).collect::<anyhow::Result<_>>()?;
    for page in pages {
        let text = fs::read_to_string(&page)?;
        let folder = page.parent().context("a folder")?;
        for part in text.split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            ensure!(folder.join(target).exists(), "{}: {target}", page.display());
        }
    }
    Ok(())
}
