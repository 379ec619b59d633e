//! What a kubelet does with a pod, in a host that is a network namespace: volumes, environment, init containers in
//! their order, native sidecars, probes from outside, and the end.
//!
//! A container is a process with a root of its own, the user, rights and mounts that its spec asks for, and the image's
//! program, `/pillion-proxy`, where the image has it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::client;
use crate::netns::Host;
use crate::process::{Process, Signal};
use crate::venv::program;
use crate::wait;

/// Makes the root of a container, and becomes its program: the root, our program, the user, capabilities, whether the root
/// is read-only, pairs of folders and mount points, `--`, the command.
const CONTAINER: &str = r#"
set -e
root=$1 program=$2 user=$3 capabilities=$4 readonly=$5; shift 5
mount -t tmpfs -o mode=755 tmpfs "$root"
for path in /*; do
  case $path in /tmp|/run|/var) continue;; esac
  if [ -L "$path" ]; then cp -P "$path" "$root$path"
  elif [ -d "$path" ]; then mkdir "$root$path"; mount --rbind "$path" "$root$path"; fi
done
mkdir -m 1777 "$root/tmp"
touch "$root/pillion-proxy"; mount --bind "$program" "$root/pillion-proxy"
while [ "$1" != -- ]; do mkdir -p "$root$2"; mount --bind "$1" "$root$2"; shift 2; done; shift
if [ "$readonly" = true ]; then mount -o remount,ro "$root"; fi
exec chroot "$root" setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
  --bounding-set="-all$capabilities" "$@"
"#;

/// A pod that runs.
#[derive(Debug)]
pub struct Pod {
    host: Host,
    name: String,
    namespace: String,
    spec: Value,
    dir: PathBuf,
    volumes: BTreeMap<String, PathBuf>,
    sidecars: Vec<Container>,
    containers: Vec<Container>,
}

#[derive(Debug)]
struct Container {
    name: String,
    spec: Value,
    process: Process,
}

impl Pod {
    /// Brings a pod up on a host: its init containers one after the other, sidecars among them until their startup probe
    /// answers `node`, and then the others. `folders` are volumes that have something in them.
    ///
    /// # Errors
    /// An init container fails, or a sidecar does not start; the message has what it wrote.
    pub async fn start(
        (host, node): (&Host, &Host),
        (namespace, name): (&str, &str),
        spec: &Value,
        (dir, folders): (&Path, &[(&str, PathBuf)]),
    ) -> anyhow::Result<Self> {
        let dir = dir.join(name);
        fs::create_dir_all(&dir)?;
        let mut volumes: BTreeMap<String, PathBuf> =
            folders.iter().map(|(name, path)| ((*name).to_owned(), path.clone())).collect();
        for volume in list(&spec["volumes"]) {
            let name = text(&volume["name"]).to_owned();
            let folder = dir.join(&name);
            if let Entry::Vacant(place) = volumes.entry(name) {
                ensure!(volume["emptyDir"].is_object(), "nothing is known of volume {volume}");
                fs::create_dir_all(&folder)?;
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
                place.insert(folder);
            }
        }
        let mut pod = Self {
            host: host.clone(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            spec: spec.clone(),
            dir,
            volumes,
            sidecars: Vec::new(),
            containers: Vec::new(),
        };
        for spec in list(&spec["initContainers"]) {
            let container = pod.run(spec)?;
            if spec["restartPolicy"] == "Always" {
                let answered = || async {
                    pod.probe(node, &container.name, "startupProbe").await.then_some(())
                };
                container.process.ready("its startup probe is answered", answered).await?;
                pod.sidecars.push(container);
            } else {
                let status = container.process.ended().await?;
                ensure!(status.success(), "{status}: {}", container.process.describe());
            }
        }
        for spec in list(&spec["containers"]) {
            let container = pod.run(spec)?;
            pod.containers.push(container);
        }
        Ok(pod)
    }

    /// Asks a container's probe, from `node`. What has none is fine.
    pub async fn probe(&self, node: &Host, container: &str, probe: &str) -> bool {
        let all = list(&self.spec["initContainers"]).chain(list(&self.spec["containers"]));
        let spec = all.into_iter().find(|one| one["name"] == container);
        let get = spec.map_or(&Value::Null, |spec| &spec[probe]["httpGet"]);
        let Some(path) = get["path"].as_str() else { return true };
        let Some(port) = get["port"].as_u64().and_then(|port| u16::try_from(port).ok()) else {
            return false;
        };
        let address = (self.host.address(), port).into();
        let asked = node.block_on(|| client::get(address, path));
        matches!(asked, Ok(Ok(answer)) if answer.status == 200)
    }

    /// Whether every container's readiness probe is answered.
    pub async fn is_ready(&self, node: &Host) -> bool {
        for container in self.sidecars.iter().chain(&self.containers) {
            if !self.probe(node, &container.name, "readinessProbe").await {
                return false;
            }
        }
        true
    }

    /// What a container wrote so far.
    ///
    /// # Panics
    /// There is no such container.
    pub fn log(&self, container: &str) -> String {
        let mut all = self.sidecars.iter().chain(&self.containers);
        all.find(|one| one.name == container).expect("it is there").process.log()
    }

    /// A file of a volume.
    pub fn file(&self, volume: &str, name: &str) -> Option<String> {
        fs::read_to_string(self.volumes.get(volume)?.join(name)).ok()
    }

    /// Waits until the containers ended by themselves, as those of a Job do, and then stops the sidecars.
    ///
    /// # Errors
    /// They do not end.
    pub async fn finish(mut self) -> anyhow::Result<Vec<(String, ExitStatus)>> {
        let mut ends = Vec::new();
        for container in std::mem::take(&mut self.containers) {
            ends.push((container.name.clone(), container.process.ended().await?));
        }
        self.stop_sidecars(&mut ends).await?;
        Ok(ends)
    }

    /// Deletes the pod: hooks first, then the containers, and the sidecars last. How each ended, in that order.
    ///
    /// # Errors
    /// A hook fails, or something does not end.
    pub async fn delete(mut self) -> anyhow::Result<Vec<(String, ExitStatus)>> {
        for container in self.sidecars.iter().chain(&self.containers) {
            let hook = &container.spec["lifecycle"]["preStop"]["exec"]["command"];
            if hook.is_array() {
                let mut command = self.command(&container.spec, list(hook).map(text))?;
                let log = self.dir.join(format!("{}-pre-stop.log", container.name));
                let hook = Process::start("preStop", &mut command, &log)?;
                let status = hook.ended().await?;
                ensure!(status.success(), "{status}: {}", hook.describe());
            }
        }
        let mut ends = Vec::new();
        for container in std::mem::take(&mut self.containers) {
            container.process.signal(Signal::TERM);
            let status = container.process.ended().await?;
            for sidecar in &self.sidecars {
                let gone = sidecar.process.status();
                ensure!(gone.is_none(), "ended too early: {}", sidecar.process.describe());
            }
            ends.push((container.name.clone(), status));
        }
        self.stop_sidecars(&mut ends).await?;
        Ok(ends)
    }

    async fn stop_sidecars(&mut self, ends: &mut Vec<(String, ExitStatus)>) -> anyhow::Result<()> {
        while let Some(sidecar) = self.sidecars.pop() {
            sidecar.process.signal(Signal::TERM);
            ends.push((sidecar.name.clone(), sidecar.process.ended().await?));
        }
        Ok(())
    }

    fn run(&self, spec: &Value) -> anyhow::Result<Container> {
        let words = list(&spec["command"]).chain(list(&spec["args"])).map(text);
        let name = text(&spec["name"]).to_owned();
        let mut command = self.command(spec, words)?;
        let log = self.dir.join(format!("{name}.log"));
        let process = Process::start(&name, &mut command, &log)?;
        Ok(Container { name, spec: spec.clone(), process })
    }

    fn command<'a>(
        &self,
        spec: &Value,
        words: impl Iterator<Item = &'a str>,
    ) -> anyhow::Result<Command> {
        let root = self.dir.join(format!("{}-root", text(&spec["name"])));
        fs::create_dir_all(&root)?;
        let security = &spec["securityContext"];
        let added = list(&security["capabilities"]["add"]);
        let added: String =
            added.map(|one| format!(",+{}", text(one).to_ascii_lowercase())).collect();
        let user = security["runAsUser"].as_u64().unwrap_or(0);
        let mut command = self.host.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", CONTAINER, "container"])
            .arg(root)
            .arg(program("pillion-proxy")?)
            .args([user.to_string(), added])
            .arg(security["readOnlyRootFilesystem"].as_bool().unwrap_or(false).to_string());
        for mount in list(&spec["volumeMounts"]) {
            let name = text(&mount["name"]);
            let folder = self.volumes.get(name).with_context(|| format!("no volume {name}"))?;
            command.arg(folder).arg(text(&mount["mountPath"]));
        }
        command.arg("--").args(words);
        for variable in list(&spec["env"]) {
            command.env(text(&variable["name"]), self.variable(variable)?);
        }
        Ok(command)
    }

    fn variable(&self, variable: &Value) -> anyhow::Result<String> {
        if let Some(value) = variable["value"].as_str() {
            return Ok(value.replace("$$", "$"));
        }
        let path = text(&variable["valueFrom"]["fieldRef"]["fieldPath"]);
        Ok(match path {
            "status.podIP" => self.host.address().to_string(),
            "metadata.name" => self.name.clone(),
            "metadata.namespace" => self.namespace.clone(),
            "spec.serviceAccountName" => {
                self.spec["serviceAccountName"].as_str().unwrap_or("default").to_owned()
            }
            _ => anyhow::bail!("nothing is known of {variable}"),
        })
    }
}

/// Waits until a pod is ready, asked from `node`.
///
/// # Errors
/// After [`wait::LIMIT`].
pub async fn ready(pod: &Pod, node: &Host) -> anyhow::Result<()> {
    let what = format!("{} is ready", pod.name);
    let asked = wait::until(&what, || async { pod.is_ready(node).await.then_some(()) }).await;
    asked.with_context(|| {
        let all = pod.sidecars.iter().chain(&pod.containers);
        all.map(|one| one.process.describe()).collect::<Vec<_>>().join("\n")
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
