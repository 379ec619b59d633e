//! As much of Nomad as the jobs use.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use pillion_tests::port::Port;
use pillion_tests::process::Process;
use pillion_tests::venv::program;
use serde_json::Value;

/// Where the jobs expect the programs.
const BIN: &str = "/usr/local/bin/";

/// What templates ask for.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// `nomadService "pillion-control-plane"`
    pub(super) control_plane: Option<SocketAddr>,
    /// `nomadVar`: its field `token`.
    pub(super) token: String,
}

/// When a task runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Main,
    Prestart,
    PrestartSidecar,
    Poststop,
}

/// One instance of the only group of a job.
pub(super) struct Allocation {
    group: Value,
    folder: PathBuf,
    ports: BTreeMap<String, Port>,
}

impl Allocation {
    /// Of the job in `examples/nomad/NAME.nomad.hcl`, with a folder below `dir`.
    pub(super) fn of(name: &str, dir: &Path) -> anyhow::Result<Self> {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/nomad");
        let text = fs::read_to_string(examples.join(format!("{name}.nomad.hcl")))?;
        let file: Value = hcl::from_str(&text)?;
        let group = only(&only(&file["job"])?["group"])?.clone();
        let ports = group["network"]["port"].as_object().context("ports")?;
        let reserve = |name: &String| anyhow::Ok((name.clone(), Port::reserve()?));
        let ports = ports.keys().map(reserve).collect::<anyhow::Result<_>>()?;
        let folder = dir.join(name);
        fs::create_dir_all(folder.join("alloc/data"))?;
        Ok(Self { group, folder, ports })
    }

    /// Its folder: `alloc` is `NOMAD_ALLOC_DIR`.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a port of its network is.
    pub(super) fn address(&self, port: &str) -> anyhow::Result<SocketAddr> {
        Ok(self.ports.get(port).with_context(|| format!("no port {port}"))?.address())
    }

    /// When a task runs.
    pub(super) fn hook(&self, task: &str) -> anyhow::Result<Hook> {
        let lifecycle = &self.task(task)?["lifecycle"];
        match (lifecycle["hook"].as_str(), lifecycle["sidecar"].as_bool()) {
            (None, None) => Ok(Hook::Main),
            (Some("prestart"), None | Some(false)) => Ok(Hook::Prestart),
            (Some("prestart"), Some(true)) => Ok(Hook::PrestartSidecar),
            (Some("poststop"), None) => Ok(Hook::Poststop),
            _ => bail!("{task}: {lifecycle}"),
        }
    }

    /// Starts a task: its templates, its environment, its command.
    pub(super) fn start(&self, task: &str, cluster: &Cluster) -> anyhow::Result<Process> {
        let spec = self.task(task)?.clone();
        for folder in ["local", "secrets"] {
            fs::create_dir_all(self.folder.join(task).join(folder))?;
        }
        let variables = self.variables(task);
        let mut env = variables.clone();
        for template in many(&spec["template"]) {
            env.extend(render(template, &variables, cluster)?);
        }
        let fill = |value: &Value| filled(value.as_str().context("a string")?, &variables);
        for (name, value) in spec["env"].as_object().into_iter().flatten() {
            env.insert(name.clone(), fill(value)?);
        }
        let path = fill(&spec["config"]["command"])?;
        let path = match path.strip_prefix(BIN) {
            Some(name) => program(name)?,
            None => path.into(),
        };
        let args = spec["config"]["args"].as_array().context("args")?;
        let args: Vec<String> = args.iter().map(fill).collect::<anyhow::Result<_>>()?;
        let mut command = Command::new(path);
        command.args(args).envs(env).current_dir(self.folder.join(task));
        Process::start(task, &mut command, &self.folder.join(format!("{task}.log")))
    }

    fn task(&self, name: &str) -> anyhow::Result<&Value> {
        let task = &self.group["task"][name];
        ensure!(task["driver"] == "exec", "{name}: {task}");
        Ok(task)
    }

    /// What Nomad puts into the environment
    /// (<https://developer.hashicorp.com/nomad/docs/reference/runtime-environment-settings>).
    fn variables(&self, task: &str) -> BTreeMap<String, String> {
        let at = |path: PathBuf| path.display().to_string();
        let own = self.folder.join(task);
        let mut all = BTreeMap::from([
            ("NOMAD_TASK_DIR".to_owned(), at(own.join("local"))),
            ("NOMAD_SECRETS_DIR".to_owned(), at(own.join("secrets"))),
            ("NOMAD_ALLOC_DIR".to_owned(), at(self.folder.join("alloc"))),
            ("NOMAD_SHORT_ALLOC_ID".to_owned(), "0a1b2c3d".to_owned()),
        ]);
        for (name, port) in &self.ports {
            all.insert(format!("NOMAD_PORT_{name}"), port.number().to_string());
            all.insert(format!("NOMAD_IP_{name}"), port.address().ip().to_string());
        }
        all
    }
}

/// Writes a template's file; what it adds to the environment.
fn render(
    template: &Value,
    variables: &BTreeMap<String, String>,
    cluster: &Cluster,
) -> anyhow::Result<BTreeMap<String, String>> {
    let destination = template["destination"].as_str().context("destination")?;
    let destination = PathBuf::from(filled(destination, variables)?);
    let data = template["data"].as_str().context("data")?;
    let text = match data.trim() {
        text if text.contains("{{ range nomadService \"pillion-control-plane\" }}") => {
            let address = cluster.control_plane.context("the control plane runs first")?;
            let line = text.split("}}").nth(1).and_then(|line| line.split("{{").next());
            format!("{}{address}\n", line.context("an assignment")?)
        }
        text if text.starts_with("{{ with nomadVar \"nomad/jobs/") => {
            ensure!(text.contains("{{ .token }}"), "{text}");
            cluster.token.clone()
        }
        text => {
            ensure!(!text.contains("{{"), "another template: {text}");
            data.to_owned()
        }
    };
    fs::create_dir_all(destination.parent().context("a folder")?)?;
    fs::write(&destination, &text)?;
    let mode = template["perms"].as_str().map_or(Ok(0o644), |text| u32::from_str_radix(text, 8))?;
    fs::set_permissions(&destination, fs::Permissions::from_mode(mode))?;
    if template["env"] != true {
        return Ok(BTreeMap::new());
    }
    let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

/// With Nomad's variables in place of `${NAME}`; a name that Nomad does not know is an error.
fn filled(text: &str, variables: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let mut parts = text.split("${");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').with_context(|| text.to_owned())?;
        whole += variables.get(name).with_context(|| format!("{name} in {text}"))?;
        whole += rest;
    }
    Ok(whole)
}

/// The only block of a kind, whatever its name.
fn only(blocks: &Value) -> anyhow::Result<&Value> {
    let blocks = blocks.as_object().context("a block with a name")?;
    ensure!(blocks.len() == 1, "{} blocks", blocks.len());
    blocks.values().next().context("a block")
}

/// A block that may stand there several times, or not at all.
fn many(blocks: &Value) -> Vec<&Value> {
    match blocks {
        Value::Null => Vec::new(),
        Value::Array(all) => all.iter().collect(),
        one => vec![one],
    }
}
