//! The control plane's own certificate: issued by its own authority, renewed at half life.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs as provider;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroize;

use super::{Ca, CaError, Leaf};
use crate::identity::SpiffeId;

/// Namespace of the control plane's identity.
const NAMESPACE: &str = "pillion-system";
/// Service account of the control plane's identity.
const SERVICE_ACCOUNT: &str = "control-plane";

/// Names that the control plane is reached by, beside its SPIFFE identity.
#[derive(Debug, Clone, Default)]
pub struct ServerNames {
    /// DNS names.
    pub dns: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
}

/// The current server certificate; new connections get the newest one.
pub struct ServerCertificate {
    ca: Arc<Ca>,
    names: ServerNames,
    current: ArcSwap<CertifiedKey>,
}

impl ServerCertificate {
    /// Issues the first certificate.
    ///
    /// # Errors
    /// When the authority or TLS refuses it.
    pub fn new(ca: Arc<Ca>, names: ServerNames, now: SystemTime) -> Result<Self, CaError> {
        let (certified, _) = issue(&ca, &names, now)?;
        Ok(Self { ca, names, current: ArcSwap::from_pointee(certified) })
    }

    /// Issues a new certificate for new connections; open ones go on undisturbed. Returns when to
    /// renew next: at half of its life.
    ///
    /// # Errors
    /// When the authority refuses; then the current certificate stays.
    pub fn renew(&self, now: SystemTime) -> Result<SystemTime, CaError> {
        let (certified, renew_at) = issue(&self.ca, &self.names, now)?;
        self.current.store(Arc::new(certified));
        Ok(renew_at)
    }

    /// TLS 1.3 with this certificate for HTTP/1.1, and clients without one: the Kubernetes API server and others that
    /// know this control plane by its DNS name.
    ///
    /// # Errors
    /// When TLS refuses its own settings (it does not).
    pub fn web_tls(self: &Arc<Self>) -> Result<ServerConfig, CaError> {
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .map_err(tls_error)?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// TLS 1.3 with this certificate. A client certificate is optional, but if there is one it
    /// must be signed by our root. No session resumption: a certificate is checked every time.
    ///
    /// # Errors
    /// When TLS refuses the root.
    pub fn tls(self: &Arc<Self>) -> Result<ServerConfig, CaError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.root().clone()).map_err(tls_error)?;
        let crypto = Arc::new(provider::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&crypto))
                .allow_unauthenticated()
                .build()
                .map_err(tls_error)?;
        let mut config = ServerConfig::builder_with_provider(crypto)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(tls_error)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("names", &self.names).finish_non_exhaustive()
    }
}

/// A new certificate with the root behind it (join tokens pin the root, so it is sent along), and
/// the middle of its life.
fn issue(
    ca: &Ca,
    names: &ServerNames,
    now: SystemTime,
) -> Result<(CertifiedKey, SystemTime), CaError> {
    let leaf = Leaf {
        id: SpiffeId::new(ca.trust_domain().clone(), NAMESPACE, SERVICE_ACCOUNT)?,
        dns_names: names.dns.clone(),
        addresses: names.addresses.clone(),
        ttl: None,
    };
    let made = ca.issue(&leaf, now)?;
    let mut key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key.to_vec()));
    let signing_key = provider::sign::any_supported_type(&key);
    key.zeroize();
    let mut chain = made.issued.chain;
    chain.push(ca.root().clone());
    let half = made.issued.not_after.duration_since(now).unwrap_or_default() / 2;
    Ok((CertifiedKey::new(chain, signing_key.map_err(tls_error)?), now + half))
}

fn tls_error(error: impl fmt::Display) -> CaError {
    CaError::Tls(error.to_string())
}
