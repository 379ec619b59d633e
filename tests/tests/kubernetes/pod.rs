//! Pods as `pillion inject` makes them, with everything that is in them: run on hosts that are network namespaces, as a
//! kubelet would run them.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pillion_tests::client;
use pillion_tests::kubelet::{Pod, ready};
use pillion_tests::kubernetes::Kubernetes;
use pillion_tests::netns::{Host, Inside, Lab};
use pillion_tests::process::Process;
use pillion_tests::venv::program;
use pillion_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::world::{SHOP, proof};
use crate::manifests::pillion;

/// It tells who asked; and when it is told to end, it asks another service before it does.
const APP: &str = r#"
import http.server, json, os, signal, sys, threading, urllib.request
class App(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"app": sys.argv[1], "from": self.headers.get("x-forwarded-client-cert")}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
def goodbye():
    try:
        said = str(urllib.request.urlopen(sys.argv[2], timeout=20).status)
    except Exception as error:
        said = repr(error)
    with open("/out/goodbye", "w") as file:
        file.write(said)
    os._exit(0)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=goodbye).start())
http.server.ThreadingHTTPServer(("", 8080), App).serve_forever()
"#;

const ADDRESSES: [(&str, &str); 2] = [("web", "10.96.0.20"), ("store", "10.96.0.30")];

fn deployment(name: &str, container: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": SHOP},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"serviceAccountName": name, "containers": [container],
                "volumes": [{"name": "out", "emptyDir": {}}, {"name": "code", "emptyDir": {}}]},
        }},
    })
}

fn server(name: &str, other: &str) -> Value {
    deployment(
        name,
        &json!({
            "name": name, "image": "python:3",
            "command": ["python3", "/code/app.py"], "args": [name, format!("http://{other}.{SHOP}/")],
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
            "securityContext": {"capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "out", "mountPath": "/out"}, {"name": "code", "mountPath": "/code"}],
        }),
    )
}

fn job() -> Value {
    let mut job = deployment(
        "job",
        &json!({
            "name": "job", "image": "curl:8",
            "command": ["sh", "-c", format!("curl -sSf http://web.{SHOP}/ > /out/answer")],
            "volumeMounts": [{"name": "out", "mountPath": "/out"}],
        }),
    );
    job["apiVersion"] = "batch/v1".into();
    job["kind"] = "Job".into();
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    job["spec"].as_object_mut().expect("it is one").remove("selector");
    job
}

/// Hosts, a cluster, and a control plane that reads it.
struct World {
    lab: Lab,
    node: Host,
    kubernetes: Kubernetes,
    dir: TempDir,
    _process: Process,
    _inside: Inside,
}

impl World {
    async fn start() -> anyhow::Result<Self> {
        let mut lab = Lab::new()?;
        let node = lab.host("node")?;
        let (kubernetes, inside) = node.keep(Kubernetes::start)?;
        kubernetes.apply(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": SHOP, "labels": {"pillion.io/inject": "enabled"}},
        }));
        kubernetes.apply(json!({
            "apiVersion": "pillion.io/v1alpha1", "kind": "Mesh",
            "metadata": {"name": "mesh", "namespace": "pillion-system"},
            "spec": {"trustDomain": "test.local", "mtls": "Strict"},
        }));
        for (name, address) in ADDRESSES {
            kubernetes.apply(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": SHOP},
                "spec": {"selector": {"app": name}, "clusterIP": address, "clusterIPs": [address],
                    "ports": [{"name": "http", "port": 80, "targetPort": "http", "appProtocol": "http"}]},
            }));
        }
        let dir = tempfile::tempdir()?;
        let mut command = node.command(program("pillion")?);
        command
            .args(["control-plane", "--kubernetes", "--address", &node.address().to_string()])
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .env("KUBECONFIG", kubernetes.kubeconfig());
        let log = dir.path().join("control-plane.log");
        let process = Process::start("control-plane", &mut command, &log)?;
        let ask = || node.block_on(|| client::get(([127, 0, 0, 1], 15080).into(), "/ready"));
        let ready =
            || async { matches!(ask(), Ok(Ok(answer)) if answer.status == 200).then_some(()) };
        process.ready("the control plane is ready", ready).await?;
        Ok(Self { lab, node, kubernetes, dir, _process: process, _inside: inside })
    }

    /// A host of its own, on which the names of the services are known.
    fn host(&mut self, name: &str) -> anyhow::Result<Host> {
        let host = self.lab.host(name)?;
        let names = ADDRESSES.map(|(name, address)| format!("{address} {name}.{SHOP}"));
        host.names(&names.join("\n"))?;
        Ok(host)
    }

    /// What the kubelet of `host` makes of a workload: the pod, from the YAML that `pillion inject` prints.
    async fn pod(&self, host: &Host, workload: &Value) -> anyhow::Result<(String, Pod)> {
        let account = workload["metadata"]["name"].as_str().context("a name")?;
        let (name, file) =
            (format!("{account}-1"), self.dir.path().join(format!("{account}.json")));
        std::fs::write(&file, workload.to_string())?;
        let control_plane = format!("{}:15012", self.node.address());
        let (file, image) = (file.display().to_string(), "registry.example/proxy:1");
        let injected = ["inject", "-f", &file, "--image", image, "--control-plane", &control_plane];
        let template = pillion(&injected)?[0]["spec"]["template"].clone();
        let token = self.folder(account)?;
        let (from, root) = proof(&self.kubernetes, account).await?;
        std::fs::copy(from, token.join("token"))?;
        std::fs::copy(root, token.join("root.pem"))?;
        let code = self.folder(&format!("{account}-code"))?;
        std::fs::write(code.join("app.py"), APP)?;
        self.kubernetes.apply(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": SHOP, "labels": template["metadata"]["labels"],
                "annotations": template["metadata"]["annotations"]},
            "spec": template["spec"],
        }));
        let folders = [("pillion-token", token), ("code", code)];
        let pod = Pod::start(
            (host, &self.node),
            (SHOP, &name),
            &template["spec"],
            (self.dir.path(), &folders),
        );
        Ok((name.clone(), pod.await?))
    }

    /// The same, until it is ready.
    async fn ready(&self, host: &Host, workload: &Value) -> anyhow::Result<Pod> {
        let (name, pod) = self.pod(host, workload).await?;
        ready(&pod, &self.node).await?;
        self.kubernetes.set_status(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": SHOP},
            "status": {"phase": "Running", "podIP": host.address().to_string(),
                "conditions": [{"type": "Ready", "status": "True"}]},
        }));
        Ok(pod)
    }

    fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.dir.path().join("volumes").join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// What a program on a host that knows nothing of any mesh is answered.
fn curl(host: &Host, url: &str) -> Option<String> {
    let (fine, text) = host.run("curl", &["-sSf", "--max-time", "5", url]).ok()?;
    fine.then_some(text)
}

async fn reaches(host: &Host, url: &str, who: &str) -> anyhow::Result<()> {
    let last = std::cell::RefCell::new(String::new());
    let what = format!("{url} knows who asks");
    let asked = wait::until(&what, || async {
        let (_, text) = host.run("curl", &["-sS", "--max-time", "5", url]).ok()?;
        last.borrow_mut().clone_from(&text);
        text.contains(&format!("spiffe://test.local/ns/{SHOP}/sa/{who}")).then_some(())
    });
    asked.await.with_context(|| last.borrow().clone())
}

#[tokio::test]
async fn injected_pods_live_and_end_as_on_a_cluster() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (front, back, batch) = (world.host("web")?, world.host("store")?, world.host("job")?);
    let stranger = world.host("stranger")?;
    // Ready, by the kubelet's own questions, which the sidecar's health port passes on.
    let store = world.ready(&back, &server("store", "web")).await?;
    let web = world.ready(&front, &server("web", "store")).await?;
    reaches(&back, &format!("http://web.{SHOP}/"), "store").await?;
    reaches(&front, &format!("http://store.{SHOP}/"), "web").await?;

    // Who is not in the mesh gets nothing; the kubelet's way is open for its questions only.
    let direct = format!("http://{}:8080/", front.address());
    assert_eq!(curl(&stranger, &direct), None, "plain text is refused");
    assert!(web.probe(&world.node, "web", "readinessProbe").await);
    let health = format!("http://{}:15021", front.address());
    assert!(curl(&stranger, &format!("{health}/healthz/ready")).is_some());
    assert_eq!(curl(&stranger, &format!("{health}/")), None);

    // A Job ends, and its sidecar does not keep it.
    let (_, job) = world.pod(&batch, &job()).await?;
    let ends = job_ends(job).await?;
    assert_eq!(ends, ["job", "pillion-proxy"]);

    // A pod that goes: the application can ask others until it has ended.
    let out = world.dir.path().join("web-1/out/goodbye");
    let ends = web.delete().await?;
    assert!(ends.iter().all(|(_, status)| status.success()), "{ends:?}");
    assert_eq!(
        ends.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["web", "pillion-proxy"]
    );
    assert_eq!(read(&out), "200");
    let gone = || async { curl(&back, &format!("http://web.{SHOP}/")).is_none().then_some(()) };
    wait::until("nobody is sent there any more", gone).await?;
    drop(store);
    Ok(())
}

async fn job_ends(job: Pod) -> anyhow::Result<Vec<String>> {
    let log = job.log("pillion-proxy");
    let answer = || async { job.file("out", "answer").filter(|text| text.contains('}')) };
    let answer = wait::until("the job has its answer", answer).await.context(log)?;
    assert!(answer.contains(&format!("/ns/{SHOP}/sa/job")), "{answer}");
    let ends = job.finish().await?;
    assert!(ends.iter().all(|(_, status)| status.success()), "{ends:?}");
    Ok(ends.into_iter().map(|(name, _)| name).collect())
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}
