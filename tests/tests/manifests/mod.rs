//! What `pillion install` and `pillion inject` print, looked at as a Kubernetes API server would.

mod agree;
pub(crate) mod api_server;
mod schema;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use pillion_tests::venv::{Venv, program};
use serde_json::Value;

/// The schemas of Kubernetes, a validator, and a CEL evaluator.
const PINS: [&str; 11] = [
    "kubernetes-validate==1.37.0",
    "common-expression-language==0.10.0",
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "attrs==26.1.0",
    "importlib-resources==7.1.0",
    "packaging==26.3",
    "typing-extensions==4.16.0",
    "PyYAML==6.0.3",
];

pub(crate) fn python() -> anyhow::Result<Venv> {
    Venv::ensure("manifests", &PINS)
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a script of this folder: JSON in, JSON out.
pub(crate) fn script(venv: &Venv, name: &str, input: &Value) -> anyhow::Result<Value> {
    let file = repository().join("tests/tests/manifests").join(name);
    let mut child = Command::new(venv.python())
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("it has an input")?;
    let text = input.to_string();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{name}: {}", output.status);
    writer.join().ok().context("the input was not written")??;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The documents that `pillion` prints.
pub(crate) fn pillion(args: &[&str]) -> anyhow::Result<Vec<Value>> {
    let output = Command::new(program("pillion")?).args(args).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pillion {args:?}: {said}");
    documents(&String::from_utf8(output.stdout)?)
}

fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    serde_saphyr::from_multiple(text).map_err(|error| anyhow::anyhow!("{error}"))
}
