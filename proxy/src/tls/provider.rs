//! The cryptography that everything here uses.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

use super::TlsError;

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    // `prefer-post-quantum` of rustls puts X25519MLKEM768 first.
    Arc::new(aws_lc_rs::default_provider())
});

/// aws-lc-rs, chosen explicitly: no process-wide default is installed or relied on.
pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
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
