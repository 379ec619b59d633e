//! Certificates.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Serial number of what is revoked.
const REVOKED: u64 = 4242;

/// An authority of a test.
#[derive(Debug)]
pub struct Ca {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

/// Where a leaf and its authority were written.
#[derive(Debug, Clone)]
pub struct Files {
    /// The leaf's certificate chain, PEM.
    pub chain: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authority's certificate, PEM.
    pub roots: PathBuf,
}

/// `spiffe://shop.local/ns/default/sa/<account>`
pub fn spiffe(account: &str) -> String {
    format!("spiffe://shop.local/ns/default/sa/{account}")
}

impl Ca {
    /// A new root.
    ///
    /// # Errors
    /// When the cryptographic library has no random numbers.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// A leaf for this URI, and for `localhost` and `*.shop.test`.
    ///
    /// # Errors
    /// When `uri` is none.
    pub fn leaf(&self, uri: &str) -> anyhow::Result<Leaf> {
        self.leaf_with(uri, |_| ())
    }

    /// One that was valid for the year 2020.
    ///
    /// # Errors
    /// When `uri` is none.
    pub fn expired(&self, uri: &str) -> anyhow::Result<Leaf> {
        self.leaf_with(uri, |params| {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 12, 31);
        })
    }

    /// A leaf that stands in [`Self::crl`].
    ///
    /// # Errors
    /// When `uri` is none.
    pub fn revoked(&self, uri: &str) -> anyhow::Result<Leaf> {
        self.leaf_with(uri, |params| params.serial_number = Some(SerialNumber::from(REVOKED)))
    }

    /// PEM of a revocation list with one certificate.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn crl(&self) -> anyhow::Result<String> {
        let begun = date_time_ymd(2024, 1, 1);
        let list = CertificateRevocationListParams {
            this_update: begun,
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(REVOKED),
                revocation_time: begun,
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }

    /// A leaf for these DNS names.
    ///
    /// # Errors
    /// When one is none.
    pub fn leaf_for(&self, names: &[&str]) -> anyhow::Result<Leaf> {
        let names: Result<Vec<_>, _> = names.iter().map(|name| (*name).try_into()).collect();
        let names = names?.into_iter().map(SanType::DnsName).collect();
        self.leaf_with("spiffe://shop.local/none", |params| params.subject_alt_names = names)
    }

    fn leaf_with(
        &self,
        uri: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> anyhow::Result<Leaf> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names =
            vec![uri.try_into().map(SanType::URI)?, dns("localhost")?, dns("*.shop.test")?];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf { certificate, key })
    }

    /// Writes `leaf` and this authority below `dir`, with `name` in the names. Files that are there
    /// already are replaced as a whole, as a rotation does it.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn write(&self, dir: &Path, name: &str, leaf: &Leaf) -> anyhow::Result<Files> {
        let put = |suffix: &str, text: &str| -> anyhow::Result<PathBuf> {
            let path = dir.join(format!("{name}-{suffix}.pem"));
            let new = path.with_extension("new");
            fs::write(&new, text).with_context(|| new.display().to_string())?;
            fs::rename(&new, &path)?;
            Ok(path)
        };
        Ok(Files {
            key: put("key", &leaf.key.serialize_pem())?,
            chain: put("chain", &leaf.certificate.pem())?,
            roots: put("roots", &self.certificate.pem())?,
        })
    }

    /// What a client is that trusts this authority, with or without a certificate of its own.
    ///
    /// # Errors
    /// When key and certificate do not fit together.
    pub fn client(&self, leaf: Option<&Leaf>, alpn: &[&str]) -> anyhow::Result<Arc<ClientConfig>> {
        provider();
        let config = ClientConfig::builder().with_root_certificates(self.store()?);
        let mut config = match leaf {
            Some(leaf) => config.with_client_auth_cert(leaf.chain(), leaf.private_key())?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// What a server is that shows `leaf`, and that wants certificates of this authority if
    /// `mutual`.
    ///
    /// # Errors
    /// When key and certificate do not fit together.
    pub fn server(
        &self,
        leaf: &Leaf,
        mutual: bool,
        alpn: &[&str],
    ) -> anyhow::Result<Arc<ServerConfig>> {
        provider();
        let config = ServerConfig::builder();
        let config = if mutual {
            let verifier = WebPkiClientVerifier::builder(Arc::new(self.store()?)).build()?;
            config.with_client_cert_verifier(verifier)
        } else {
            config.with_no_client_auth()
        };
        let mut config = config.with_single_cert(leaf.chain(), leaf.private_key())?;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }

    fn store(&self) -> anyhow::Result<RootCertStore> {
        let mut store = RootCertStore::empty();
        store.add(self.certificate.der().clone())?;
        Ok(store)
    }
}

impl Leaf {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.der().clone()]
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }

    /// The PEM text of its key, to look for where it must not be.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

fn dns(name: &str) -> anyhow::Result<SanType> {
    Ok(SanType::DnsName(name.try_into()?))
}

fn provider() {
    // An error says that somebody was faster.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
