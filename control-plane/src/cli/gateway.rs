//! `pillion gateway`: a proxy in front of services, of one file, with nothing else running.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, bail};
use clap::Parser;
use pillion_proxy::app::flags::Flags;
use pillion_proxy::xds::kind::Kind;
use pillion_proxy::xds::local::{Everything, Given};
use serde_json::json;
use tokio::sync::watch;

use crate::compile::{self, Certificates, GatewayProxy, Node, Sidecar, World};
use crate::intent::{Intent, Mtls, Parsed, Problem, Severity};
use crate::snapshot::{Resource, ResourceType};
use crate::source;

/// What `pillion gateway` can be told.
#[derive(Debug, clap::Args)]
pub struct GatewayArgs {
    /// File or folder with Gateways, routes, Services and Workloads; watched for changes.
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub file: PathBuf,
    /// Only check the file, and end.
    #[arg(long)]
    pub check: bool,
    /// Print an Envoy bootstrap that does the same, for `pillion-proxy -c` or Envoy, and end.
    #[arg(long, conflicts_with = "check")]
    pub print_bootstrap: bool,
    /// Folder with `<namespace>/<name>/tls.crt` and `tls.key` for Secrets that say nothing else.
    #[arg(long, value_name = "DIR")]
    pub certificate_dir: Option<String>,
    /// Port of the admin endpoint on loopback. 0: any.
    #[arg(long, value_name = "PORT", default_value_t = 15000)]
    pub admin_port: u16,
    /// Worker threads. Default: by the CPU quota, 1 or 2.
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// How long requests under way may take to finish after SIGTERM, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub drain_time_s: u64,
    /// Log level: off, error, warn, info, debug or trace, or a filter such as `info,hyper=warn`.
    #[arg(short, long, value_name = "LEVEL", default_value = "info", env = "PILLION_LOG")]
    pub log_level: String,
}

/// Serves until SIGTERM or SIGINT. A file that is wrong from the start ends it; later the last good version stays.
///
/// # Errors
/// The file has errors, or a listener cannot be had.
pub fn run(args: GatewayArgs) -> anyhow::Result<ExitCode> {
    let intents = source::watch::watch(&args.file)
        .with_context(|| format!("cannot watch {}", args.file.display()))?;
    let parsed = Arc::clone(&intents.borrow());
    let compiler = Compiler::new(&args, &parsed);
    let problems = compiler.problems(&parsed);
    for problem in &problems {
        eprintln!("{problem}");
    }
    let errors = problems.iter().filter(|one| one.severity == Severity::Error).count();
    if errors > 0 {
        bail!("{}: {errors} errors", args.file.display());
    }
    if !parsed.intent.gateways.values().any(|gateway| gateway.is_ours()) {
        bail!("{}: there is no Gateway of gatewayClassName `pillion`", args.file.display());
    }
    if args.check {
        return Ok(ExitCode::SUCCESS);
    }
    if args.print_bootstrap {
        let set = compiler.world.for_node(&compiler.node);
        let mut bootstrap = compile::bootstrap(&set, "gateway").map_err(anyhow::Error::msg)?;
        bootstrap["admin"] = admin(args.admin_port);
        println!("{}", serde_json::to_string_pretty(&bootstrap)?);
        return Ok(ExitCode::SUCCESS);
    }
    let (sender, given) = watch::channel(Arc::new(compiler.everything()));
    thread::Builder::new()
        .name("pillion-gateway".to_owned())
        .spawn(move || follow(compiler, intents, problems, &sender))?;
    let flags = flags(&args)?;
    Ok(pillion_proxy::app::embed(&flags, &bootstrap(args.admin_port), given))
}

/// The flags of the proxy within.
fn flags(args: &GatewayArgs) -> anyhow::Result<Flags> {
    let mut words = vec![
        "pillion gateway".to_owned(),
        format!("--drain-time-s={}", args.drain_time_s),
        format!("--log-level={}", args.log_level),
    ];
    words.extend(args.concurrency.map(|count| format!("--concurrency={count}")));
    Ok(Flags::try_parse_from(words)?)
}

fn bootstrap(admin_port: u16) -> String {
    let bootstrap = json!({
        "node": {"id": "gateway", "cluster": "gateway"},
        "admin": admin(admin_port),
    });
    bootstrap.to_string()
}

fn admin(port: u16) -> serde_json::Value {
    json!({"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}})
}

/// Compiles every change and hands it to the proxy; says what is wrong with it.
fn follow(
    mut compiler: Compiler,
    mut intents: watch::Receiver<Arc<Parsed>>,
    mut known: Vec<Problem>,
    sender: &watch::Sender<Arc<Everything>>,
) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build() else {
        tracing::error!("cannot watch the file: changes will not be seen");
        return;
    };
    while runtime.block_on(intents.changed()).is_ok() {
        let parsed = Arc::clone(&intents.borrow_and_update());
        compiler.update(&parsed);
        let problems = compiler.problems(&parsed);
        for problem in problems.iter().filter(|problem| !known.contains(problem)) {
            match problem.severity {
                Severity::Error => tracing::error!("{problem}"),
                Severity::Warning => tracing::warn!("{problem}"),
            }
        }
        let errors = problems.iter().filter(|one| one.severity == Severity::Error).count();
        tracing::info!(errors, "the configuration changed");
        known = problems;
        sender.send_replace(Arc::new(compiler.everything()));
    }
}

/// From files to the proxy's resources.
struct Compiler {
    world: World,
    node: Node,
}

impl Compiler {
    fn new(args: &GatewayArgs, parsed: &Parsed) -> Self {
        let node = Node::of_gateway(GatewayProxy {
            gateway: None,
            proxy: Sidecar::alone(Certificates::None),
            certificate_dir: args.certificate_dir.clone(),
            is_here: true,
            inbound: None,
        });
        Self { world: World::new(without_mesh(&parsed.intent), Default::default()), node }
    }

    fn update(&mut self, parsed: &Parsed) {
        self.world = self.world.update(without_mesh(&parsed.intent), Default::default());
    }

    fn problems(&self, parsed: &Parsed) -> Vec<Problem> {
        let warnings = self.world.warnings_for(&self.node).into_iter();
        let warnings = warnings.map(|text| Problem::of_file(Severity::Warning, "", text));
        let of_world = self.world.problems().iter().cloned();
        parsed.problems.iter().cloned().chain(of_world).chain(warnings).collect()
    }

    fn everything(&self) -> Everything {
        Everything(self.world.for_node(&self.node).iter().map(|one| given(one)).collect())
    }
}

/// Nobody here speaks mTLS: workloads are reached as they are.
fn without_mesh(intent: &Intent) -> Arc<Intent> {
    let mut intent = intent.clone();
    let mut mesh = intent.mesh.as_ref().clone();
    mesh.mtls = Mtls::Permissive;
    intent.mesh = Arc::new(mesh);
    Arc::new(intent)
}

/// A type of resource as the proxy calls it.
pub(super) fn kind_of(kind: ResourceType) -> Kind {
    match kind {
        ResourceType::Cluster => Kind::Cluster,
        ResourceType::Endpoint => Kind::Endpoints,
        ResourceType::Listener => Kind::Listener,
        ResourceType::Route => Kind::Routes,
        ResourceType::Secret => Kind::Secret,
    }
}

fn given(resource: &Resource) -> Given {
    Given {
        kind: kind_of(resource.kind),
        name: resource.name.to_string(),
        version: resource.version.to_string(),
        body: resource.body.clone(),
    }
}
