//! The certificate authority of the mesh: one root, short-lived SPIFFE X.509-SVIDs.

mod client;
mod csr;
mod key;
mod pem;
mod server_cert;
mod service;
mod token;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::identity::{IdentityError, SpiffeId, TrustDomain};
use key::P256Key;

pub use client::sign_remotely;
pub use csr::SigningRequest;
pub use pem::{certificates_pem, first_certificate, private_key_pem};
pub use server_cert::{ServerCertificate, ServerNames};
pub use service::CertificateApi;
pub use token::JoinToken;

/// How long a leaf lives when neither a flag nor the caller says otherwise.
pub const DEFAULT_LEAF_TTL: Duration = Duration::from_secs(24 * 3600);
/// Shortest leaf life that is given out: renewal at half life must be possible.
pub const MIN_LEAF_TTL: Duration = Duration::from_secs(10);
/// `not_before` lies this far in the past, for clocks that differ.
const SKEW: Duration = Duration::from_secs(60);
/// Life of a new root.
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// X.509's upper bound of a common name (RFC 5280, appendix A).
const MAX_COMMON_NAME: usize = 64;

/// A root certificate with its key, as the store keeps them.
#[derive(Clone)]
pub struct RootMaterial {
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// The private key in PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
}

impl RootMaterial {
    /// Makes a new root for `trust_domain`: ECDSA P-256, ten years, URI SAN `spiffe://<domain>`.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate(trust_domain: &TrustDomain, now: SystemTime) -> Result<Self, CaError> {
        let (signing_key, pkcs8) = P256Key::generate()?;
        let mut params = params_between(now - SKEW, now + ROOT_LIFE)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name: String =
            format!("pillion root of {trust_domain}").chars().take(MAX_COMMON_NAME).collect();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![uri_san(&trust_domain.uri())?];
        let certificate = params.self_signed(&signing_key)?;
        Ok(Self { certificate: certificate.der().to_vec(), key: pkcs8 })
    }
}

impl std::fmt::Debug for RootMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootMaterial(..)")
    }
}

/// What a leaf certificate shall say.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The one URI SAN.
    pub id: SpiffeId,
    /// DNS names beside it; only the control plane's own certificate has any.
    pub dns_names: Vec<String>,
    /// IP addresses beside it; only the control plane's own certificate has any.
    pub addresses: Vec<IpAddr>,
    /// The life that the caller wishes; `None` means the default of the authority.
    pub ttl: Option<Duration>,
}

impl Leaf {
    /// A workload's leaf.
    #[must_use]
    pub fn of(id: SpiffeId, ttl: Option<Duration>) -> Self {
        Self { id, dns_names: Vec::new(), addresses: Vec::new(), ttl }
    }
}

/// A signed leaf.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The leaf, then what it takes up to the root (for one level: nothing).
    pub chain: Vec<CertificateDer<'static>>,
    /// First moment the leaf is valid.
    pub not_before: SystemTime,
    /// Last moment the leaf is valid.
    pub not_after: SystemTime,
}

/// A leaf whose key was made here, for files and for the control plane itself.
#[derive(Clone)]
pub struct IssuedWithKey {
    /// The certificate.
    pub issued: Issued,
    /// Its private key in PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for IssuedWithKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedWithKey").field("issued", &self.issued).finish_non_exhaustive()
    }
}

/// Makes a key here and a request for it, to be signed by another process's authority: the DER
/// request and the PKCS#8 key.
///
/// # Errors
/// When the system gives no random bytes.
pub fn request_with_key(id: &SpiffeId) -> Result<(Vec<u8>, Zeroizing<Vec<u8>>), CaError> {
    let (key, pkcs8) = P256Key::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri_san(&id.to_string())?];
    Ok((params.serialize_request(&key)?.der().to_vec(), pkcs8))
}

/// The authority: signs leaves with the root key.
#[derive(Debug)]
pub struct Ca {
    trust_domain: TrustDomain,
    root: CertificateDer<'static>,
    root_not_after: SystemTime,
    issuer: Issuer<'static, P256Key>,
    leaf_ttl: Duration,
}

impl Ca {
    /// An authority over stored material. `leaf_ttl` is the default and the maximum life of leaves.
    ///
    /// # Errors
    /// When the root is of another trust domain, has expired, or does not belong to its key.
    pub fn new(
        trust_domain: TrustDomain,
        material: &RootMaterial,
        leaf_ttl: Duration,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let key = P256Key::from_pkcs8(&material.key)?;
        let root = CertificateDer::from(material.certificate.clone());
        let facts = RootFacts::read(&root)?;
        if facts.public_key != key.der_bytes() {
            return Err(CaError::RootKey);
        }
        if facts.uri != trust_domain.uri() {
            return Err(CaError::OtherTrustDomain {
                stored: facts.uri,
                wanted: trust_domain.uri(),
            });
        }
        if facts.not_after <= now {
            return Err(CaError::RootExpired);
        }
        if leaf_ttl < MIN_LEAF_TTL {
            return Err(CaError::LeafTtl);
        }
        let issuer = Issuer::from_ca_cert_der(&root, key)?;
        Ok(Self { trust_domain, root, root_not_after: facts.not_after, issuer, leaf_ttl })
    }

    /// The trust domain of every name that this authority signs.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The root certificate: the whole trust bundle as long as there is one root.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// When the root ends.
    #[must_use]
    pub fn root_not_after(&self) -> SystemTime {
        self.root_not_after
    }

    /// Signs the key of a request for `leaf`; nothing else in the request counts.
    ///
    /// # Errors
    /// When `leaf` is of another trust domain.
    pub fn sign_request(
        &self,
        request: &SigningRequest,
        leaf: &Leaf,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        self.sign_key(&request.key, leaf, now)
    }

    /// Makes a key and signs it for `leaf`.
    ///
    /// # Errors
    /// When the system gives no random bytes, or `leaf` is of another domain.
    pub fn issue(&self, leaf: &Leaf, now: SystemTime) -> Result<IssuedWithKey, CaError> {
        let (key, pkcs8) = P256Key::generate()?;
        Ok(IssuedWithKey { issued: self.sign_key(&key, leaf, now)?, key: pkcs8 })
    }

    fn sign_key(
        &self,
        key: &impl PublicKeyData,
        leaf: &Leaf,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        if leaf.id.trust_domain() != &self.trust_domain {
            return Err(CaError::OtherTrustDomain {
                stored: self.trust_domain.uri(),
                wanted: leaf.id.trust_domain().uri(),
            });
        }
        let ttl = leaf.ttl.unwrap_or(self.leaf_ttl).clamp(MIN_LEAF_TTL, self.leaf_ttl);
        let not_before = now - SKEW;
        let not_after = (now + ttl).min(self.root_not_after);
        let mut params = params_between(not_before, not_after)?;
        params.subject_alt_names = subject_names(leaf)?;
        let name = format!("{}.{}", leaf.id.service_account(), leaf.id.namespace());
        if name.len() <= MAX_COMMON_NAME {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(key, &self.issuer)?;
        Ok(Issued { chain: vec![certificate.into()], not_before, not_after })
    }
}

/// What the authority refuses, and why. No message repeats a key or a token.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate signing request is not acceptable.
    #[error("the certificate request is refused: {0}")]
    Csr(&'static str),
    /// The stored root key does not parse or is not that of the stored certificate.
    #[error("the root key in the store does not belong to the root certificate beside it")]
    RootKey,
    /// The stored root certificate does not parse.
    #[error("the root certificate in the store cannot be read")]
    RootCertificate,
    /// The stored root is over.
    #[error("the root certificate in the store has expired")]
    RootExpired,
    /// A name of another trust domain.
    #[error("this authority signs for {stored}, not for {wanted}")]
    OtherTrustDomain {
        /// The authority's domain.
        stored: String,
        /// The domain that was asked for.
        wanted: String,
    },
    /// The configured leaf life is too short.
    #[error("the life of certificates is shorter than 10 seconds")]
    LeafTtl,
    /// The join token's text is no token.
    #[error("the join token is not valid: expected pillion1.<secret>.<root hash>")]
    Token,
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// A name cannot stand in a certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate could not be made.
    #[error("the certificate could not be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS does not take the certificate.
    #[error("TLS does not take the certificate: {0}")]
    Tls(String),
}

/// What people want to know of a root certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSummary {
    /// Its trust domain.
    pub trust_domain: String,
    /// SHA-256 of its DER, in hexadecimal.
    pub sha256: String,
    /// When it ends, in UTC.
    pub not_after: String,
    /// The certificate in PEM.
    pub pem: String,
}

/// Describes a root certificate of ours.
///
/// # Errors
/// When it is not one.
pub fn root_facts(der: &[u8]) -> Result<RootSummary, CaError> {
    let facts = RootFacts::read(der)?;
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| CaError::RootCertificate)?;
    let not_after = parsed.validity().not_after.to_string();
    let trust_domain = facts.uri.strip_prefix("spiffe://").ok_or(CaError::RootCertificate)?;
    Ok(RootSummary {
        trust_domain: trust_domain.to_owned(),
        sha256: token::sha256(der).iter().map(|byte| format!("{byte:02x}")).collect(),
        not_after,
        pem: certificates_pem(&[CertificateDer::from(der)]),
    })
}

/// What is read from the root certificate, once.
struct RootFacts {
    uri: String,
    public_key: Vec<u8>,
    not_after: SystemTime,
}

impl RootFacts {
    fn read(der: &[u8]) -> Result<Self, CaError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| CaError::RootCertificate)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| CaError::RootCertificate)?
            .ok_or(CaError::RootCertificate)?;
        let uri = names.value.general_names.iter().find_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            uri: uri.ok_or(CaError::RootCertificate)?,
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        })
    }
}

fn params_between(
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, CaError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| CaError::Random)?;
    // RFC 5280: serial numbers are positive.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

fn subject_names(leaf: &Leaf) -> Result<Vec<SanType>, CaError> {
    let mut names = vec![uri_san(&leaf.id.to_string())?];
    for name in &leaf.dns_names {
        names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    names.extend(leaf.addresses.iter().copied().map(SanType::IpAddress));
    Ok(names)
}

fn uri_san(uri: &str) -> Result<SanType, CaError> {
    Ok(SanType::URI(uri.try_into()?))
}

#[cfg(test)]
mod tests;
