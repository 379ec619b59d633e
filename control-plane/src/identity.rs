//! SPIFFE names and the peer of a connection: plain data that every layer may use.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Longest trust domain that SPIFFE allows, in bytes (SPIFFE-ID, section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;
/// Longest namespace or service account that we accept, in bytes (RFC 1123 subdomain).
const MAX_SEGMENT: usize = 253;

/// A SPIFFE trust domain: lower-case letters, digits, `.`, `-` and `_` (SPIFFE-ID, section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The bare name, without `spiffe://`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URI of the trust domain itself, as a root certificate carries it.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.chars().all(allowed) {
            return Err(IdentityError::TrustDomain(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

/// Who a workload is: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

impl SpiffeId {
    /// Makes an identity of checked parts.
    ///
    /// # Errors
    /// When the namespace or the service account is not a lower-case RFC 1123 name.
    pub fn new(
        trust_domain: TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        check_segment("namespace", namespace)?;
        check_segment("service account", service_account)?;
        Ok(Self {
            trust_domain,
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }

    /// The trust domain that vouches for the name.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The namespace of the workload.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account of the workload.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// The identity in the URI SAN of a DER certificate. An X.509-SVID has exactly one URI SAN
    /// (SPIFFE X.509-SVID, section 2).
    ///
    /// # Errors
    /// When the certificate cannot be read, or has no URI SAN, several, or one of another shape.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::Certificate)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| IdentityError::Certificate)?
            .ok_or(IdentityError::UriSans(0))?;
        let uris: Vec<&str> = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris.as_slice() {
            [uri] => uri.parse(),
            _ => Err(IdentityError::UriSans(uris.len())),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trust_domain, namespace, service_account } = self;
        write!(f, "spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            ["spiffe:", "", trust_domain, "ns", namespace, "sa", service_account] => {
                Self::new(trust_domain.parse()?, namespace, service_account)
            }
            _ => Err(IdentityError::Shape(text.to_owned())),
        }
    }
}

/// The other end of a connection to the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address the connection came from, where the socket could tell.
    pub address: Option<SocketAddr>,
    /// How the peer proved who it is.
    pub proof: Proof,
}

/// How far the peer of a connection proved its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Plain text on the loopback listener: whoever can reach it is on this machine.
    Loopback,
    /// TLS without a client certificate.
    Anonymous,
    /// TLS with a client certificate that our root signed.
    Svid(SpiffeId),
}

/// Who makes a call to the control plane, as far as it was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// It holds a join token, and may claim any workload identity.
    TokenHolder,
    /// It has a certificate of ours, or a token that somebody whom we trust vouches for.
    Workload(SpiffeId),
    /// It came over the plain loopback listener, without a token.
    Local,
    /// It proved nothing; why not.
    Nobody(&'static str),
}

impl Caller {
    /// The caller behind `proof`, who also showed a token that made it `by_token`, or none.
    #[must_use]
    pub fn new(proof: &Proof, by_token: Option<Self>) -> Self {
        match (by_token, proof) {
            (Some(caller), _) => caller,
            (None, Proof::Svid(id)) => Self::Workload(id.clone()),
            (None, Proof::Loopback) => Self::Local,
            (None, Proof::Anonymous) => {
                Self::Nobody("neither a client certificate nor a token was presented")
            }
        }
    }
}

/// Why a name or a certificate is not a SPIFFE identity of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The trust domain has characters that SPIFFE does not allow, or a bad length.
    #[error(
        "trust domain {0:?} is not valid: expected 1 to 255 lower-case letters, digits, '.', '-' or '_'"
    )]
    TrustDomain(String),
    /// A namespace or service account is not a name.
    #[error(
        "{what} {value:?} is not valid: expected lower-case letters, digits, '-' or '.', beginning and ending with a letter or digit"
    )]
    Segment {
        /// Which of the two.
        what: &'static str,
        /// What was given.
        value: String,
    },
    /// A URI of another shape.
    #[error(
        "{0:?} is not a workload identity: expected spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>"
    )]
    Shape(String),
    /// The certificate does not parse.
    #[error("the certificate is not valid X.509 DER")]
    Certificate,
    /// The certificate does not have exactly one URI SAN.
    #[error("the certificate has {0} URI names: an X.509-SVID has exactly one")]
    UriSans(usize),
}

fn check_segment(what: &'static str, value: &str) -> Result<(), IdentityError> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let fits = value.len() <= MAX_SEGMENT
        && value.chars().all(inner)
        && edge(value.chars().next())
        && edge(value.chars().next_back());
    if fits { Ok(()) } else { Err(IdentityError::Segment { what, value: value.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_survives_the_round_trip() {
        let text = "spiffe://shop.local/ns/default/sa/catalog-v2";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.namespace(), "default");
        assert_eq!(id.service_account(), "catalog-v2");
        assert_eq!(id.trust_domain().uri(), "spiffe://shop.local");
    }

    #[test]
    fn other_shapes_are_refused() {
        for bad in [
            "",
            "spiffe://td",
            "spiffe://td/ns/default",
            "spiffe://td/ns/default/sa/",
            "spiffe://td/ns/default/sa/a/b",
            "spiffe://td/ns/../sa/a",
            "spiffe://TD/ns/default/sa/a",
            "https://td/ns/default/sa/a",
            "spiffe://td/ns/default/sa/a?x",
            "spiffe://td/ns/default/sa/-a",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn garbage_is_not_a_certificate() {
        assert_eq!(SpiffeId::of_certificate(b"nope"), Err(IdentityError::Certificate));
    }
}
