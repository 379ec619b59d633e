//! The first contact with a control plane: a join token names the root certificate by its hash, so
//! that nobody in between can play the control plane.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::peer::hex;
use super::pem::Source;
use super::rules::{Peer, Rules};
use super::verifier::{Servers, signatures};
use super::{TlsError, provider};
use crate::model::matcher::{StringMatch, StringMatcher, full_regex};
use crate::model::tls::{DataSource, SanKind, SanMatcher};

/// `pillion1.<base64url of 32 random bytes>.<base64url of SHA-256 of the root certificate's DER>`.
/// `Debug` shows only the hash.
#[derive(Clone)]
pub struct JoinToken {
    text: Zeroizing<String>,
    root_sha256: [u8; 32],
}

impl JoinToken {
    /// Reads a token; white space around it does not matter. `place` is the file or flag, for errors.
    ///
    /// # Errors
    /// It is not of that form. The text of the token is not repeated.
    pub fn parse(text: &str, place: &str) -> Result<Self, TlsError> {
        let text = text.trim();
        let bad = |what: &str| TlsError::bad(place, what);
        let mut parts = text.split('.');
        let (Some(version), Some(secret), Some(hash), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad("is no join token: expected pillion1.<secret>.<hash of the root>"));
        };
        if version != "pillion1" {
            return Err(bad("is a join token of an unknown version: expected pillion1"));
        }
        let bytes = |part: &str| -> Option<[u8; 32]> {
            URL_SAFE_NO_PAD.decode(part).ok().and_then(|bytes| bytes.try_into().ok())
        };
        bytes(secret).ok_or_else(|| {
            bad("the join token's second part is damaged: expected 32 bytes in base64url")
        })?;
        let root_sha256 = bytes(hash).ok_or_else(|| {
            bad("the join token's third part is damaged: expected 32 bytes in base64url")
        })?;
        Ok(Self { text: Zeroizing::new(text.to_owned()), root_sha256 })
    }

    /// SHA-256 of the root certificate's DER.
    pub fn root_sha256(&self) -> [u8; 32] {
        self.root_sha256
    }

    /// The value of the `authorization` header: `Bearer <token>`.
    pub fn bearer(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Bearer {}", self.text.as_str()))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("root_sha256", &hex(&self.root_sha256))
            .finish_non_exhaustive()
    }
}

/// What a proxy shows at the first contact, and how it knows the control plane then.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A join token, which does both.
    Token(JoinToken),
    /// A token that somebody else vouches for, such as Kubernetes for that of a service account.
    Vouched {
        /// Where it is; read anew each time, because it is replaced before it runs out.
        token: PathBuf,
        /// The roots (PEM) that the control plane may have; read anew each time as well. None: only
        /// over loopback in plain text.
        roots: Option<PathBuf>,
    },
}

impl Proof {
    /// The value of the `authorization` header.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token; its text is not repeated.
    pub fn bearer(&self) -> Result<Zeroizing<String>, String> {
        let path = match self {
            Self::Token(token) => return Ok(token.bearer()),
            Self::Vouched { token, .. } => token,
        };
        let failed = |what: &str| format!("--token-file {}: {what}", path.display());
        let text = std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|error| failed(&format!("cannot be read: {error}")))?;
        let text = text.trim();
        if !is_jwt(text) {
            return Err(failed("expected a join token, or a service-account token (JWT)"));
        }
        Ok(Zeroizing::new(format!("Bearer {text}")))
    }

    /// TLS to the control plane.
    ///
    /// # Errors
    /// The roots are not to be had.
    pub fn tls(&self) -> Result<Arc<ClientConfig>, TlsError> {
        match self {
            Self::Token(token) => first_contact(token.root_sha256(), control_plane_names()),
            Self::Vouched { roots: Some(roots), .. } => {
                first_contact_by_file(roots, control_plane_names())
            }
            Self::Vouched { roots: None, .. } => {
                Err(TlsError::bad("--root-ca-file", "is missing: expected a file with the root"))
            }
        }
    }

    /// Whether somebody else can take the proof back, so that it is to be shown again for every
    /// certificate.
    pub fn is_vouched(&self) -> bool {
        matches!(self, Self::Vouched { .. })
    }
}

/// Whether a text has the shape of a JWT: three parts of base64url.
pub fn is_jwt(text: &str) -> bool {
    let letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let part = |part: &str| !part.is_empty() && part.bytes().all(letter);
    text.split('.').count() == 3 && !text.starts_with("pillion") && text.split('.').all(part)
}

/// The name that a control plane's certificate must have, in whatever trust domain:
/// `spiffe://<trust domain>/ns/pillion-system/sa/control-plane`.
pub fn control_plane_names() -> Vec<SanMatcher> {
    let pattern = "spiffe://[^/]+/ns/pillion-system/sa/control-plane";
    let regex = full_regex(pattern).expect("the pattern is a constant and valid");
    let matcher = StringMatcher { kind: StringMatch::Regex(regex), ignore_case: false };
    vec![SanMatcher { kind: Some(SanKind::Uri), matcher }]
}

/// A client that trusts a server only if its chain contains, and leads to, the root with this hash,
/// and its certificate has one of these names. TLS 1.3, ALPN `h2`, no client certificate.
///
/// # Errors
/// rustls cannot do TLS 1.3 with the provider (it can).
pub fn first_contact(
    root_sha256: [u8; 32],
    names: Vec<SanMatcher>,
) -> Result<Arc<ClientConfig>, TlsError> {
    client(Arc::new(FirstContact { root_sha256, names, provider: provider() }))
}

/// A client that trusts a server only if its chain leads to one of the roots in this file (PEM),
/// and its certificate has one of these names; otherwise as [`first_contact`].
///
/// # Errors
/// The file cannot be read, or has no certificate.
pub fn first_contact_by_file(
    roots: &Path,
    names: Vec<SanMatcher>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = Source::read(&DataSource::File(roots.to_owned()), "--root-ca-file")?;
    let rules = Rules::rooted(roots.certificates()?, names)
        .map_err(|error| TlsError::bad("--root-ca-file", error.to_string()))?;
    client(Arc::new(Servers::new(rules, false)))
}

fn client(verifier: Arc<dyn ServerCertVerifier>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::bad("tls_params", error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct FirstContact {
    root_sha256: [u8; 32],
    names: Vec<SanMatcher>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for FirstContact {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut chain = std::iter::once(leaf).chain(intermediates);
        let root = chain
            .find(|one| <[u8; 32]>::from(Sha256::digest(one)) == self.root_sha256)
            .ok_or_else(|| {
                CertificateError::Other(OtherError(Arc::new(WrongRoot(hex(&self.root_sha256)))))
            })?;
        let rules = Rules::rooted(vec![root.clone().into_owned()], self.names.clone())?;
        rules.check((leaf, intermediates), Peer::Server, None, now)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

#[derive(Debug, thiserror::Error)]
#[error(
    "the control plane did not present the root certificate that the join token names (SHA-256 {0}): \
     wrong control plane, or a token from before its root changed"
)]
struct WrongRoot(String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tls::{CommonTls, DownstreamTls, SecretRef};
    use crate::tls::testing::{Ca, handshake, spiffe};
    use crate::tls::{NoSecrets, server_config};

    fn token(hash: &[u8; 32]) -> String {
        format!("pillion1.{}.{}", URL_SAFE_NO_PAD.encode([7; 32]), URL_SAFE_NO_PAD.encode(hash))
    }

    async fn contact(server: &Ca, name: &str, pin: &Ca) -> Result<(), String> {
        let leaf = server.leaf(name);
        let common = CommonTls {
            certificates: vec![SecretRef::Inline(Arc::new(leaf.certificate_with(&[server])))],
            ..CommonTls::default()
        };
        let downstream = DownstreamTls { common, require_client_certificate: false };
        let pin = Sha256::digest(pin.der()).into();
        let client = first_contact(pin, control_plane_names()).unwrap();
        let server = server_config(&downstream, &NoSecrets).unwrap();
        handshake(client, server).await.map(drop).map_err(|failed| failed.client)
    }

    #[tokio::test]
    async fn only_the_named_root_and_only_the_control_plane() {
        let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
        let control_plane = "spiffe://shop/ns/pillion-system/sa/control-plane";
        contact(&ours, control_plane, &ours).await.unwrap();

        let error = contact(&theirs, control_plane, &ours).await.unwrap_err();
        assert!(error.contains("did not present the root certificate"), "{error}");
        // Any workload has a certificate of this root: it must not pass for the control plane.
        let error = contact(&ours, &spiffe("web"), &ours).await.unwrap_err();
        assert!(error.contains(&spiffe("web")), "{error}");
    }

    #[tokio::test]
    async fn a_file_of_roots_does_as_well() {
        let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
        let dir = tempfile::tempdir().unwrap();
        let roots = dir.path().join("root.pem");
        let leaf = ours.leaf("spiffe://shop/ns/pillion-system/sa/control-plane");
        let common = CommonTls {
            certificates: vec![SecretRef::Inline(Arc::new(leaf.certificate_with(&[&ours])))],
            ..CommonTls::default()
        };
        let downstream = DownstreamTls { common, require_client_certificate: false };
        let token = dir.path().join("token");
        let proof = Proof::Vouched { token: token.clone(), roots: Some(roots.clone()) };
        assert!(proof.tls().unwrap_err().to_string().contains("--root-ca-file"));
        for (roots_now, good) in [(&theirs, false), (&ours, true)] {
            let pem = Source::read(&roots_now.pem(), "roots").unwrap();
            std::fs::write(&roots, pem.bytes.as_slice()).unwrap();
            let server = server_config(&downstream, &NoSecrets).unwrap();
            let met = handshake(proof.tls().unwrap(), server).await;
            assert_eq!(met.is_ok(), good);
        }
        assert!(proof.bearer().unwrap_err().contains("--token-file"));
        std::fs::write(&token, "hunter2\n").unwrap();
        let error = proof.bearer().unwrap_err();
        assert!(error.contains("JWT") && !error.contains("hunter2"), "{error}");
        for jwt in ["eyJh.eyJz.c2ln", "eyJh.eyJz.bmV3"] {
            std::fs::write(&token, format!("{jwt}\n")).unwrap();
            assert_eq!(proof.bearer().unwrap().as_str(), format!("Bearer {jwt}"));
        }
    }

    #[test]
    fn tokens_are_read_and_never_shown() {
        let parsed = JoinToken::parse(&format!(" {}\n", token(&[9; 32])), "--token-file").unwrap();
        assert_eq!(parsed.root_sha256(), [9; 32]);
        assert_eq!(parsed.bearer().as_str(), format!("Bearer {}", token(&[9; 32])));
        let secret = URL_SAFE_NO_PAD.encode([7; 32]);
        assert!(!format!("{parsed:?}").contains(&secret));
        for bad in ["", "hunter2", "pillion2.a.b", "pillion1.hunter2.b", "pillion1.a.b.c"] {
            let error = JoinToken::parse(bad, "--token-file").unwrap_err().to_string();
            assert!(error.starts_with("--token-file: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
