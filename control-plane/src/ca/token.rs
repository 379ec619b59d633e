//! Join tokens: how a sidecar without a certificate gets its first one.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::CaError;

/// First part of every token; its number changes with the format.
const PREFIX: &str = "pillion1";

/// `pillion1.<secret>.<root hash>`: a random secret that the control plane knows, and the SHA-256
/// of the root certificate, so that the joiner knows the control plane at the first contact.
/// Both parts are unpadded base64url.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: Zeroizing<[u8; 32]>,
    root_sha256: [u8; 32],
}

impl JoinToken {
    /// A new token for the root with this DER certificate.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate(root_certificate: &[u8]) -> Result<Self, CaError> {
        let mut secret = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|_| CaError::Random)?;
        Ok(Self { secret, root_sha256: sha256(root_certificate) })
    }

    /// Reads a token as people pass it on; white space around it is ignored.
    ///
    /// # Errors
    /// When the text is not a token. The error does not repeat it.
    pub fn parse(text: &str) -> Result<Self, CaError> {
        let mut parts = text.trim().split('.');
        let (Some(PREFIX), Some(secret), Some(root), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(CaError::Token);
        };
        Ok(Self { secret: Zeroizing::new(decode(secret)?), root_sha256: decode(root)? })
    }

    /// The token as it is written to a file.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let secret = Zeroizing::new(URL_SAFE_NO_PAD.encode(self.secret.as_slice()));
        let root = URL_SAFE_NO_PAD.encode(self.root_sha256);
        Zeroizing::new(format!("{PREFIX}.{}.{root}", secret.as_str()))
    }

    /// SHA-256 of the secret: what the store keeps.
    #[must_use]
    pub fn secret_sha256(&self) -> [u8; 32] {
        sha256(self.secret.as_slice())
    }

    /// Whether the token pins the root with this DER certificate.
    #[must_use]
    pub fn pins(&self, root_certificate: &[u8]) -> bool {
        self.root_sha256 == sha256(root_certificate)
    }

    /// Whether the secret is one of those whose hashes are given; takes the same time either way.
    #[must_use]
    pub fn is_one_of(&self, accepted: &[[u8; 32]]) -> bool {
        let own = self.secret_sha256();
        accepted.iter().filter(|hash| verify_slices_are_equal(*hash, &own).is_ok()).count() > 0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

fn decode(text: &str) -> Result<[u8; 32], CaError> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| CaError::Token)?);
    bytes.as_slice().try_into().map_err(|_| CaError::Token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_round_trip_and_pins_its_root() {
        let token = JoinToken::generate(b"root").unwrap();
        let again = JoinToken::parse(&format!("  {}\n", token.expose().as_str())).unwrap();
        assert_eq!(again, token);
        assert!(again.pins(b"root") && !again.pins(b"other"));
        assert!(again.is_one_of(&[[0; 32], token.secret_sha256()]));
        assert!(!again.is_one_of(&[[0; 32]]));
        assert_eq!(token.expose().matches('.').count(), 2);
    }

    #[test]
    fn bad_tokens_are_refused_without_being_repeated() {
        let good = JoinToken::generate(b"root").unwrap().expose();
        let secret = good.split('.').nth(1).unwrap();
        for bad in ["", "pillion1", "pillion1.a.b", &good[1..], &format!("{}.x", good.as_str())] {
            let error = JoinToken::parse(bad).unwrap_err().to_string();
            assert!(!error.contains(secret), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = JoinToken::generate(b"root").unwrap();
        assert_eq!(format!("{token:?}"), "JoinToken(..)");
    }
}
