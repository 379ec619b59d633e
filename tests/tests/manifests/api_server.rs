//! A real API server, where the folder of `KUBEBUILDER_ASSETS` has one (with its etcd), takes everything that we print.
//! <https://book.kubebuilder.io/reference/envtest>

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use pillion_tests::port::Port;
use pillion_tests::process::Process;
use serde_json::{Value, json};

use super::{pillion, python, repository, script};

pub(crate) const TOKEN: &str = "of-the-test";

/// An API server with an etcd of its own. Both end with it.
pub(crate) struct ApiServer {
    pub(crate) address: String,
    pub(crate) dir: tempfile::TempDir,
    _processes: [Process; 2],
}

impl ApiServer {
    /// `None`, and says so, where there is none: it is not a part that a test can install, so it may be missing in CI
    /// too.
    pub(crate) fn find() -> anyhow::Result<Option<Self>> {
        match std::env::var_os("KUBEBUILDER_ASSETS") {
            Some(assets) => Self::start(Path::new(&assets)).map(Some),
            None => {
                eprintln!(
                    "passed over: KUBEBUILDER_ASSETS names no folder with etcd and kube-apiserver"
                );
                Ok(None)
            }
        }
    }

    fn start(assets: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let [client, peer, port] = [Port::reserve()?, Port::reserve()?, Port::reserve()?];
        let (client, peer) =
            (format!("http://{}", client.address()), format!("http://{}", peer.address()));
        let mut etcd = Command::new(assets.join("etcd"));
        etcd.arg("--data-dir")
            .arg(dir.path().join("etcd"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer]);
        let etcd = Process::start("etcd", &mut etcd, &dir.path().join("etcd.log"))?;
        let key = dir.path().join("accounts.key");
        let made = Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-out"])
            .arg(&key)
            .output()?;
        ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
        let tokens = dir.path().join("tokens.csv");
        std::fs::write(&tokens, format!("{TOKEN},test,1,\"system:masters\"\n"))?;
        let mut server = Command::new(assets.join("kube-apiserver"));
        server
            .arg(format!("--etcd-servers={client}"))
            .arg(format!("--secure-port={}", port.number()))
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--cert-dir={}", dir.path().join("certificates").display()))
            .arg("--service-account-issuer=https://kubernetes.default")
            .arg(format!("--service-account-key-file={}", key.display()))
            .arg(format!("--service-account-signing-key-file={}", key.display()))
            .arg("--service-cluster-ip-range=10.0.0.0/24")
            .arg("--authorization-mode=RBAC")
            .arg(format!("--token-auth-file={}", tokens.display()));
        let server = Process::start("kube-apiserver", &mut server, &dir.path().join("server.log"))?;
        let address = format!("https://{}", port.address());
        Ok(Self { address, dir, _processes: [etcd, server] })
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }
}

#[test]
fn a_real_api_server_takes_it_all() -> anyhow::Result<()> {
    let Some(server) = ApiServer::find()? else { return Ok(()) };
    let venv = python()?;
    let image =
        ["--image", "registry.example/pillion:1", "--proxy-image", "registry.example/proxy:1"];
    let installed = pillion(&[&["install"], &image[..]].concat())?;
    let (first, rest): (Vec<Value>, Vec<Value>) = installed
        .into_iter()
        .partition(|one| one["kind"] == "Namespace" || one["kind"] == "CustomResourceDefinition");
    let example = repository().join("examples/kubernetes/shop.yaml").display().to_string();
    let injected = pillion(&["inject", "--image", "registry.example/proxy:1", "-f", &example])?;
    let good = super::documents(super::agree::FULL)?;
    let mut bad = good.clone();
    for one in &mut bad {
        one["spec"]["unheardOf"] = true.into();
    }
    let taken = [rest, injected, good].concat();
    let asked = json!({
        "server": server.address, "token": TOKEN,
        // Really made: the others need them.
        "made": first,
        "taken": taken,
        "refused": bad,
    });
    let answer = script(&venv, "apply.py", &asked)?;
    assert_eq!(answer, json!([]), "{}", server.log());
    Ok(())
}
