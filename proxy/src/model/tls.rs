//! TLS contexts and secrets (`envoy.extensions.transport_sockets.tls.v3`).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Name;
use super::matcher::StringMatcher;
use super::source::Reference;

/// `DownstreamTlsContext`
#[derive(Clone, Debug, PartialEq)]
pub struct DownstreamTls {
    /// What both sides share.
    pub common: CommonTls,
    /// A client without a certificate is refused.
    pub require_client_certificate: bool,
}

/// `UpstreamTlsContext`
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTls {
    /// What both sides share.
    pub common: CommonTls,
    /// Name sent in the ClientHello. Empty: none.
    pub sni: Name,
    /// The endpoint's host name goes before `sni`, where it is known.
    pub auto_host_sni: bool,
    /// The host of the request goes before both (`auto_sni` of the cluster's HTTP options).
    pub by_request: bool,
    /// Accept only a certificate for the SNI that was sent.
    pub auto_sni_san_validation: bool,
}

impl UpstreamTls {
    /// The name to send, and to look for in the server's certificate. Empty: none.
    pub fn server_name<'a>(&'a self, host: Option<&'a Name>, endpoint: &'a Name) -> &'a Name {
        match host {
            Some(host) if self.by_request => host,
            _ if self.auto_host_sni && !endpoint.is_empty() => endpoint,
            _ => &self.sni,
        }
    }
}

/// `CommonTlsContext`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CommonTls {
    /// Oldest version. Default TLS 1.2.
    pub min_version: TlsVersion,
    /// Newest version. Default TLS 1.3.
    pub max_version: TlsVersion,
    /// Our own certificates.
    pub certificates: Vec<SecretRef<TlsCertificate>>,
    /// How the peer is verified. None: it is not.
    pub validation: Option<Validation>,
    /// In order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// Cipher suites of TLS 1.2, by OpenSSL's names. Empty: all that are safe.
    pub ciphers: Vec<Name>,
    /// Groups of the key exchange, by OpenSSL's names. Empty: all that are safe.
    pub curves: Vec<Name>,
}

/// TLS versions; rustls has these two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS_AUTO
    #[default]
    Auto,
    /// TLSv1_2
    V1_2,
    /// TLSv1_3
    V1_3,
}

/// Something given here, or named and fetched.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretRef<T> {
    /// Given here.
    Inline(Arc<T>),
    /// Named: looked up in the snapshot's secrets.
    Sds(Reference),
}

/// Verification of the peer: what the context itself says, and where its authorities come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    /// Given here (`validation_context`, or the default part of a combined one).
    pub context: ValidationContext,
    /// Named (`validation_context_sds_secret_config`): its parts are added to the ones given here.
    pub sds: Option<Reference>,
}

/// `CertificateValidationContext`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValidationContext {
    /// PEM of trusted roots. None: no chain is verified.
    pub trusted_ca: Option<DataSource>,
    /// One of these must match a SAN of the peer. Empty: any name will do.
    pub sans: Vec<SanMatcher>,
    /// Base64 of SHA-256 of the public key; one must match. Empty: any.
    pub spki_sha256: Vec<[u8; 32]>,
    /// SHA-256 of the certificate; one must match. Empty: any.
    pub certificate_sha256: Vec<[u8; 32]>,
    /// Certificates may have run out, or not have begun (`allow_expired_certificate`).
    pub allow_expired: bool,
    /// Accept a chain that does not verify (`ACCEPT_UNTRUSTED`).
    pub accept_untrusted: bool,
    /// PEM of revocation lists.
    pub crl: Option<DataSource>,
    /// Only the peer's own certificate is looked up in them (`only_verify_leaf_cert_crl`).
    pub crl_leaf_only: bool,
    /// Intermediate certificates at most (`max_verify_depth`).
    pub max_depth: Option<u32>,
    /// Roots by SPIFFE trust domain. None: `trusted_ca` holds for everybody.
    pub spiffe: Option<SpiffeBundles>,
}

/// `SPIFFECertValidatorConfig`: who is in which trust domain is known by the roots of that domain
/// alone.
#[derive(Clone, Debug, PartialEq)]
pub enum SpiffeBundles {
    /// `trust_domains`: PEM of each.
    Each(Vec<(Name, DataSource)>),
    /// `trust_bundles`: JSON of SPIFFE bundles by trust domain.
    Map(DataSource),
}

/// `SubjectAltNameMatcher`
#[derive(Clone, Debug, PartialEq)]
pub struct SanMatcher {
    /// Which kind of name. None: any (the deprecated `match_subject_alt_names`).
    pub kind: Option<SanKind>,
    /// What it must be.
    pub matcher: StringMatcher,
}

/// Kind of a subject alternative name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SanKind {
    /// DNS
    Dns,
    /// URI
    Uri,
    /// EMAIL
    Email,
    /// IP_ADDRESS
    Ip,
}

/// A named piece of key material.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: SecretKind,
}

/// What a secret holds.
#[derive(Clone, Debug, PartialEq)]
pub enum SecretKind {
    /// `tls_certificate`
    Certificate(Arc<TlsCertificate>),
    /// `validation_context`
    Validation(Arc<ValidationContext>),
}

/// `TlsCertificate`
#[derive(Clone, Debug, PartialEq)]
pub struct TlsCertificate {
    /// PEM, leaf first.
    pub chain: DataSource,
    /// PEM.
    pub key: DataSource,
}

/// `core.v3.DataSource`. Its `Debug` never shows content: it may be a private key.
#[derive(Clone, PartialEq, Eq)]
pub enum DataSource {
    /// A file; looked at again when it changes.
    File(PathBuf),
    /// `inline_string`, `inline_bytes`, or what an environment variable held.
    Inline(Arc<Zeroizing<Vec<u8>>>),
}

impl fmt::Debug for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Inline(bytes) => write!(f, "inline, {} bytes", bytes.len()),
        }
    }
}
