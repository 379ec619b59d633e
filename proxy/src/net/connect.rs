//! Outgoing connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

use super::Io;
use super::listen::be_transparent;
use crate::model::cluster::TcpKeepalive;
use crate::model::listener::Address;

/// How a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// How long it may take. Default 5 s, as `Cluster.connect_timeout`.
    pub timeout: Duration,
    /// Keepalive probes. None: as the system does by default, which is never.
    pub keepalive: Option<TcpKeepalive>,
    /// Whose address the connection comes from. None: ours.
    pub source: Option<Source>,
    /// Our own address that it comes from, and whether that need not be ours yet (`IP_FREEBIND`). `source` wins.
    pub bind: Option<(SocketAddr, bool)>,
}

/// An address that need not be ours, and that a connection is to come from (`IP_TRANSPARENT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The address; the kernel chooses a port. Connections to the other family do without.
    pub address: IpAddr,
    /// Mark of the packets (`SO_MARK`), for the rules that bring the answers back. 0: none.
    pub mark: u32,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(5), keepalive: None, source: None, bind: None }
    }
}

/// Connects, with `TCP_NODELAY` set.
///
/// # Errors
/// Refused, unreachable, or [`io::ErrorKind::TimedOut`] after `options.timeout`; a foreign `source` without the
/// capability `CAP_NET_ADMIN`. No byte was sent.
pub async fn connect(address: &Address, options: &ConnectOptions) -> io::Result<Io> {
    match timeout(options.timeout, dial(address, options)).await {
        Ok(Ok(io)) => {
            if let (Some(stream), Some(keepalive)) = (io.tcp(), options.keepalive) {
                set_keepalive(stream, keepalive)?;
            }
            Ok(io)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no connection to {address} within {:?}", options.timeout),
        )),
    }
}

async fn dial(address: &Address, options: &ConnectOptions) -> io::Result<Io> {
    match address {
        Address::Socket(address) => {
            let source =
                options.source.filter(|source| source.address.is_ipv4() == address.is_ipv4());
            let stream = match (source, options.bind) {
                (Some(source), _) => dial_from(source, *address).await?,
                (None, Some(bind)) => dial_bound(bind, *address).await?,
                (None, None) => TcpStream::connect(address).await?,
            };
            stream.set_nodelay(true)?;
            Ok(Io::Tcp(stream))
        }
        Address::Pipe(path) => dial_unix(path).await.map(Io::Unix),
    }
}

async fn dial_from(source: Source, address: SocketAddr) -> io::Result<TcpStream> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    be_transparent(&socket, address.is_ipv6())?;
    if source.mark != 0 {
        socket.set_mark(source.mark)?;
    }
    socket.bind(&SocketAddr::new(source.address, 0).into())?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

async fn dial_bound(
    (from, freebind): (SocketAddr, bool),
    address: SocketAddr,
) -> io::Result<TcpStream> {
    if from.is_ipv4() != address.is_ipv4() {
        let why = format!("no source address of the family of {address}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    if from.port() != 0 {
        socket.set_reuse_address(true)?;
    }
    match (freebind, address.is_ipv4()) {
        (true, true) => socket.set_freebind_v4(true)?,
        (true, false) => socket.set_freebind_v6(true)?,
        (false, _) => {}
    }
    socket.bind(&from.into())?;
    TcpSocket::from_std_stream(socket.into()).connect(address).await
}

/// `@name` is a name in Linux' abstract namespace, as in Envoy.
async fn dial_unix(path: &Path) -> io::Result<UnixStream> {
    match abstract_name(path) {
        None => UnixStream::connect(path).await,
        // Connecting to an abstract name is immediate: it is in memory, or it is not.
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        }
    }
}

pub(crate) fn abstract_name(path: &Path) -> Option<&[u8]> {
    path.as_os_str().as_encoded_bytes().strip_prefix(b"@")
}

fn set_keepalive(stream: &TcpStream, keepalive: TcpKeepalive) -> io::Result<()> {
    let mut options = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        options = options.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        options = options.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        options = options.with_retries(probes);
    }
    SockRef::from(stream).set_tcp_keepalive(&options)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::net::listen;

    #[tokio::test]
    async fn connects_over_tcp_with_keepalive_and_nodelay() {
        let listener = listen(&Address::Socket("127.0.0.1:0".parse().unwrap()), 16).unwrap();
        let options = ConnectOptions {
            keepalive: Some(TcpKeepalive {
                probes: Some(3),
                time: Some(Duration::from_secs(30)),
                interval: Some(Duration::from_secs(7)),
            }),
            ..ConnectOptions::default()
        };
        let mut client = connect(listener.address(), &options).await.unwrap();
        let mut acceptor = listener.acceptor().unwrap();
        let (mut server, peer) = acceptor.accept().await.unwrap();
        assert_eq!(peer, client.local_address().unwrap());
        assert_eq!(&client.peer_address().unwrap(), listener.address());

        let socket = SockRef::from(client.tcp().unwrap());
        assert!(client.tcp().unwrap().nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));

        client.write_all(b"hello").await.unwrap();
        let mut got = [0; 5];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
    }

    #[tokio::test]
    async fn connections_come_from_the_address_that_is_bound() {
        let listener = listen(&Address::Socket("127.0.0.1:0".parse().unwrap()), 16).unwrap();
        let mut acceptor = listener.acceptor().unwrap();
        for (from, freebind) in [("127.0.0.9:0", false), ("127.0.0.10:0", true)] {
            let from: SocketAddr = from.parse().unwrap();
            let options =
                ConnectOptions { bind: Some((from, freebind)), ..ConnectOptions::default() };
            let _client = connect(listener.address(), &options).await.unwrap();
            let (_server, peer) = acceptor.accept().await.unwrap();
            let Address::Socket(peer) = peer else { panic!("{peer}") };
            assert_eq!(peer.ip(), from.ip());
        }
        let bind = Some(("[::1]:0".parse().unwrap(), false));
        let options = ConnectOptions { bind, ..ConnectOptions::default() };
        let error = connect(listener.address(), &options).await.unwrap_err();
        assert!(error.to_string().contains("family"), "{error}");
    }

    #[tokio::test]
    async fn a_refused_connection_says_so() {
        let listener = listen(&Address::Socket("127.0.0.1:0".parse().unwrap()), 16).unwrap();
        let address = listener.address().clone();
        drop(listener);
        let error = connect(&address, &ConnectOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_full_backlog_runs_into_the_timeout() {
        let listener = listen(&Address::Socket("127.0.0.1:0".parse().unwrap()), 1).unwrap();
        let options =
            ConnectOptions { timeout: Duration::from_millis(200), ..ConnectOptions::default() };
        let mut open = Vec::new();
        for _ in 0..16 {
            match connect(listener.address(), &options).await {
                Ok(io) => open.push(io),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                    assert!(error.to_string().contains("within 200ms"), "{error}");
                    return;
                }
            }
        }
        panic!("a backlog of 1 took {} connections", open.len());
    }
}
