//! What can be wrong with a TLS configuration, and with a peer.

use std::fmt;

use crate::model::Name;

/// Why a TLS context cannot be used. No text ever holds key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A secret that is named here has not arrived yet: wait for it.
    #[error("the secret {0:?} is not known (yet)")]
    MissingSecret(Name),
    /// Something is wrong, and waiting will not mend it.
    #[error("{place}: {what}")]
    Bad {
        /// Which secret, file or field.
        place: String,
        /// What is wrong and what was expected.
        what: String,
    },
}

impl TlsError {
    pub(crate) fn bad(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Bad { place: place.into(), what: what.into() }
    }
}

/// None of the peer's names is one that we accept. Travels inside a [`rustls::Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameMismatch {
    /// The names in its certificate, with their kind: `URI:spiffe://…`, `DNS:…`.
    pub presented: Vec<String>,
    /// What we accept, in words.
    pub expected: Vec<String>,
}

impl fmt::Display for NameMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let presented = match self.presented.as_slice() {
            [] => "no name at all".to_owned(),
            names => names.join(", "),
        };
        write!(
            f,
            "the peer's certificate is for {presented}; expected {}",
            self.expected.join(" or ")
        )
    }
}

impl std::error::Error for NameMismatch {}

/// Neither the certificate nor its public key is one that is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinMismatch {
    /// SHA-256 of the certificate presented, in hexadecimal.
    pub certificate_sha256: String,
}

impl fmt::Display for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = &self.certificate_sha256;
        write!(f, "the peer's certificate (SHA-256 {hash}) is not one of the pinned ones")
    }
}

impl std::error::Error for PinMismatch {}
