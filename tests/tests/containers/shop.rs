//! The shop comes up, is upgraded under load without a failed request, and every container ends in time.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use pillion_tests::port::Port;
use pillion_tests::venv::{optional, program};
use pillion_tests::wait;
use serde_json::Value;
use tokio::task::JoinSet;

use super::engine::{Engine, is_installed};
use super::load::{Load, page};

const PAGE: &str = include_str!("../../../docs/containers.md");

/// What is replaced, in this order.
const REPLACED: [&str; 6] =
    ["web-1", "web-2", "catalog-v1-1", "catalog-v1-2", "pricing-1", "cart-1"];
/// Seconds that an instance takes to answer, where one is slow.
const SLOW: &str = "2000";

struct Shop {
    engine: Engine,
    port: String,
    door: SocketAddr,
    _port: Port,
}

#[tokio::test]
async fn upgrades_fail_no_request_and_everything_ends_in_time() -> anyhow::Result<()> {
    if optional("a container engine", is_installed())?.is_none() {
        return Ok(());
    }
    let Some(engine) = optional("a container engine", Engine::start().await)? else {
        return Ok(());
    };
    let shop = Shop::open(engine).await?;
    shop.dockerfiles_say_the_same().await?;
    shop.is_confined("web-1-sidecar", &["1337:1337"]).await?;
    shop.is_confined("web-1", &["1000:1000"]).await?;
    shop.everything_is_captured().await?;
    let load = Load::start(shop.door);
    load.all_good("before the upgrade", 100).await?;
    for name in REPLACED {
        shop.replace(name, "v2", &[]).await?;
        load.all_good(&format!("{name} is replaced"), 50).await?;
    }
    load.end().await?;
    shop.what_is_under_way_is_finished().await?;
    shop.everything_ends_in_time().await
}

impl Shop {
    async fn open(engine: Engine) -> anyhow::Result<Self> {
        images(&engine).await?;
        let port = Port::reserve()?;
        let (number, door) = (port.number().to_string(), port.address());
        let shop = Self { engine, port: number, door, _port: port };
        // Here is no terminal, and the port may be taken.
        let block = block("docker compose up -d\n")?
            .replace("exec control-plane", "exec -T control-plane")
            .replace(":8080", &format!(":{}", shop.port));
        match shop.engine.script(&block, &[("PORT", &shop.port)]).await {
            Ok(said) => {
                let open = said.contains("answered_by") && said.contains("~web-1.default");
                ensure!(open, "{said}");
                Ok(shop)
            }
            Err(error) => {
                let logs = shop.compose(&["logs", "--tail", "5"], "latest", &[]).await?;
                Err(error.context(logs))
            }
        }
    }

    async fn compose(
        &self,
        args: &[&str],
        tag: &str,
        more: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        let fixed = [("TAG", tag), ("CONTROL_PLANE_TAG", "latest"), ("PORT", &*self.port)];
        self.engine.compose(args, &[&fixed[..], more].concat()).await
    }

    /// As `docs/containers.md` says: it leaves the endpoints, then its containers are made anew.
    async fn replace(&self, name: &str, tag: &str, more: &[(&str, &str)]) -> anyhow::Result<()> {
        let sidecar = format!("{name}-sidecar");
        let before = self.engine.container(name).await?;
        let block = block("/pillion-proxy leave")?.replace("web-1", name).replace("v2", tag);
        let fixed = [("CONTROL_PLANE_TAG", "latest"), ("PORT", &*self.port)];
        let script = format!("cd examples/compose\n{block}");
        self.engine.script(&script, &[&fixed[..], more].concat()).await?;
        ensure!(before != self.engine.container(name).await?, "{name} is another container");
        for (service, image) in [(&*sidecar, "pillion-proxy"), (name, "pillion-shop")] {
            let found = self.engine.inspect(service).await?;
            ensure!(found["Config"]["Image"] == format!("{image}:{tag}"), "{service}: {found:#}");
        }
        let ready = || async { self.states().await.ok()?.contains(name).then_some(()) };
        wait::until(&format!("{name} is ready"), ready).await
    }

    /// Names of the instances that are ready, as the control plane says.
    async fn states(&self) -> anyhow::Result<String> {
        let container = self.engine.container("control-plane").await?;
        let status = ["exec", &container, "/pillion", "status", "--output", "json"];
        let status: Value = serde_json::from_str(&self.engine.docker(&status).await?)?;
        let all = status["workloads"].as_array().context("workloads")?;
        let ready = all.iter().filter(|one| one["ready"] == true);
        Ok(ready.map(|one| one["name"].to_string()).collect())
    }

    async fn is_confined(&self, service: &str, users: &[&str]) -> anyhow::Result<()> {
        let found = self.engine.inspect(service).await?;
        let host = &found["HostConfig"];
        ensure!(host["ReadonlyRootfs"] == true && host["CapDrop"][0] == "ALL", "{host:#}");
        ensure!(host["CapAdd"].is_null() && host["Privileged"] == false, "{host:#}");
        let user = found["Config"]["User"].as_str().unwrap_or_default();
        ensure!(users.contains(&user), "{service} runs as {user:?}");
        Ok(())
    }

    /// What an engine makes of the Dockerfiles has the settings of the images that `pillion image` makes.
    async fn dockerfiles_say_the_same(&self) -> anyhow::Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (file, program) in [("proxy", "pillion-proxy"), ("control-plane", "pillion")] {
            let context = tempfile::tempdir()?;
            std::fs::write(context.path().join(program), "its program")?;
            let file = root.join(file).join("Dockerfile");
            let tag = format!("{program}:built");
            let args =
                ["build".as_ref(), "-q".as_ref(), "-t".as_ref(), tag.as_ref(), "-f".as_ref()];
            let rest = [file.as_os_str(), context.path().as_os_str()];
            self.engine.docker(&[&args[..], &rest[..]].concat()).await?;
            let mut both = Vec::new();
            for tag in ["latest", "built"] {
                let image = format!("{program}:{tag}");
                let text = self.engine.docker(&["image", "inspect", &image]).await?;
                let all: Value = serde_json::from_str(&text)?;
                let config = &all[0]["Config"];
                let fields =
                    ["User", "ExposedPorts", "StopSignal", "Healthcheck", "Entrypoint", "Cmd"];
                let mut said: Vec<Value> =
                    fields.iter().map(|field| config[field].clone()).collect();
                let environment = config["Env"].as_array().context("an environment")?;
                let own = environment.iter().filter(|one| one.to_string().contains("PILLION"));
                said.extend(own.cloned());
                both.push(said);
            }
            ensure!(both[0] == both[1], "{program}: {both:#?}");
        }
        Ok(())
    }

    /// The applications know no proxy: what they ask each other went through sidecars, over mTLS.
    async fn everything_is_captured(&self) -> anyhow::Result<()> {
        let app = self.engine.inspect("web-1").await?;
        let environment = app["Config"]["Env"].to_string();
        ensure!(!environment.contains("PROXY"), "{environment}");
        // Nothing listens on a plain port: the door's sidecar is the only way in.
        let sidecar = self.engine.inspect("catalog-v1-1-sidecar").await?;
        let networks = sidecar["NetworkSettings"]["Networks"].as_object().context("networks")?;
        let own = networks.values().next().and_then(|network| network["IPAddress"].as_str());
        let plain = SocketAddr::new(own.context("an address")?.parse()?, 8080);
        let refused = pillion_tests::mesh::ask(plain, "catalog.default", "/products").await;
        ensure!(refused.is_err(), "plain traffic to a strict service: {refused:?}");
        Ok(())
    }

    /// A sidecar is stopped while its application, which is slow, has still to ask others.
    async fn what_is_under_way_is_finished(&self) -> anyhow::Result<()> {
        self.replace("web-2", "latest", &[("SHOP_DELAY_MS", SLOW)]).await?;
        let mut asked = JoinSet::new();
        let door = self.door;
        for _ in 0..8 {
            asked.spawn(page(door));
        }
        // The fast ones are answered by web-1; what is left after them is under way at web-2.
        let first = asked.join_next().await.context("an answer")??;
        ensure!(first? == "web-1", "the fast one is first");
        let sidecar = self.engine.container("web-2-sidecar").await?;
        self.engine.docker(&["stop", &sidecar]).await?;
        let mut slow = 0;
        while let Some(answer) = asked.join_next().await {
            slow += usize::from(answer?? == "web-2");
        }
        ensure!(slow > 0, "nothing was under way");
        let state = &self.engine.inspect("web-2-sidecar").await?["State"];
        ensure!(state["ExitCode"] == 0, "{state:#}");
        Ok(())
    }

    /// Who does not end within ten seconds is killed by the engine, and has the exit code 137.
    async fn everything_ends_in_time(&self) -> anyhow::Result<()> {
        self.compose(&["stop"], "latest", &[]).await?;
        let ids = self.engine.docker(&["ps", "-aq"]).await?;
        let ids: Vec<_> = ids.split_whitespace().collect();
        ensure!(ids.len() > 36, "{ids:?}");
        let inspect = [&["inspect"], &ids[..]].concat();
        let all: Value = serde_json::from_str(&self.engine.docker(&inspect).await?)?;
        for one in all.as_array().context("containers")? {
            let state = &one["State"];
            let ended = state["Status"] == "exited" && state["ExitCode"] == 0;
            ensure!(ended, "{}: {state:#}", one["Name"]);
        }
        Ok(())
    }
}

/// The block of the page that has these words.
fn block(mark: &str) -> anyhow::Result<&'static str> {
    let blocks = PAGE.split("```sh\n").skip(1).filter_map(|part| part.split("```").next());
    blocks.into_iter().find(|block| block.contains(mark)).with_context(|| mark.to_owned())
}

/// Makes the images of the compose file, in two versions, of the programs under test.
async fn images(engine: &Engine) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let nft = ["--add", "/usr/sbin/nft"];
    for (name, of, more) in [
        ("pillion", "pillion", &[][..]),
        ("pillion-proxy", "pillion-proxy", &[]),
        ("pillion-redirect", "pillion-proxy", &nft),
        ("pillion-shop", "pillion-shop", &[]),
    ] {
        let file = dir.path().join(name);
        image(of, &format!("{name}:latest"), &file, more).await?;
        engine.docker(&["load".as_ref(), "-i".as_ref(), file.as_os_str()]).await?;
        std::fs::remove_file(file)?;
        engine.docker(&["tag", &format!("{name}:latest"), &format!("{name}:v2")]).await?;
    }
    Ok(())
}

async fn image(of: &str, tag: &str, file: &Path, more: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(program("pillion")?);
    // Programs for tests are linked dynamically: they bring their libraries.
    command.arg("image").arg(program(of)?).args(["--with-libraries", "--compression", "none"]);
    command.args(["--tag", tag]).arg("--output").arg(file).args(more);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "pillion image {of}: {said}");
    Ok(())
}
