//! The control plane as a whole: wires the parts and keeps them running.

mod feedback;
pub mod files;
mod kept;
pub mod kubernetes;
mod registrar;
mod tokens;
mod view;
mod waiting;
mod world;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pillion_proxy::app::systemd::Activated;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::ca::{
    Ca, CaError, CertificateApi, RootMaterial, ServerCertificate, ServerNames, certificates_pem,
};
use crate::identity::{IdentityError, TrustDomain};
use crate::inject::{self, webhook};
use crate::intent::Parsed;
use crate::store::{Embedded, RootRecord, Store, StoreError};
use crate::xds::{self, AdsApi, Services, StatusApi, Vetting, WorkloadApi};
use files::{Addresses, PORTS_FILE, ROOT_FILE};
use kubernetes::InCluster;
use registrar::SharedRegistry;
use view::View;
use waiting::again;
use world::{ProxyValidator, Publisher};

/// After a failed renewal of the server certificate, the next attempt comes this much later.
const RENEW_RETRY: Duration = Duration::from_secs(60);

/// How to run a control plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address of the TLS listener, and of the others too if it is a loopback address.
    pub address: IpAddr,
    /// Port of xDS in plain text, on loopback; 0 takes a free one.
    pub xds_port: u16,
    /// Port of xDS over TLS; 0 takes a free one.
    pub xds_tls_port: u16,
    /// Port of the administration interface, on loopback; 0 takes a free one.
    pub admin_port: u16,
    /// Where the store, the join token and the root certificate are.
    pub data_dir: PathBuf,
    /// Life of certificates, unless a workload asks for less.
    pub certificate_ttl: Duration,
    /// How long a registered workload lives without a sign of life.
    pub lease_ttl: Duration,
    /// Further DNS names and addresses in the server certificate.
    pub server_names: Vec<String>,
    /// The webhook of Kubernetes, and health and metrics beside it.
    pub webhook: Option<WebhookOptions>,
}

/// How to answer the Kubernetes API server.
#[derive(Clone, Debug)]
pub struct WebhookOptions {
    /// Port of HTTPS, at the address of the TLS listener; 0 takes a free one.
    pub port: u16,
    /// What every injected sidecar is told.
    pub inject: inject::Options,
}

impl WebhookOptions {
    fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
        health: Arc<dyn webhook::Health>,
    ) -> impl Future<Output = ()> + 'static {
        let webhook = webhook::Webhook { options: self.inject.clone(), health };
        webhook::serve(listener, tls, Arc::new(webhook))
    }
}

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be had.
    #[error("cannot listen on {address} ({flag}): {}", listen_reason(source))]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// The flag that changes the port.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A socket that is bound cannot be used.
    #[error("cannot use a socket: {0}")]
    Socket(#[source] io::Error),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The authority cannot be used.
    #[error("certificate authority: {0}")]
    Ca(#[source] CaError),
    /// What is shared through the Kubernetes API cannot be had.
    #[error("--kubernetes: {0}")]
    Kubernetes(String),
    /// The mesh's trust domain cannot stand in a certificate.
    #[error("Mesh spec.trustDomain: {0}")]
    TrustDomain(#[from] IdentityError),
}

/// A running control plane. It stops when it is dropped, or cleanly by [`ControlPlane::stop`].
#[derive(Debug)]
pub struct ControlPlane {
    addresses: Addresses,
    join_token: PathBuf,
    view: Arc<View>,
    stop: CancellationToken,
    outdated: CancellationToken,
    servers: JoinSet<()>,
    /// Ends with the handle: everything that is not a server.
    _background: JoinSet<()>,
}

impl ControlPlane {
    /// Starts to serve what `intents` says, now and later.
    ///
    /// # Errors
    /// [`StartError`], naming the port, the file or the setting that stands in the way.
    pub async fn start(
        options: &Options,
        intents: watch::Receiver<Arc<Parsed>>,
    ) -> Result<Self, StartError> {
        let sockets = Sockets::bind(options, &mut Activated::default()).await?;
        Self::start_in(options, sockets, intents, None).await
    }

    /// The same, in a Kubernetes cluster: with its pods, its service accounts, and the root that its control planes
    /// share.
    ///
    /// # Errors
    /// As [`ControlPlane::start`], and when what is shared cannot be had.
    pub async fn start_in(
        options: &Options,
        Sockets(listeners): Sockets,
        intents: watch::Receiver<Arc<Parsed>>,
        cluster: Option<InCluster>,
    ) -> Result<Self, StartError> {
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&options.data_dir)?);
        let trust_domain: TrustDomain = intents.borrow().intent.mesh.trust_domain.parse()?;
        let root = root_of(cluster.as_ref(), store.as_ref(), (&trust_domain, &options.data_dir));
        let root = waiting::meanwhile((&listeners, options), root).await??;
        let [xds, xds_tls, admin] =
            [again(&listeners.xds)?, again(&listeners.xds_tls)?, again(&listeners.admin)?];
        let (domain, now) = (trust_domain.clone(), SystemTime::now());
        let ca = Arc::new(Ca::new(domain, &root, options.certificate_ttl, now)?);
        let join_token = files::join_token(&options.data_dir, ca.root(), store.as_ref())?;
        write_root(&options.data_dir, &ca)?;
        let registry = Arc::new(SharedRegistry::restore(Arc::clone(&store), options.lease_ttl)?);
        let workloads = match &cluster {
            Some(cluster) => cluster.with_pods(registry.watch()),
            None => registry.watch(),
        };
        let publisher = Publisher::new(trust_domain.clone(), intents, workloads);
        let stop = CancellationToken::new();
        let ads = vetted(AdsApi::new(publisher.worlds(), stop.clone()));
        let accepted = store.join_tokens()?;
        let reviewer = cluster.as_ref().map(|cluster| cluster.reviewer(trust_domain));
        let services = Services::new(tokens::check(accepted, reviewer))
            .with(ads.clone().into_server())
            .with(StatusApi::new(ads.clone()).into_server())
            .with(CertificateApi::new(Arc::clone(&ca), stop.clone()).into_server())
            .with(WorkloadApi::new(registry.clone()).into_server());
        let certificate =
            Arc::new(ServerCertificate::new(Arc::clone(&ca), server_names(options), now)?);
        files::write_ports(&options.data_dir.join(PORTS_FILE), listeners.addresses.into())?;
        let root_pem = certificates_pem(std::slice::from_ref(ca.root()));
        let own_root = ca.root().clone();
        let reach = cluster.as_ref().map(InCluster::reach);
        let view = Arc::new(View::new((ca, ads), &publisher, (stop.clone(), reach)));
        let mut background = JoinSet::new();
        let outdated = CancellationToken::new();
        if let Some(cluster) = &cluster {
            background.spawn(cluster.keep(&options.data_dir));
            background.spawn(cluster.other_root(own_root, outdated.clone()));
        }
        background.spawn(publisher.run());
        background.spawn(async move { registry.run_expiry().await });
        background.spawn(renew_certificate(Arc::clone(&certificate)));
        background.spawn(admin::serve(admin, view.clone()));
        if let (Some(listener), Some(webhook)) = (&listeners.webhook, &options.webhook) {
            let tls = Arc::new(certificate.web_tls()?);
            background.spawn(webhook.serve(again(listener)?, tls, view.clone()));
        }
        let tls = Arc::new(certificate.tls()?);
        let mut servers = JoinSet::new();
        servers.spawn(ended(xds::serve_plain(xds, services.clone(), stop.clone())));
        servers.spawn(ended(xds::serve_tls(xds_tls, tls, services, stop.clone())));
        if let Some(cluster) = cluster {
            // The lease is given back before the process ends.
            servers.spawn(cluster.work(root_pem, View::feedback(&view), stop.clone()));
        }
        let addresses = listeners.addresses;
        let _background = background;
        Ok(Self { addresses, join_token, view, stop, outdated, servers, _background })
    }

    /// Waits, mostly for ever, until it has to be started anew: the cluster has another root certificate than the copy
    /// that it was started with while the API was away.
    pub async fn outdated(&self) {
        self.outdated.cancelled().await;
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// The file with the join token.
    #[must_use]
    pub fn join_token(&self) -> &Path {
        &self.join_token
    }

    /// How things are, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        self.view.summary()
    }

    /// Tells every client to go elsewhere, and waits for the connections to end, a few seconds at
    /// the most.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while self.servers.join_next().await.is_some() {}
    }
}

/// Nothing is sent that our own proxy would refuse.
fn vetted(ads: AdsApi) -> AdsApi {
    ads.with_vetting(Arc::new(Vetting::new(Box::new(ProxyValidator))))
}

/// The sockets of a control plane, bound before anything else happens.
#[derive(Debug)]
pub struct Sockets(Listeners);

impl Sockets {
    /// Binds them; or takes those that the service manager has bound, where there are some: by name (`xds`, `xds-tls`,
    /// `admin`), or by address and port.
    ///
    /// # Errors
    /// [`StartError::Listen`]
    pub async fn bind(options: &Options, activated: &mut Activated) -> Result<Self, StartError> {
        Listeners::bind(options, activated).await.map(Self)
    }

    /// Answers health checks until `work` is done: that the process lives, and that it is not ready yet.
    ///
    /// # Errors
    /// When a socket cannot be used.
    pub async fn meanwhile<T>(
        &self,
        options: &Options,
        work: impl Future<Output = T>,
    ) -> Result<T, StartError> {
        waiting::meanwhile((&self.0, options), work).await
    }
}

#[derive(Debug)]
struct Listeners {
    xds: std::net::TcpListener,
    xds_tls: std::net::TcpListener,
    admin: std::net::TcpListener,
    webhook: Option<std::net::TcpListener>,
    addresses: Addresses,
}

impl Listeners {
    async fn bind(options: &Options, sockets: &mut Activated) -> Result<Self, StartError> {
        let loopback = if options.address.is_loopback() {
            options.address
        } else {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        };
        let mut bind = async |ip, port, flag| bind(SocketAddr::new(ip, port), flag, sockets).await;
        let (xds, xds_address) = bind(loopback, options.xds_port, "--xds-port").await?;
        let (xds_tls, xds_tls_address) =
            bind(options.address, options.xds_tls_port, "--xds-tls-port").await?;
        let (admin, admin_address) = bind(loopback, options.admin_port, "--admin-port").await?;
        let (webhook, webhook_address) = match &options.webhook {
            Some(webhook) => {
                let bound = bind(options.address, webhook.port, "--webhook-port").await?;
                (Some(bound.0), Some(bound.1))
            }
            None => (None, None),
        };
        let addresses = Addresses {
            xds: xds_address,
            xds_tls: xds_tls_address,
            admin: admin_address,
            webhook: webhook_address,
        };
        Ok(Self { xds, xds_tls, admin, webhook, addresses })
    }
}

async fn bind(
    address: SocketAddr,
    flag: &'static str,
    sockets: &mut Activated,
) -> Result<(std::net::TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, flag, source };
    let name = flag.trim_start_matches("--").trim_end_matches("-port");
    let listener = match sockets.tcp(name, address) {
        Some(listener) => {
            listener.set_nonblocking(true).map_err(failed)?;
            Ok(listener)
        }
        // As tokio binds: the address may be taken over from connections that just ended.
        None => TcpListener::bind(address).await.and_then(TcpListener::into_std),
    };
    let listener = listener.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn listen_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use by another process".to_owned(),
        io::ErrorKind::PermissionDenied => "no permission for this port".to_owned(),
        _ => error.to_string(),
    }
}

/// The root of a data directory, without a control plane: made, or the one that is there. Its certificate is written
/// beside it as [`ROOT_FILE`].
///
/// # Errors
/// The store or the file cannot be written, or the root that is there belongs to another trust domain.
pub fn make_root(data_dir: &Path, trust_domain: &TrustDomain) -> Result<PathBuf, StartError> {
    let store = Embedded::open(data_dir)?;
    let root = stored_root(&store, trust_domain)?;
    let ca = Ca::new(trust_domain.clone(), &root, crate::ca::DEFAULT_LEAF_TTL, SystemTime::now())?;
    write_root(data_dir, &ca)?;
    Ok(data_dir.join(ROOT_FILE))
}

/// The root that certificates are signed with: that of the cluster, or the stored one.
async fn root_of(
    cluster: Option<&InCluster>,
    store: &dyn Store,
    (trust_domain, data_dir): (&TrustDomain, &Path),
) -> Result<RootMaterial, StartError> {
    match cluster {
        Some(cluster) => cluster.root(store, trust_domain, data_dir).await,
        None => stored_root(store, trust_domain),
    }
}

/// The stored root; made at the first start.
fn stored_root(store: &dyn Store, trust_domain: &TrustDomain) -> Result<RootMaterial, StartError> {
    let root = match store.root()? {
        Some(root) => root,
        None => {
            let made = RootMaterial::generate(trust_domain, SystemTime::now())?;
            tracing::info!(%trust_domain, "made a new root certificate");
            store.put_root_if_absent(RootRecord { certificate: made.certificate, key: made.key })?
        }
    };
    Ok(RootMaterial { certificate: root.certificate, key: root.key })
}

fn write_root(directory: &Path, ca: &Ca) -> Result<(), StartError> {
    let path = directory.join(ROOT_FILE);
    let pem = certificates_pem(std::slice::from_ref(ca.root()));
    files::write_atomically(&path, pem.as_bytes(), 0o644)
        .map_err(|source| StartError::File { path, source })
}

fn server_names(options: &Options) -> ServerNames {
    let mut names = ServerNames {
        dns: vec!["localhost".to_owned()],
        addresses: vec![Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()],
    };
    if !options.address.is_unspecified() && !names.addresses.contains(&options.address) {
        names.addresses.push(options.address);
    }
    for name in &options.server_names {
        match name.parse() {
            Ok(address) => names.addresses.push(address),
            Err(_) => names.dns.push(name.clone()),
        }
    }
    names
}

async fn renew_certificate(certificate: Arc<ServerCertificate>) {
    let mut renew_at = SystemTime::now();
    loop {
        let pause = renew_at.duration_since(SystemTime::now()).unwrap_or_default();
        tokio::time::sleep(pause).await;
        renew_at = match certificate.renew(SystemTime::now()) {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "cannot renew the control plane's certificate");
                SystemTime::now() + RENEW_RETRY
            }
        };
    }
}

async fn ended(server: impl Future<Output = Result<(), tonic::transport::Error>>) {
    if let Err(error) = server.await {
        tracing::error!(%error, "an xDS listener ended");
    }
}

#[cfg(test)]
mod tests;
