//! One type for every byte stream that the proxy serves, so that nothing above is generic.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, CommonState, NamedGroup, ServerConfig,
    server::Acceptor as HelloAcceptor,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client, server};

use super::original_dst::unmapped;
use crate::model::listener::Address;
use crate::telemetry::format::Session;

/// A byte stream: plain, or TLS over another one.
#[derive(Debug)]
pub enum Io {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
    /// TLS that we terminated.
    TlsServer(Box<server::TlsStream<Self>>),
    /// TLS that we originated.
    TlsClient(Box<client::TlsStream<Self>>),
}

impl Io {
    /// Terminates TLS. A client whose ALPN list has nothing in common with ours is served without
    /// ALPN, as by Envoy; rustls alone would refuse it.
    ///
    /// # Errors
    /// The handshake failed; `tls::explain_io` says why. The alert was sent already.
    pub async fn accept_tls(self, config: Arc<ServerConfig>) -> io::Result<Self> {
        let start = LazyConfigAcceptor::new(HelloAcceptor::default(), self).await?;
        let stranger = start.client_hello().alpn().is_some_and(|mut offered| {
            !offered.any(|one| config.alpn_protocols.iter().any(|ours| ours == one))
        });
        let config = if stranger { without_alpn(&config) } else { config };
        Ok(Self::TlsServer(Box::new(start.into_stream(config).await?)))
    }

    /// Originates TLS.
    ///
    /// # Errors
    /// The handshake failed; `tls::explain_io` says why. With TLS 1.3 a server's refusal of
    /// our certificate shows only in the first read.
    pub async fn connect_tls(
        self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let stream = TlsConnector::from(config).connect(name, self).await?;
        Ok(Self::TlsClient(Box::new(stream)))
    }

    /// Address of the other end. A Unix peer that bound no name is an empty path.
    ///
    /// # Errors
    /// The socket is not connected any more.
    pub fn peer_address(&self) -> io::Result<Address> {
        match self.socket() {
            Socket::Tcp(stream) => stream.peer_addr().map(|at| Address::Socket(unmapped(at))),
            Socket::Unix(stream) => stream.peer_addr().map(|address| pipe(&address)),
        }
    }

    /// Address of our end: what the peer connected to, before any redirection is looked through.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn local_address(&self) -> io::Result<Address> {
        match self.socket() {
            Socket::Tcp(stream) => stream.local_addr().map(|at| Address::Socket(unmapped(at))),
            Socket::Unix(stream) => stream.local_addr().map(|address| pipe(&address)),
        }
    }

    /// The TCP socket at the bottom, if it is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self.socket() {
            Socket::Tcp(stream) => Some(stream),
            Socket::Unix(_) => None,
        }
    }

    /// Its socket, if that is TCP and bytes go through it as they are.
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Unix(_) | Self::TlsServer(_) | Self::TlsClient(_) => None,
        }
    }

    /// The ALPN protocol that was agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.session().and_then(CommonState::alpn_protocol)
    }

    /// The SNI that the client sent (server side only).
    pub fn sni(&self) -> Option<&str> {
        match self {
            Self::TlsServer(stream) => stream.get_ref().1.server_name(),
            _ => None,
        }
    }

    /// What the peer presented, leaf first. Empty: nothing, or no TLS.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        self.session().and_then(CommonState::peer_certificates).unwrap_or_default()
    }

    /// What is agreed on for this TLS session: version, cipher suite, key exchange. None: plain text.
    pub fn session(&self) -> Option<&CommonState> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::TlsServer(stream) => Some(stream.get_ref().1),
            Self::TlsClient(stream) => Some(stream.get_ref().1),
        }
    }

    /// `TLSv1.2` or `TLSv1.3`, as Envoy says it. None: plain text.
    pub fn tls_version(&self) -> Option<&'static str> {
        match self.session()?.protocol_version()? {
            rustls::ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            rustls::ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            _ => None,
        }
    }

    /// What is agreed on, in the words of access logs. None: plain text.
    pub fn tls_facts(&self) -> Option<Session> {
        let session = self.session()?;
        let cipher = session.negotiated_cipher_suite()?.suite();
        let group = session.negotiated_key_exchange_group();
        Some(Session {
            version: self.tls_version()?,
            cipher: cipher_name(cipher),
            cipher_number: cipher.into(),
            group: group.map_or("", |group| group_name(group.name())),
        })
    }

    /// Whether bytes travel encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::TlsServer(_) | Self::TlsClient(_))
    }

    pub(crate) fn socket(&self) -> Socket<'_> {
        match self {
            Self::Tcp(stream) => Socket::Tcp(stream),
            Self::Unix(stream) => Socket::Unix(stream),
            Self::TlsServer(stream) => stream.get_ref().0.socket(),
            Self::TlsClient(stream) => stream.get_ref().0.socket(),
        }
    }
}

impl From<TcpStream> for Io {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Io {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl AsFd for Io {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.socket() {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

/// The socket under all TLS.
pub(crate) enum Socket<'a> {
    Tcp(&'a TcpStream),
    Unix(&'a UnixStream),
}

macro_rules! each {
    ($io:expr, $stream:ident => $call:expr) => {
        match $io {
            Io::Tcp($stream) => $call,
            Io::Unix($stream) => $call,
            Io::TlsServer($stream) => $call,
            Io::TlsClient($stream) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

fn pipe(address: &tokio::net::unix::SocketAddr) -> Address {
    Address::Pipe(address.as_pathname().map_or_else(PathBuf::new, Into::into))
}

fn without_alpn(config: &Arc<ServerConfig>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::clone(config);
    config.alpn_protocols.clear();
    Arc::new(config)
}

#[cfg(test)]
#[path = "io_tests.rs"]
mod tests;

/// As OpenSSL, and so Envoy, names them.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other.as_str().unwrap_or(""),
    }
}

fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        NamedGroup::secp521r1 => "P-521",
        other => other.as_str().unwrap_or(""),
    }
}
