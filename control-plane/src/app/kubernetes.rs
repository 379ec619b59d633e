//! A control plane in a Kubernetes cluster: what it takes from there, shares there, and writes there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::files::{JOIN_TOKEN_FILE, write_atomically};
use super::registrar::Workloads;
use super::{StartError, kept, stored_root};
use crate::ca::{JoinToken, RootMaterial, certificates_pem, first_certificate, private_key_pem};
use crate::identity::{Caller, SpiffeId, TrustDomain};
use crate::intent::{Name, Parsed, Workload};
use crate::map;
use crate::source::kubernetes::feedback::Feedback;
use crate::source::kubernetes::{Cluster, Followed, Reach, SharedRoot};
use crate::source::{Combined, Documents, combine};
use crate::store::{RootRecord, Store};

/// Pause after a failure to reach the API server at the start.
const RETRY: Duration = Duration::from_secs(2);

/// A cluster that is read, and whose pods are part of the mesh.
#[derive(Debug)]
pub struct InCluster {
    cluster: Cluster,
    followed: Followed,
    combined: watch::Receiver<Combined>,
    identity: String,
}

impl InCluster {
    /// Reads everything once, and follows it from then on; together with what `files` say. Where the API cannot be
    /// read, the last good state in `data_dir` is in force. Without one, it waits for the API server as long as it
    /// takes: with half of what there is, sidecars would lose endpoints.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub async fn follow(
        cluster: Cluster,
        files: Option<watch::Receiver<Documents>>,
        data_dir: &Path,
    ) -> Result<(Self, watch::Receiver<Arc<Parsed>>), StartError> {
        let mut followed = cluster.follow(kept::load(data_dir, cluster.url()));
        followed.serves().await;
        let (intents, combined) = combine(files, followed.view.clone());
        let mut random = [0; 4];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| StartError::Kubernetes("the system gives no random bytes".to_owned()))?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let identity = format!("{host}_{:08x}", u32::from_be_bytes(random));
        Ok((Self { cluster, followed, combined, identity }, intents))
    }

    /// The root that all control planes of the cluster share; made, or taken from the store, by the first of them.
    pub(super) async fn root(
        &self,
        store: &dyn Store,
        trust_domain: &TrustDomain,
        data_dir: &Path,
    ) -> Result<RootMaterial, StartError> {
        let mut reach = self.followed.reach.clone();
        loop {
            let kept = reach.borrow_and_update().kept.is_some();
            // A state that was kept came with this root.
            if let Some(root) = if kept { store.root()? } else { None } {
                tracing::warn!("uses the copy of Secret pillion-ca that was kept");
                return Ok(RootMaterial { certificate: root.certificate, key: root.key });
            }
            match self.shared_root(store, trust_domain).await? {
                Ok(shared) => return take(&shared, store, data_dir),
                Err(error) => tracing::warn!(error, "waits for the shared root certificate"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// How it stands with the API.
    pub(super) fn reach(&self) -> watch::Receiver<Reach> {
        self.followed.reach.clone()
    }

    /// Cancels `outdated` when the root that this control plane signs with turns out not to be the one of the cluster: a
    /// copy that was kept may be old. Looked at once, when the API answers.
    pub(super) fn other_root(
        &self,
        own: CertificateDer<'static>,
        outdated: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let (cluster, mut reach) = (self.cluster.clone(), self.followed.reach.clone());
        async move {
            let was_kept = reach.borrow().kept.is_some();
            if !was_kept || reach.wait_for(|reach| reach.read).await.is_err() {
                return;
            }
            let shared = loop {
                match cluster.shared_root().await {
                    Ok(shared) => break shared,
                    Err(error) => tracing::warn!(error, "cannot compare the root certificate"),
                }
                tokio::time::sleep(RETRY).await;
            };
            let found = shared.and_then(|shared| first_certificate(shared.certificate.as_bytes()));
            if found.is_some_and(|found| found != own.as_ref()) {
                outdated.cancel();
            }
        }
    }

    /// Keeps what is known in `data_dir`, for ever.
    pub(super) fn keep(&self, data_dir: &Path) -> impl Future<Output = ()> + use<> {
        kept::keep(
            data_dir.to_path_buf(),
            self.cluster.url().to_owned(),
            self.followed.kept.clone(),
        )
    }

    /// Registered workloads and pods; of what is both, the pod is known better.
    pub(super) fn with_pods(
        &self,
        mut registered: watch::Receiver<Workloads>,
    ) -> watch::Receiver<Workloads> {
        let mut pods = self.followed.workloads.clone();
        type Pods = BTreeMap<Name, Arc<Workload>>;
        let both = |before: &Workloads, registered: &Workloads, pods: &Pods| -> Workloads {
            let all = registered.iter().chain(pods);
            let all = all.map(|(name, one)| (name.clone(), Arc::clone(one)));
            map::updated(before, all.collect())
        };
        let nothing = Workloads::default();
        let first = both(&nothing, &registered.borrow_and_update(), &pods.borrow_and_update());
        let (out, merged) = watch::channel(first);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Ok(()) = registered.changed() => {}
                    Ok(()) = pods.changed() => {}
                    () = out.closed() => return,
                    else => return,
                }
                let before = out.borrow().clone();
                let now = both(&before, &registered.borrow_and_update(), &pods.borrow_and_update());
                out.send_replace(now);
            }
        });
        merged
    }

    /// Who knows service-account tokens.
    pub(super) fn reviewer(&self, trust_domain: TrustDomain) -> Reviewer {
        Reviewer { cluster: self.cluster.clone(), trust_domain }
    }

    /// Takes part in the election, and writes while it leads, until `stop`. `feedback` is what its own proxies say.
    pub(super) async fn work(
        self,
        root: String,
        feedback: impl Fn() -> Feedback,
        stop: CancellationToken,
    ) {
        let (candidate, leadership) = self.cluster.candidate(self.identity.clone());
        let (said, heard) = watch::channel(None);
        let exchanging =
            self.cluster.exchange(&self.identity, feedback, (leadership.clone(), said));
        let reporting = self.cluster.report(self.combined.clone(), heard, leadership.clone());
        let publishing = self.cluster.publish_root(root, self.followed.view.clone(), leadership);
        tokio::select! {
            () = candidate.run(stop) => {}
            () = exchanging => {}
            () = reporting => {}
            () = publishing => {}
        }
    }

    /// The inner error may pass.
    async fn shared_root(
        &self,
        store: &dyn Store,
        trust_domain: &TrustDomain,
    ) -> Result<Result<SharedRoot, String>, StartError> {
        match self.cluster.shared_root().await {
            Ok(Some(shared)) => return Ok(Ok(shared)),
            Ok(None) => {}
            Err(error) => return Ok(Err(error)),
        }
        let made = stored_root(store, trust_domain)?;
        let token = JoinToken::generate(&made.certificate)?;
        let shared = SharedRoot {
            certificate: certificates_pem(&[made.certificate.into()]),
            key: private_key_pem(&made.key),
            join_token: Some(token.expose()),
        };
        Ok(self.cluster.keep_root(shared).await)
    }
}

/// Asks the API server about service-account tokens.
#[derive(Debug)]
pub(super) struct Reviewer {
    cluster: Cluster,
    trust_domain: TrustDomain,
}

impl Reviewer {
    pub(super) async fn caller(&self, token: &str) -> Caller {
        match self.cluster.review(token).await {
            Ok(Some(account)) => {
                match SpiffeId::new(self.trust_domain.clone(), &account.namespace, &account.name) {
                    Ok(id) => Caller::Workload(id),
                    Err(error) => {
                        tracing::warn!(%error, "a service account cannot be an identity");
                        Caller::Nobody("the service account's name cannot stand in an identity")
                    }
                }
            }
            Ok(None) => Caller::Nobody(
                "the token is neither a join token nor a valid service-account token for the audience `pillion`",
            ),
            Err(error) => {
                tracing::warn!(error, "cannot ask the Kubernetes API about a token");
                Caller::Nobody("the Kubernetes API cannot be asked about the token now")
            }
        }
    }
}

/// The shared root as this control plane uses it. Its join token becomes this one's too.
fn take(
    shared: &SharedRoot,
    store: &dyn Store,
    data_dir: &Path,
) -> Result<RootMaterial, StartError> {
    let bad = |what: &str| StartError::Kubernetes(format!("Secret pillion-ca: {what}"));
    let certificate = first_certificate(shared.certificate.as_bytes())
        .ok_or_else(|| bad("root.pem has no certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(shared.key.as_bytes())
        .map_err(|_| bad("root.key has no private key in PKCS#8 PEM"))?;
    let key = Zeroizing::new(key.secret_der().to_vec());
    // For a start while the API is away.
    store.put_root(RootRecord { certificate: certificate.clone(), key: key.clone() })?;
    if let Some(text) = &shared.join_token {
        let token = JoinToken::parse(text).map_err(|_| bad("join-token is no join token"))?;
        store.put_join_token(token.secret_sha256())?;
        let path = data_dir.join(JOIN_TOKEN_FILE);
        let text = Zeroizing::new(format!("{}\n", text.trim()));
        write_atomically(&path, text.as_bytes(), 0o600)
            .map_err(|source| StartError::File { path, source })?;
    }
    tracing::info!("uses the root certificate of Secret pillion-ca");
    Ok(RootMaterial { certificate, key })
}
