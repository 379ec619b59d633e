//! The proxy's own identity: a key made here, a request to have it signed, and what comes back, as
//! the secrets `default` and `ROOTCA` that TLS contexts name.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use zeroize::Zeroizing;

use super::peer::pem_of;
use super::pem::Source;
use super::{NoSecrets, PeerIdentity, TlsError, server_config};
use crate::model::Name;
use crate::model::tls::{
    CommonTls, DataSource, DownstreamTls, Secret, SecretKind, SecretRef, TlsCertificate,
    ValidationContext,
};

/// Name of the secret with our certificate and key.
pub const CERTIFICATE_SECRET: &str = "default";
/// Name of the secret with the roots that we trust.
pub const TRUST_SECRET: &str = "ROOTCA";

/// A new private key (ECDSA P-256) and the request to certify it. `Debug` shows neither.
pub struct KeyAndCsr {
    key_pem: Zeroizing<Vec<u8>>,
    csr: Vec<u8>,
    spiffe_id: String,
}

impl KeyAndCsr {
    /// Makes a key and a PKCS#10 request (RFC 2986) whose one name is the SPIFFE ID.
    ///
    /// # Errors
    /// The ID is not ASCII, or the system gives no randomness.
    pub fn generate(spiffe_id: &str) -> Result<Self, TlsError> {
        let failed = |error: rcgen::Error| TlsError::bad("certificate request", error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(spiffe_id.try_into().map_err(failed)?)];
        let csr = params.serialize_request(&key).map_err(failed)?;
        Ok(Self {
            key_pem: Zeroizing::new(key.serialize_pem().into_bytes()),
            csr: csr.der().to_vec(),
            spiffe_id: spiffe_id.to_owned(),
        })
    }

    /// The request, DER.
    pub fn csr_der(&self) -> &[u8] {
        &self.csr
    }

    /// What the authority gave for the request. `chain` is DER, leaf first; `roots` DER.
    ///
    /// # Errors
    /// The certificate is for another key or another name, has expired, or is not readable.
    pub fn issued<T: AsRef<[u8]>>(&self, chain: &[T], roots: &[T]) -> Result<Identity, TlsError> {
        let pem = |all: &[T]| all.iter().map(|one| pem_of(one.as_ref())).collect::<String>();
        self.issued_pem(&pem(chain), &pem(roots))
    }

    /// The same from PEM.
    ///
    /// # Errors
    /// As of [`Self::issued`].
    pub fn issued_pem(&self, chain: &str, roots: &str) -> Result<Identity, TlsError> {
        let identity = Identity::restore(chain, self.key_pem.clone(), roots)?;
        if identity.spiffe_id != self.spiffe_id {
            let what = format!("is for {}: expected {}", identity.spiffe_id, self.spiffe_id);
            return Err(TlsError::bad("issued certificate", what));
        }
        Ok(identity)
    }
}

impl fmt::Debug for KeyAndCsr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyAndCsr").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

/// Our identity, ready for use. Its secrets' `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `default`: certificate chain and key.
    pub certificate: Arc<Secret>,
    /// `ROOTCA`: the roots that we trust.
    pub trust: Arc<Secret>,
    /// Whose it is.
    pub spiffe_id: String,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
}

impl Identity {
    /// Puts an identity together from PEM parts: what an authority issued, or what was kept on disk.
    ///
    /// # Errors
    /// The key does not match the certificate, the certificate has expired, has no SPIFFE ID or is
    /// not readable, or there is no usable root.
    pub fn restore(
        chain: &str,
        key_pem: Zeroizing<Vec<u8>>,
        roots: &str,
    ) -> Result<Self, TlsError> {
        let inline = |bytes: &str| DataSource::Inline(Arc::new(Zeroizing::new(bytes.into())));
        let certificate =
            TlsCertificate { chain: inline(chain), key: DataSource::Inline(Arc::new(key_pem)) };
        let trust = ValidationContext { trusted_ca: Some(inline(roots)), ..Default::default() };
        let certificate = Arc::new(certificate);
        check(&certificate, &trust)?;

        let place = "issued certificate";
        let peer =
            PeerIdentity::from_der(&Source::read(&certificate.chain, place)?.certificates()?);
        let (Some(spiffe_id), Some(not_before), Some(not_after)) =
            (peer.spiffe_id(), peer.not_before, peer.not_after)
        else {
            return Err(TlsError::bad(
                place,
                "has no SPIFFE ID: expected exactly one URI name spiffe://…",
            ));
        };
        Ok(Self {
            spiffe_id: spiffe_id.to_owned(),
            not_before,
            not_after,
            serial: peer.serial.clone(),
            certificate: secret(CERTIFICATE_SECRET, SecretKind::Certificate(certificate)),
            trust: secret(TRUST_SECRET, SecretKind::Validation(Arc::new(trust))),
        })
    }

    /// When to ask for the next certificate: at half of its life, give or take a tenth of it, so
    /// that a fleet that started together does not renew together. `random` is in `0..1`. Its life
    /// is counted from `issued`, if that is known: an authority puts `not_before` into the past.
    pub fn renew_at(&self, issued: Option<SystemTime>, random: f64) -> SystemTime {
        let begin = issued.map_or(self.not_before, |issued| issued.max(self.not_before));
        let life = self.not_after.duration_since(begin).unwrap_or_default();
        begin + life.mul_f64(0.45 + 0.1 * random.clamp(0.0, 1.0))
    }
}

/// The checks that any TLS context would make, made now.
fn check(certificate: &Arc<TlsCertificate>, trust: &ValidationContext) -> Result<(), TlsError> {
    let validation = crate::model::tls::Validation { context: trust.clone(), sds: None };
    let common = CommonTls {
        certificates: vec![SecretRef::Inline(certificate.clone())],
        validation: Some(validation),
        ..CommonTls::default()
    };
    server_config(&DownstreamTls { common, require_client_certificate: true }, &NoSecrets).map(drop)
}

fn secret(name: &str, kind: SecretKind) -> Arc<Secret> {
    Arc::new(Secret { name: Name::from(name), kind })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tls::testing::{Ca, spiffe};

    #[test]
    fn a_key_is_made_signed_and_becomes_secrets() {
        let ca = Ca::new("root");
        let request = KeyAndCsr::generate(&spiffe("web")).unwrap();
        let issued = ca.sign(request.csr_der());
        let identity = request.issued(&[issued.to_vec()], &[ca.der().to_vec()]).unwrap();
        assert_eq!(identity.spiffe_id, spiffe("web"));
        assert_eq!(&*identity.certificate.name, "default");
        assert_eq!(&*identity.trust.name, "ROOTCA");
        let shown = format!("{request:?} {identity:?}");
        assert!(!shown.contains("PRIVATE"), "{shown}");
    }

    #[test]
    fn a_certificate_for_somebody_else_is_refused() {
        let ca = Ca::new("root");
        let (ours, other) = (
            KeyAndCsr::generate(&spiffe("web")).unwrap(),
            KeyAndCsr::generate(&spiffe("web")).unwrap(),
        );
        let issued = ca.sign(other.csr_der());
        let error = ours.issued(&[issued.to_vec()], &[ca.der().to_vec()]).unwrap_err().to_string();
        assert!(error.contains("does not match"), "{error}");

        let mut renamed = KeyAndCsr::generate(&spiffe("web")).unwrap();
        let issued = ca.sign(renamed.csr_der());
        renamed.spiffe_id = spiffe("api");
        let error =
            renamed.issued(&[issued.to_vec()], &[ca.der().to_vec()]).unwrap_err().to_string();
        assert!(error.contains(&spiffe("web")) && error.contains(&spiffe("api")), "{error}");
    }

    #[test]
    fn renewal_is_at_half_life() {
        let ca = Ca::new("root");
        let request = KeyAndCsr::generate(&spiffe("web")).unwrap();
        let issued = ca.sign(request.csr_der());
        let mut identity = request.issued(&[issued.to_vec()], &[ca.der().to_vec()]).unwrap();
        identity.not_before = SystemTime::UNIX_EPOCH;
        identity.not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let after = |random| {
            identity
                .renew_at(None, random)
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs()
        };
        assert_eq!((after(0.0), after(0.5), after(1.0)), (450, 500, 550));
    }
}
