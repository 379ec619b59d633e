//! What we ask of a peer's certificate: `CertificateValidationContext`, compiled.

use std::collections::BTreeMap;
use std::fmt;

use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::{CertRevocationListError, CertificateError, Error, OtherError};
use sha2::{Digest, Sha256};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
    anchor_from_trusted_cert,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::error::{NameMismatch, PinMismatch};
use super::peer::hex;
use super::pem::Source;
use super::{PeerIdentity, Secrets, TlsError, provider, spiffe};
use crate::model::matcher::StringMatch;
use crate::model::tls::{
    DataSource, SanKind, SanMatcher, SecretKind, Validation, ValidationContext,
};

/// Which end the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Client,
    Server,
}

/// The rules; `Default` accepts everything.
#[derive(Default)]
pub(crate) struct Rules {
    trust: Option<Trust>,
    sans: Vec<SanMatcher>,
    spki_sha256: Vec<[u8; 32]>,
    certificate_sha256: Vec<[u8; 32]>,
    accept_untrusted: bool,
    /// Instead of `trust`: by trust domain.
    domains: Option<BTreeMap<String, Trust>>,
}

pub(super) struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    // To accept a peer whose self-signed certificate is itself trusted, which webpki would not.
    certificates: Vec<CertificateDer<'static>>,
    crls: Vec<CertRevocationList<'static>>,
    crl_leaf_only: bool,
    max_depth: Option<u32>,
    allow_expired: bool,
}

impl Rules {
    /// Compiles a validation context, with the named part (if any) merged in.
    pub(crate) fn load(validation: &Validation, secrets: &dyn Secrets) -> Result<Self, TlsError> {
        let mut rules = Self::default();
        let mut ca = validation
            .context
            .trusted_ca
            .as_ref()
            .map(|ca| (ca, String::from("validation_context")));
        let mut crl =
            validation.context.crl.as_ref().map(|crl| (crl, String::from("validation_context")));
        rules.add(&validation.context);
        let named = match &validation.sds {
            None => None,
            Some(name) => Some((named(name, secrets)?, format!("secret {name:?}"))),
        };
        if let Some((context, place)) = &named {
            rules.add(context);
            ca = context.trusted_ca.as_ref().map(|ca| (ca, place.clone())).or(ca);
            crl = context.crl.as_ref().map(|crl| (crl, place.clone())).or(crl);
        }
        let parts = [Some(&validation.context), named.as_ref().map(|(context, _)| &**context)];
        let parts = || parts.iter().flatten();
        if let Some(bundles) = parts().find_map(|context| context.spiffe.as_ref()) {
            rules.domains = Some(spiffe::load(bundles)?);
        } else if let Some((ca, place)) = ca {
            let mut trust = Trust::load(ca, &place, crl)?;
            trust.crl_leaf_only = parts().any(|context| context.crl_leaf_only);
            trust.allow_expired = parts().any(|context| context.allow_expired);
            trust.max_depth = parts().find_map(|context| context.max_depth);
            rules.trust = Some(trust);
        } else if crl.is_some() {
            let what = "a crl without a trusted_ca: nobody could be looked up in it";
            return Err(TlsError::bad("validation_context", what));
        } else if !rules.sans.is_empty() {
            let what = "names are matched but there is no trusted_ca: anybody could have made the certificate";
            return Err(TlsError::bad("validation_context", what));
        }
        Ok(rules)
    }

    /// Trusts exactly these certificates as roots.
    pub(crate) fn rooted(
        roots: Vec<CertificateDer<'static>>,
        sans: Vec<SanMatcher>,
    ) -> Result<Self, Error> {
        let trust = Trust::of(roots)?;
        Ok(Self { trust: Some(trust), sans, ..Self::default() })
    }

    /// Decides on a chain. `name`: accept only a certificate for that name, whatever the SAN
    /// matchers say (`auto_sni_san_validation`).
    pub(crate) fn check(
        &self,
        chain: (&CertificateDer<'_>, &[CertificateDer<'_>]),
        peer: Peer,
        name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.accept_untrusted {
            return Ok(());
        }
        let (leaf, intermediates) = chain;
        if let Some(domains) = &self.domains {
            let domain = spiffe::trust_domain(leaf)?;
            let trust = domains.get(&domain).ok_or(CertificateError::UnknownIssuer)?;
            trust.check(leaf, intermediates, peer, now)?;
        } else if let Some(trust) = &self.trust {
            trust.check(leaf, intermediates, peer, now)?;
        }
        self.check_names(leaf, name)?;
        self.check_pins(leaf)
    }

    fn add(&mut self, context: &ValidationContext) {
        self.sans.extend_from_slice(&context.sans);
        self.spki_sha256.extend_from_slice(&context.spki_sha256);
        self.certificate_sha256.extend_from_slice(&context.certificate_sha256);
        self.accept_untrusted |= context.accept_untrusted;
    }

    fn check_names(
        &self,
        leaf: &CertificateDer<'_>,
        name: Option<&ServerName<'_>>,
    ) -> Result<(), Error> {
        let expected = match name {
            Some(name) => {
                let certificate = EndEntityCert::try_from(leaf).map_err(translated)?;
                if certificate.verify_is_valid_for_subject_name(name).is_ok() {
                    return Ok(());
                }
                vec![format!("the name {}", name.to_str())]
            }
            None if self.sans.is_empty() => return Ok(()),
            None => self.sans.iter().map(in_words).collect(),
        };
        let identity = PeerIdentity::from_der(std::slice::from_ref(leaf));
        if name.is_none() && identity.matches_any(&self.sans) {
            return Ok(());
        }
        Err(other(NameMismatch { presented: identity.presented(), expected }))
    }

    fn check_pins(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        if self.spki_sha256.is_empty() && self.certificate_sha256.is_empty() {
            return Ok(());
        }
        let certificate: [u8; 32] = Sha256::digest(leaf).into();
        if self.certificate_sha256.contains(&certificate) {
            return Ok(());
        }
        let (_, parsed) =
            X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
        let key: [u8; 32] = Sha256::digest(parsed.public_key().raw).into();
        if self.spki_sha256.contains(&key) {
            return Ok(());
        }
        Err(other(PinMismatch { certificate_sha256: hex(&certificate) }))
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("roots", &self.trust.as_ref().map(|trust| trust.anchors.len()))
            .field("sans", &self.sans)
            .field("accept_untrusted", &self.accept_untrusted)
            .finish_non_exhaustive()
    }
}

impl Trust {
    fn load(
        ca: &DataSource,
        place: &str,
        crl: Option<(&DataSource, String)>,
    ) -> Result<Self, TlsError> {
        let source = Source::read(ca, &format!("{place}, trusted_ca"))?;
        let certificates = source.certificates()?;
        let mut anchors = Vec::with_capacity(certificates.len());
        for certificate in &certificates {
            match anchor_from_trusted_cert(certificate) {
                Ok(anchor) => anchors.push(anchor.to_owned()),
                // One odd root in a system's bundle is no reason to trust none of the others.
                Err(error) => {
                    tracing::warn!(place = source.place, %error, "a root certificate is skipped")
                }
            }
        }
        if anchors.is_empty() {
            return Err(source.bad("no certificate in it is usable as a root"));
        }
        let crls = match crl {
            None => Vec::new(),
            Some((crl, place)) => revocation_lists(&Source::read(crl, &format!("{place}, crl"))?)?,
        };
        Ok(Self {
            anchors,
            certificates,
            crls,
            crl_leaf_only: false,
            max_depth: None,
            allow_expired: false,
        })
    }

    /// Exactly these.
    pub(super) fn of(roots: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let anchor = |root| Ok(anchor_from_trusted_cert(root).map_err(translated)?.to_owned());
        Ok(Self {
            anchors: roots.iter().map(anchor).collect::<Result<_, Error>>()?,
            certificates: roots,
            crls: Vec::new(),
            crl_leaf_only: false,
            max_depth: None,
            allow_expired: false,
        })
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        peer: Peer,
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut at = now;
        if self.allow_expired {
            // One at a time: the moment is looked for at which all of the chain holds.
            for _ in 0..intermediates.len() + 2 {
                use CertificateError::{ExpiredContext, NotValidYetContext};
                match self.check_at(leaf, intermediates, peer, at) {
                    Err(Error::InvalidCertificate(ExpiredContext { not_after, .. })) => {
                        at = not_after;
                    }
                    Err(Error::InvalidCertificate(NotValidYetContext { not_before, .. })) => {
                        at = not_before;
                    }
                    checked => return checked,
                }
            }
        }
        self.check_at(leaf, intermediates, peer, at)
    }

    fn check_at(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        peer: Peer,
        now: UnixTime,
    ) -> Result<(), Error> {
        if self.certificates.iter().any(|trusted| trusted.as_ref() == leaf.as_ref()) {
            return in_time(leaf, now);
        }
        let usage = match peer {
            Peer::Client => KeyUsage::client_auth(),
            Peer::Server => KeyUsage::server_auth(),
        };
        let crls: Vec<&CertRevocationList<'_>> = self.crls.iter().collect();
        let algorithms = provider().signature_verification_algorithms;
        EndEntityCert::try_from(leaf)
            .and_then(|certificate| {
                certificate
                    .verify_for_usage(
                        algorithms.all,
                        &self.anchors,
                        intermediates,
                        now,
                        usage,
                        revocation(&crls, self.crl_leaf_only),
                        Some(&|path| self.is_short(path)),
                    )
                    .map(drop)
            })
            .map_err(translated)
    }

    /// `max_verify_depth` counts what stands between the peer's certificate and the root.
    fn is_short(&self, path: &webpki::VerifiedPath<'_>) -> Result<(), webpki::Error> {
        let between = path.intermediate_certificates().count();
        match self.max_depth {
            Some(most) if between > most as usize => Err(webpki::Error::MaximumPathDepthExceeded),
            _ => Ok(()),
        }
    }
}

/// As Envoy with a `crl`: the whole chain unless only the leaf is wanted, and no list means no.
fn revocation<'a>(
    crls: &'a [&'a CertRevocationList<'a>],
    leaf_only: bool,
) -> Option<RevocationOptions<'a>> {
    let depth =
        if leaf_only { RevocationCheckDepth::EndEntity } else { RevocationCheckDepth::Chain };
    let options = RevocationOptionsBuilder::new(crls).ok()?;
    Some(
        options
            .with_depth(depth)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build(),
    )
}

fn revocation_lists(source: &Source) -> Result<Vec<CertRevocationList<'static>>, TlsError> {
    let parse = |der: &rustls::pki_types::CertificateRevocationListDer<'_>| {
        OwnedCertRevocationList::from_der(der)
            .map(CertRevocationList::Owned)
            .map_err(|error| source.bad(format!("a revocation list is not usable: {error:?}")))
    };
    source.revocation_lists()?.iter().map(parse).collect()
}

fn named(
    name: &crate::model::Name,
    secrets: &dyn Secrets,
) -> Result<std::sync::Arc<ValidationContext>, TlsError> {
    let secret = secrets.get(name).ok_or_else(|| TlsError::MissingSecret(name.clone()))?;
    match &secret.kind {
        SecretKind::Validation(context) => Ok(context.clone()),
        SecretKind::Certificate(_) => Err(TlsError::bad(
            format!("secret {name:?}"),
            "is a tls_certificate: expected a validation_context",
        )),
    }
}

fn in_time(leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
    let at = |timestamp: i64| {
        let seconds = u64::try_from(timestamp).unwrap_or_default();
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
    };
    let not_before = at(parsed.validity().not_before.timestamp());
    let not_after = at(parsed.validity().not_after.timestamp());
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    Ok(())
}

fn in_words(san: &SanMatcher) -> String {
    let kind = match san.kind {
        None => "",
        Some(SanKind::Dns) => "DNS:",
        Some(SanKind::Uri) => "URI:",
        Some(SanKind::Email) => "EMAIL:",
        Some(SanKind::Ip) => "IP:",
    };
    match &san.matcher.kind {
        StringMatch::Exact(text) => format!("{kind}{text}"),
        StringMatch::Prefix(text) => format!("{kind}{text}…"),
        StringMatch::Suffix(text) => format!("{kind}…{text}"),
        StringMatch::Contains(text) => format!("{kind}…{text}…"),
        StringMatch::Regex(regex) => format!("{kind}/{}/", regex.as_str()),
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    CertificateError::Other(OtherError(std::sync::Arc::new(error))).into()
}

/// rustls' words for webpki's errors, so that the right alert is sent.
fn translated(error: webpki::Error) -> Error {
    use webpki::Error as E;
    match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding.into(),
        E::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }.into()
        }
        E::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }.into()
        }
        E::InvalidCertValidity => CertificateError::Expired.into(),
        E::UnknownIssuer => CertificateError::UnknownIssuer.into(),
        E::CertRevoked => CertificateError::Revoked.into(),
        E::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus.into(),
        E::CrlExpired { time, next_update } => {
            CertificateError::ExpiredRevocationListContext { time, next_update }.into()
        }
        E::IssuerNotCrlSigner => CertRevocationListError::IssuerInvalidForCrl.into(),
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature.into(),
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose.into(),
        error => other(error),
    }
}
