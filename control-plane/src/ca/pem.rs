//! PEM text (RFC 7468) for files that other programs read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

/// Characters in a line (RFC 7468, section 2).
const LINE: usize = 64;

/// The certificates one after another.
#[must_use]
pub fn certificates_pem(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(|der| block("CERTIFICATE", der).to_string()).collect()
}

/// A PKCS#8 private key.
#[must_use]
pub fn private_key_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    block("PRIVATE KEY", pkcs8)
}

/// The DER of the first certificate in a PEM text; `None` when there is none.
#[must_use]
pub fn first_certificate(pem: &[u8]) -> Option<Vec<u8>> {
    CertificateDer::from_pem_slice(pem).ok().map(|der| der.to_vec())
}

fn block(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(der));
    // Room for all of it: growing would leave copies of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(body.len() * 2 + 2 * label.len() + 64));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::PrivateKeyDer;

    use super::*;

    #[test]
    fn other_readers_take_our_pem() {
        let chain = [CertificateDer::from(vec![1; 100]), CertificateDer::from(vec![2; 3])];
        let text = certificates_pem(&chain);
        let read: Vec<_> =
            CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().unwrap();
        assert_eq!(read, chain);
        assert!(text.lines().all(|line| line.len() <= LINE));
        let key = PrivateKeyDer::from_pem_slice(private_key_pem(&[9; 48]).as_bytes()).unwrap();
        assert_eq!(key.secret_der(), [9; 48]);
    }
}
