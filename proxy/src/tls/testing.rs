//! Certificates and handshakes for tests.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
use zeroize::Zeroizing;

use super::peer::pem_of;
use super::{explain_io, server_name};
use crate::model::tls::{DataSource, TlsCertificate};

pub(crate) fn spiffe(account: &str) -> String {
    format!("spiffe://shop.local/ns/default/sa/{account}")
}

pub(crate) struct Ca {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) struct Leaf {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// An authority that this one vouches for.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    pub(crate) fn pem(&self) -> DataSource {
        inline(&self.certificate.pem())
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// A leaf with this URI as its one name.
    pub(crate) fn leaf(&self, uri: &str) -> Leaf {
        self.leaf_with(|params| {
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        })
    }

    pub(crate) fn leaf_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf { certificate, key }
    }

    pub(crate) fn sign(&self, csr: &[u8]) -> CertificateDer<'static> {
        let csr = CertificateSigningRequestDer::from(csr.to_vec());
        let params = CertificateSigningRequestParams::from_der(&csr).unwrap();
        params.signed_by(&self.issuer).unwrap().der().clone()
    }
}

impl Leaf {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    pub(crate) fn certificate(&self) -> TlsCertificate {
        self.certificate_with(&[])
    }

    /// With these put after the leaf in the chain.
    pub(crate) fn certificate_with(&self, rest: &[&Ca]) -> TlsCertificate {
        let mut chain = self.certificate.pem();
        for ca in rest {
            chain.push_str(&pem_of(&ca.der()));
        }
        TlsCertificate { chain: inline(&chain), key: inline(&self.key.serialize_pem()) }
    }
}

pub(crate) fn inline(text: &str) -> DataSource {
    DataSource::Inline(Arc::new(Zeroizing::new(text.as_bytes().to_vec())))
}

/// What each side said, where it failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) client: String,
    pub(crate) server: String,
}

pub(crate) type Pair = (client::TlsStream<TcpStream>, server::TlsStream<TcpStream>);

/// A handshake over loopback, and a byte each way (with TLS 1.3 a client learns of its refusal only
/// when it reads).
pub(crate) async fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<Pair, Failed> {
    named_handshake("", client, server).await
}

pub(crate) async fn named_handshake(
    sni: &str,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> Result<Pair, Failed> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let name = server_name(sni).unwrap();
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = TlsConnector::from(client).connect(name, stream).await?;
        stream.write_all(b"c").await?;
        let byte = stream.read_u8().await?;
        assert_eq!(byte, b's');
        Ok::<_, std::io::Error>(stream)
    };
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(server).accept(stream).await?;
        assert_eq!(stream.read_u8().await?, b'c');
        stream.write_all(b"s").await?;
        stream.flush().await?;
        Ok::<_, std::io::Error>(stream)
    };
    match tokio::join!(client, server) {
        (Ok(client), Ok(server)) => Ok((client, server)),
        (client, server) => Err(Failed {
            client: client.map_or_else(|error| explain_io(&error), |_| String::new()),
            server: server.map_or_else(|error| explain_io(&error), |_| String::new()),
        }),
    }
}
