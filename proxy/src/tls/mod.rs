//! TLS: our own identity, what we ask of the peer, and errors that say which of the two went wrong.
//!
//! Everything uses rustls with the aws-lc-rs provider, X25519MLKEM768 first; session resumption is
//! off, so that a rotated or revoked certificate counts from the next connection on.

mod certificates;
mod config;
mod error;
mod explain;
pub mod files;
pub mod identity;
pub mod join;
mod peer;
mod pem;
mod provider;
mod rules;
mod spiffe;
#[cfg(test)]
pub(crate) mod testing;
mod verifier;

use std::sync::Arc;

pub use certificates::own_identity;
pub use config::{client_config, server_config, server_name};
pub use error::{NameMismatch, PinMismatch, TlsError};
pub use explain::{Failure, explain, explain_io, failure, failure_io};
pub use peer::PeerIdentity;
pub(crate) use provider::{knows_cipher, knows_curve};
pub use provider::{provider, warm_up};

use crate::model::{Map, tls::Secret};

/// Where named secrets are found: the snapshot, in the proxy.
pub trait Secrets {
    /// The secret of this name, if it is known yet.
    fn get(&self, name: &str) -> Option<Arc<Secret>>;
}

impl Secrets for Map<Arc<Secret>> {
    fn get(&self, name: &str) -> Option<Arc<Secret>> {
        self.get(name).cloned()
    }
}

/// No named secrets at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn get(&self, _: &str) -> Option<Arc<Secret>> {
        None
    }
}
