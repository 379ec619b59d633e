//! Certificate signing requests: the key is taken from them, and nothing else.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::CaError;

/// Largest request that is looked at, in bytes; a P-256 request has about 250.
const MAX_BYTES: usize = 16 << 10;
/// Smallest RSA key that is signed, in bits (CA/Browser baseline).
const MIN_RSA_BITS: usize = 2048;

/// The public key of a DER request (RFC 2986) whose sender proved that it holds the private key.
/// Names and extensions in the request are ignored: who the caller is was proved elsewhere.
///
/// # Errors
/// When the request cannot be read, its signature does not fit, or its key is too weak.
pub(crate) fn verified_key(der: &[u8]) -> Result<SubjectPublicKeyInfo, CaError> {
    if der.len() > MAX_BYTES {
        return Err(CaError::Csr("the request is larger than 16 KiB"));
    }
    let (rest, request) = X509CertificationRequest::from_der(der)
        .map_err(|_| CaError::Csr("it is not a PKCS#10 request in DER"))?;
    if !rest.is_empty() {
        return Err(CaError::Csr("there are bytes after the request"));
    }
    request.verify_signature().map_err(|_| {
        CaError::Csr("its signature does not fit its key: the sender must sign with that key")
    })?;
    let info = &request.certification_request_info.subject_pki;
    check_strength(info.parsed().ok())?;
    SubjectPublicKeyInfo::from_der(info.raw)
        .map_err(|_| CaError::Csr("its key type is not one of ECDSA, Ed25519, RSA"))
}

fn check_strength(key: Option<PublicKey<'_>>) -> Result<(), CaError> {
    match key {
        Some(PublicKey::RSA(key)) if key.key_size() < MIN_RSA_BITS => {
            Err(CaError::Csr("its RSA key is shorter than 2048 bits"))
        }
        Some(PublicKey::DSA(_)) => Err(CaError::Csr("DSA keys are not accepted")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn request() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_signed_request_gives_its_key() {
        assert!(verified_key(&request()).is_ok());
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let mut der = request();
        let last = der.len() - 1;
        der[last] ^= 1;
        let error = verified_key(&der).unwrap_err();
        assert!(error.to_string().contains("signature"), "{error}");
    }

    #[test]
    fn garbage_and_trailing_bytes_are_refused() {
        assert!(verified_key(b"nope").is_err());
        assert!(verified_key(&vec![0x30; MAX_BYTES + 1]).is_err());
        let mut der = request();
        der.push(0);
        assert!(verified_key(&der).is_err());
    }
}
