//! The cryptography that everything here uses.

use std::sync::{Arc, LazyLock};

use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};

use super::TlsError;
use crate::model::Name;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    // `prefer-post-quantum` of rustls puts X25519MLKEM768 first.
    Arc::new(aws_lc_rs::default_provider())
});

/// aws-lc-rs, chosen explicitly: no process-wide default is installed or relied on.
pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// The same with these cipher suites of TLS 1.2 and groups only, by OpenSSL's names (as in Envoy's
/// `tls_params`); those of TLS 1.3 are fixed.
///
/// # Errors
/// A name that is not known or not safe.
pub(crate) fn chosen(ciphers: &[Name], curves: &[Name]) -> Result<Arc<CryptoProvider>, TlsError> {
    if ciphers.is_empty() && curves.is_empty() {
        return Ok(provider());
    }
    let mut made = (*provider()).clone();
    if !ciphers.is_empty() {
        let suites: Result<Vec<_>, _> = ciphers.iter().map(|name| suite(name)).collect();
        let suites = suites?;
        made.cipher_suites.retain(|one| one.tls13().is_some());
        made.cipher_suites.extend(suites);
    }
    if !curves.is_empty() {
        made.kx_groups = curves.iter().map(|name| group(name)).collect::<Result<_, _>>()?;
    }
    Ok(Arc::new(made))
}

/// Whether `chosen` knows these.
pub(crate) fn knows_cipher(name: &str) -> bool {
    suite(name).is_ok()
}

/// Whether `chosen` knows these.
pub(crate) fn knows_curve(name: &str) -> bool {
    group(name).is_ok()
}

fn suite(name: &str) -> Result<SupportedCipherSuite, TlsError> {
    use aws_lc_rs::cipher_suite as known;
    Ok(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" => known::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES256-GCM-SHA384" => known::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-CHACHA20-POLY1305" => known::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256" => known::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES256-GCM-SHA384" => known::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-CHACHA20-POLY1305" => known::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        _ => return Err(TlsError::bad("cipher_suites", format!("`{name}` is not supported"))),
    })
}

fn group(name: &str) -> Result<&'static dyn SupportedKxGroup, TlsError> {
    use aws_lc_rs::kx_group as known;
    Ok(match name {
        "X25519" => known::X25519,
        "P-256" => known::SECP256R1,
        "P-384" => known::SECP384R1,
        "X25519MLKEM768" => known::X25519MLKEM768,
        _ => return Err(TlsError::bad("ecdh_curves", format!("`{name}` is not supported"))),
    })
}

/// Seeds the random source and makes one key share, so that the first handshake is not the one that
/// pays for it (some milliseconds of jitter entropy). Call before saying ready.
///
/// # Errors
/// The system gives no randomness.
pub fn warm_up() -> Result<(), TlsError> {
    let provider = provider();
    let failed = |_| TlsError::bad("random source", "the system gives no randomness");
    provider.secure_random.fill(&mut [0; 32]).map_err(failed)?;
    if let Some(group) = provider.kx_groups.first() {
        group.start().map_err(|error| TlsError::bad("key exchange", error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustls::NamedGroup;

    use super::*;

    #[test]
    fn post_quantum_comes_first() {
        warm_up().unwrap();
        assert_eq!(provider().kx_groups[0].name(), NamedGroup::X25519MLKEM768);
    }
}
