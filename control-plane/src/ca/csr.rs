//! Certificate signing requests: the key is taken from them, and the name that is asked for.

use rcgen::SubjectPublicKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use super::CaError;
use crate::identity::SpiffeId;

/// Largest request that is looked at, in bytes; a P-256 request has about 250.
const MAX_BYTES: usize = 16 << 10;
/// Smallest RSA key that is signed, in bits (CA/Browser baseline).
const MIN_RSA_BITS: usize = 2048;

/// A request whose sender proved that it holds the private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest {
    /// The key to certify.
    pub(super) key: SubjectPublicKeyInfo,
    /// The SPIFFE identity that the request asks for, if it names one. Whether the caller may have
    /// it is for others to decide.
    pub wanted: Option<SpiffeId>,
}

impl SigningRequest {
    /// Reads a DER request (RFC 2986). Everything in it but the key and one URI name is ignored.
    ///
    /// # Errors
    /// When the request cannot be read, its signature does not fit, its key is too weak, or it
    /// asks for something that is no SPIFFE identity.
    pub fn verify(der: &[u8]) -> Result<Self, CaError> {
        let request = parse(der)?;
        let info = &request.certification_request_info.subject_pki;
        check_strength(info.parsed().ok())?;
        let key = SubjectPublicKeyInfo::from_der(info.raw)
            .map_err(|_| CaError::Csr("its key type is not one of ECDSA, Ed25519, RSA"))?;
        Ok(Self { key, wanted: wanted(&request)? })
    }
}

fn wanted(request: &X509CertificationRequest<'_>) -> Result<Option<SpiffeId>, CaError> {
    let uris: Vec<&str> = request
        .requested_extensions()
        .into_iter()
        .flatten()
        .filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [] => Ok(None),
        [uri] => Ok(Some(uri.parse()?)),
        _ => Err(CaError::Csr("it names several URIs: an X.509-SVID has exactly one")),
    }
}

fn parse(der: &[u8]) -> Result<X509CertificationRequest<'_>, CaError> {
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
    Ok(request)
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
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn request(uris: &[&str]) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_signed_request_gives_its_key_and_the_wanted_name() {
        assert_eq!(SigningRequest::verify(&request(&[])).unwrap().wanted, None);
        let uri = "spiffe://td/ns/default/sa/a";
        let wanted = SigningRequest::verify(&request(&[uri])).unwrap().wanted;
        assert_eq!(wanted.unwrap().to_string(), uri);
    }

    #[test]
    fn names_that_are_no_identity_are_refused() {
        assert!(SigningRequest::verify(&request(&["https://example.com"])).is_err());
        let two = ["spiffe://td/ns/default/sa/a", "spiffe://td/ns/default/sa/b"];
        assert!(SigningRequest::verify(&request(&two)).is_err());
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let mut der = request(&[]);
        let last = der.len() - 1;
        der[last] ^= 1;
        let error = SigningRequest::verify(&der).unwrap_err();
        assert!(error.to_string().contains("signature"), "{error}");
    }

    #[test]
    fn garbage_and_trailing_bytes_are_refused() {
        assert!(SigningRequest::verify(b"nope").is_err());
        assert!(SigningRequest::verify(&vec![0x30; MAX_BYTES + 1]).is_err());
        let mut der = request(&[]);
        der.push(0);
        assert!(SigningRequest::verify(&der).is_err());
    }
}
