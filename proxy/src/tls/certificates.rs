//! Our own certificates: loaded, checked, and chosen for a handshake.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureScheme};

use super::pem::Source;
use super::{PeerIdentity, Secrets, TlsError, provider};
use crate::model::tls::{CommonTls, SecretKind, SecretRef, TlsCertificate};

/// Certificates with their keys, in the order of the configuration.
pub(crate) struct Certificates(Vec<Entry>);

struct Entry {
    key: Arc<CertifiedKey>,
    dns_names: Vec<String>,
}

impl Certificates {
    pub(crate) fn load(
        tls: &CommonTls,
        secrets: &dyn Secrets,
        now: SystemTime,
    ) -> Result<Self, TlsError> {
        let load = |(at, reference): (usize, &SecretRef<TlsCertificate>)| match reference {
            SecretRef::Inline(certificate) => {
                entry(certificate, &format!("tls_certificates[{at}]"), now)
            }
            SecretRef::Sds(name) => match &secrets.get(name) {
                None => Err(TlsError::MissingSecret(name.key().clone())),
                Some(secret) => match &secret.kind {
                    SecretKind::Certificate(certificate) => {
                        entry(certificate, &format!("secret {name:?}"), now)
                    }
                    SecretKind::Validation(_) => Err(TlsError::bad(
                        format!("secret {name:?}"),
                        "is a validation_context: expected a tls_certificate",
                    )),
                },
            },
        };
        let entries: Result<Vec<_>, _> = tls.certificates.iter().enumerate().map(load).collect();
        entries.map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let usable = || self.0.iter().filter(|one| one.key.key.choose_scheme(schemes).is_some());
        let named = name.and_then(|name| usable().find(|one| one.is_for(name)));
        named.or_else(|| usable().next()).map(|one| one.key.clone())
    }
}

impl Entry {
    fn is_for(&self, name: &str) -> bool {
        self.dns_names.iter().any(|ours| match ours.strip_prefix("*.") {
            Some(suffix) => {
                name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(suffix))
            }
            None => ours.eq_ignore_ascii_case(name),
        })
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|one| &one.dns_names)).finish()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes())
    }
}

impl ResolvesClientCert for Certificates {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.choose(None, schemes)
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

fn entry(certificate: &TlsCertificate, place: &str, now: SystemTime) -> Result<Entry, TlsError> {
    let chain = Source::read(&certificate.chain, &format!("{place}, certificate_chain"))?;
    let key = Source::read(&certificate.key, &format!("{place}, private_key"))?;
    let certificates = chain.certificates()?;
    let identity = PeerIdentity::from_der(&certificates);
    match (identity.not_before, identity.not_after) {
        (_, None) => return Err(chain.bad("the first certificate is not readable as X.509")),
        (_, Some(end)) if end <= now => {
            let when = super::explain::utc(end);
            return Err(chain.bad(format!("the certificate expired at {when}")));
        }
        // A clock that is a little behind: peers with a better clock will accept it.
        (Some(start), _) if start > now => {
            tracing::warn!(place = chain.place, "the certificate is not valid yet");
        }
        _ => {}
    }
    let signing = provider().key_provider.load_private_key(key.private_key()?).map_err(|_| {
        key.bad("is no private key that is supported: expected ECDSA P-256/P-384/P-521, RSA of 2048 bits or more, or Ed25519")
    })?;
    let certified = CertifiedKey::new(certificates, signing);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => {
            return Err(
                key.bad("the private key does not match the first certificate of the chain")
            );
        }
        Err(error) => return Err(chain.bad(super::explain(&error))),
    }
    Ok(Entry { key: Arc::new(certified), dns_names: identity.dns_sans })
}

/// The first certificate that this context presents: who we are in `x-forwarded-client-cert` and in
/// access logs. None: there is none.
pub fn own_identity(tls: &CommonTls, secrets: &dyn Secrets) -> Option<PeerIdentity> {
    let certificate = match tls.certificates.first()? {
        SecretRef::Inline(certificate) => certificate.clone(),
        SecretRef::Sds(name) => match &secrets.get(name)?.kind {
            SecretKind::Certificate(certificate) => certificate.clone(),
            SecretKind::Validation(_) => return None,
        },
    };
    let chain = Source::read(&certificate.chain, "tls_certificate").ok()?.certificates().ok()?;
    Some(PeerIdentity::from_der(&chain))
}
