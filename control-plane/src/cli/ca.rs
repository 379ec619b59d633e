//! `pillion ca`: the certificate authority of a data directory.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Subcommand;

use crate::app;
use crate::app::files::{JOIN_TOKEN_FILE, PORTS_FILE, Ports, ROOT_FILE, write_atomically};
use crate::ca::{self, Ca, Leaf, RootMaterial, certificates_pem, private_key_pem};
use crate::identity::{SpiffeId, TrustDomain};
use crate::store::{Embedded, Store, StoreError};

/// What `pillion ca` can be told.
#[derive(Debug, clap::Args)]
pub struct CaArgs {
    /// The control plane's data directory.
    #[arg(
        long,
        value_name = "DIR",
        env = "PILLION_DATA_DIR",
        default_value = super::DEFAULT_DATA_DIR,
        global = true
    )]
    pub data_dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: CaCommand,
}

/// The commands of `pillion ca`.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Makes the root of a data directory, where there is none yet. A control plane does so itself when it starts.
    Init {
        /// Trust domain of the identities, such as shop.local.
        #[arg(long, value_name = "NAME", default_value = "cluster.local")]
        trust_domain: TrustDomain,
    },
    /// Shows the root: trust domain, fingerprint, end, and the certificate in PEM.
    Show,
    /// Makes a key and a certificate for a workload that has no sidecar of ours (such as an Envoy), as files.
    ///
    /// The control plane may be running or not.
    Issue(IssueArgs),
}

/// What `pillion ca issue` can be told.
#[derive(Debug, clap::Args)]
pub struct IssueArgs {
    /// The service account, last part of the SPIFFE identity.
    #[arg(long, value_name = "NAME")]
    pub service_account: String,
    /// The namespace.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// Folder for cert-chain.pem, key.pem (mode 0600) and root-cert.pem; made if it is missing.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Life of the certificate, such as 12h. Default and maximum: 24h, or what the running control plane says.
    #[arg(long, value_name = "TIME", value_parser = super::duration)]
    pub ttl: Option<Duration>,
}

/// Runs a command of `pillion ca`.
///
/// # Errors
/// When there is no root yet, or files cannot be read or written.
pub async fn run(args: CaArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        CaCommand::Init { trust_domain } => {
            println!("{}", app::make_root(&args.data_dir, &trust_domain)?.display());
        }
        CaCommand::Show => show(&args.data_dir)?,
        CaCommand::Issue(issue_args) => issue(&args.data_dir, &issue_args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(data_dir: &Path) -> anyhow::Result<()> {
    let facts = ca::root_facts(&read_root(data_dir)?)?;
    println!("trust domain  {}", facts.trust_domain);
    println!("sha256        {}", facts.sha256);
    println!("valid until   {}", facts.not_after);
    println!("{}", facts.pem.trim_end());
    Ok(())
}

/// The root's DER, from the file that the control plane writes at every start.
fn read_root(data_dir: &Path) -> anyhow::Result<Vec<u8>> {
    let path = data_dir.join(ROOT_FILE);
    let pem = fs::read(&path).with_context(|| {
        format!("no root in {}: `pillion ca init` or the first start of `pillion control-plane` makes one", path.display())
    })?;
    ca::first_certificate(&pem).with_context(|| format!("{} is no certificate", path.display()))
}

async fn issue(data_dir: &Path, args: &IssueArgs) -> anyhow::Result<()> {
    let root = read_root(data_dir)?;
    let trust_domain: TrustDomain = ca::root_facts(&root)?.trust_domain.parse()?;
    let id = SpiffeId::new(trust_domain, &args.namespace, &args.service_account)?;
    let (chain, key) = match Embedded::open(data_dir) {
        Ok(store) => issue_from_store(&store, &id, args.ttl)?,
        Err(StoreError::Locked { .. }) => issue_from_running(data_dir, &id, args.ttl).await?,
        Err(error) => return Err(error.into()),
    };
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let root_pem = certificates_pem(&[root.into()]);
    let files = [
        ("key.pem", key.as_bytes(), 0o600),
        ("cert-chain.pem", chain.as_bytes(), 0o644),
        ("root-cert.pem", root_pem.as_bytes(), 0o644),
    ];
    for (name, content, mode) in files {
        let path = args.out.join(name);
        write_atomically(&path, content, mode)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    println!("{id}");
    Ok(())
}

/// Certificate chain and key, both in PEM.
type IssuedPem = (String, zeroize::Zeroizing<String>);

fn issue_from_store(
    store: &Embedded,
    id: &SpiffeId,
    ttl: Option<Duration>,
) -> anyhow::Result<IssuedPem> {
    let Some(root) = store.root()? else {
        bail!(
            "there is no root in the store: `pillion ca init` or the first start of `pillion control-plane` makes one"
        );
    };
    let material = RootMaterial { certificate: root.certificate, key: root.key };
    let now = SystemTime::now();
    let ca = Ca::new(id.trust_domain().clone(), &material, ca::DEFAULT_LEAF_TTL, now)?;
    let made = ca.issue(&Leaf::of(id.clone(), ttl), now)?;
    Ok((certificates_pem(&made.issued.chain), private_key_pem(&made.key)))
}

/// The store belongs to a running control plane: ask that one, with its join token.
async fn issue_from_running(
    data_dir: &Path,
    id: &SpiffeId,
    ttl: Option<Duration>,
) -> anyhow::Result<IssuedPem> {
    let ports_file = data_dir.join(PORTS_FILE);
    let ports: Ports = fs::read(&ports_file)
        .map_err(anyhow::Error::from)
        .and_then(|text| Ok(serde_json::from_slice(&text)?))
        .with_context(|| format!("cannot read {}", ports_file.display()))?;
    let token_file = data_dir.join(JOIN_TOKEN_FILE);
    let token = fs::read_to_string(&token_file)
        .map(zeroize::Zeroizing::new)
        .with_context(|| format!("cannot read {}", token_file.display()))?;
    let (request, key) = ca::request_with_key(id)?;
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports.xds);
    let chain = ca::sign_remotely(address, token.trim(), request, ttl)
        .await
        .with_context(|| format!("the control plane at {address} did not sign"))?;
    Ok((certificates_pem(&chain), private_key_pem(&key)))
}
