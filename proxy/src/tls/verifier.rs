//! Rules put to rustls.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::provider;
use super::rules::{Peer, Rules};

/// Verifies servers.
#[derive(Debug)]
pub(crate) struct Servers {
    rules: Rules,
    // Ask for a certificate of the very name that was sent as SNI.
    by_name: bool,
    provider: Arc<CryptoProvider>,
}

impl Servers {
    pub(crate) fn new(rules: Rules, by_name: bool) -> Self {
        Self { rules, by_name, provider: provider() }
    }
}

/// Verifies clients.
#[derive(Debug)]
pub(crate) struct Clients {
    rules: Rules,
    mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl Clients {
    pub(crate) fn new(rules: Rules, mandatory: bool) -> Self {
        Self { rules, mandatory, provider: provider() }
    }
}

/// The handshake's signature is verified always: also where the certificate itself is not.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls12_signature(message, certificate, signed, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            verify_tls13_signature(message, certificate, signed, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}
pub(crate) use signatures;

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let name = self.by_name.then_some(server_name);
        self.rules.check((leaf, intermediates), Peer::Server, name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: a client with a certificate sends it, and a bundle of roots does not bloat every handshake.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.rules.check((leaf, intermediates), Peer::Client, None, now)?;
        Ok(ClientCertVerified::assertion())
    }

    signatures!();
}
