//! Listening sockets.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

use super::accept::Acceptor;
use super::connect::abstract_name;
use crate::model::listener::Address;

/// A bound, listening socket. It belongs to no runtime: every worker takes an [`Acceptor`] of its own.
/// The port closes when the listener and all its acceptors are gone.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
    // Device and inode of a Unix socket's file, so that only our own file is ever removed.
    file: Option<(PathBuf, u64, u64)>,
    /// Another process listens on it too, and goes on.
    shared: AtomicBool,
}

/// How a socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Length of the accept queue. Default 1024.
    pub backlog: u32,
    /// `::` takes IPv4 connections too; where there is no IPv6, `0.0.0.0` takes its place.
    pub dual_stack: bool,
    /// Take connections to foreign addresses (`IP_TRANSPARENT`), which needs `CAP_NET_ADMIN`.
    pub transparent: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 1024, dual_stack: false, transparent: false }
    }
}

/// Binds and listens, with `SO_REUSEADDR`. A Unix socket file that nobody listens on any more is
/// removed first; `@name` is an abstract Unix name.
///
/// # Errors
/// The address is in use, not ours, or not allowed; the text names it.
pub fn listen(address: &Address, backlog: u32) -> io::Result<Listener> {
    listen_with(address, &ListenOptions { backlog, ..ListenOptions::default() })
}

/// Binds and listens with more options; see [`listen`].
///
/// # Errors
/// As of [`listen`], and a transparent socket without `CAP_NET_ADMIN`.
pub fn listen_with(address: &Address, options: &ListenOptions) -> io::Result<Listener> {
    let bound = match address {
        Address::Socket(socket) => match bind_tcp(&SockAddr::from(*socket), options) {
            Err(error) if options.dual_stack && has_no_ipv6(&error) => {
                let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, socket.port()));
                bind_tcp(&SockAddr::from(instead), options)
            }
            bound => bound,
        },
        Address::Pipe(path) => bind_unix(path, i32::try_from(options.backlog).unwrap_or(i32::MAX)),
    };
    bound.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    })
}

impl Listener {
    /// Where it listens; the port is the real one when 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A socket that listens already, which another process has bound.
    ///
    /// # Errors
    /// It is no listening stream socket, or not transparent though `options` ask for it.
    pub fn adopt(socket: OwnedFd, options: &ListenOptions) -> io::Result<Self> {
        let socket = Socket::from(socket);
        if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no listening socket"));
        }
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        let bound = socket.local_addr()?;
        if options.transparent && bound.as_socket().is_some() {
            be_transparent(&socket, bound.is_ipv6())?;
        }
        let address = match (bound.as_socket(), bound.as_pathname(), bound.as_abstract_namespace())
        {
            (Some(address), ..) => Address::Socket(address),
            (None, Some(path), _) => Address::Pipe(path.to_owned()),
            (None, None, Some(name)) => {
                Address::Pipe(format!("@{}", String::from_utf8_lossy(name)).into())
            }
            (None, None, None) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it has no address"));
            }
        };
        let file = bound.as_pathname().and_then(own_file);
        Ok(Self { socket, address, file, shared: AtomicBool::new(false) })
    }

    /// Leaves a Unix socket's file where it is in the end: another process goes on with the socket.
    pub fn share(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }

    /// An acceptor on the current runtime.
    ///
    /// # Errors
    /// Out of file descriptors.
    ///
    /// # Panics
    /// Called outside of a tokio runtime.
    pub fn acceptor(&self) -> io::Result<Acceptor> {
        let socket = self.socket.try_clone()?;
        match self.address {
            Address::Socket(_) => Acceptor::tcp(socket.into()),
            Address::Pipe(_) => Acceptor::unix(socket.into()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((path, device, inode)) = &self.file
            && !self.shared.load(Ordering::Relaxed)
            && let Ok(meta) = std::fs::symlink_metadata(path)
            && (meta.dev(), meta.ino()) == (*device, *inode)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)
    )
}

fn bind_tcp(address: &SockAddr, options: &ListenOptions) -> io::Result<Listener> {
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Envoy's default: `[::]` takes no IPv4 connections (`ipv4_compat: false`).
        socket.set_only_v6(!options.dual_stack)?;
    }
    if options.transparent {
        be_transparent(&socket, address.is_ipv6())?;
    }
    socket.bind(address)?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let bound = socket.local_addr()?.as_socket();
    let bound = bound.ok_or_else(|| io::Error::other("the bound address is no IP address"))?;
    let address = Address::Socket(bound);
    Ok(Listener { socket, address, file: None, shared: AtomicBool::new(false) })
}

pub(super) fn be_transparent(socket: &Socket, ipv6: bool) -> io::Result<()> {
    // On an IPv6 socket this option holds for IPv4 connections, the other one for IPv6.
    socket.set_ip_transparent_v4(true).map_err(needs_privilege)?;
    if ipv6 {
        socket.set_ip_transparent_v6(true).map_err(needs_privilege)?;
    }
    Ok(())
}

fn own_file(path: &Path) -> Option<(PathBuf, u64, u64)> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((path.to_owned(), meta.dev(), meta.ino()))
}

fn needs_privilege(error: io::Error) -> io::Error {
    let text = format!("a transparent socket (TPROXY) needs the capability CAP_NET_ADMIN: {error}");
    io::Error::new(error.kind(), text)
}

fn bind_unix(path: &Path, backlog: i32) -> io::Result<Listener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    let abstract_name = abstract_name(path);
    let address = match abstract_name {
        Some(name) => {
            use std::os::unix::ffi::OsStrExt as _;
            let name = [b"\0", name].concat();
            SockAddr::unix(Path::new(std::ffi::OsStr::from_bytes(&name)))?
        }
        None => {
            remove_stale(path)?;
            SockAddr::unix(path)?
        }
    };
    socket.bind(&address)?;
    socket.listen(backlog)?;
    let file = match abstract_name {
        Some(_) => None,
        None => own_file(path),
    };
    let address = Address::Pipe(path.to_owned());
    Ok(Listener { socket, address, file, shared: AtomicBool::new(false) })
}

/// Removes what a process that did not end in good order left behind: never a living socket, and
/// never a file that is no socket.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(meta) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !meta.file_type().is_socket() {
        let what = "a file of this name exists and is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Err(io::Error::from(io::ErrorKind::AddrInUse)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{ConnectOptions, connect};

    fn loopback(port: u16) -> Address {
        Address::Socket(([127, 0, 0, 1], port).into())
    }

    #[tokio::test]
    async fn two_acceptors_share_one_port_and_dropping_all_closes_it() {
        let listener = listen(&loopback(0), 16).unwrap();
        let address = listener.address().clone();
        let (mut one, mut two) = (listener.acceptor().unwrap(), listener.acceptor().unwrap());
        let _client = connect(&address, &ConnectOptions::default()).await.unwrap();
        tokio::select! {
            accepted = one.accept() => drop(accepted.unwrap()),
            accepted = two.accept() => drop(accepted.unwrap()),
        }
        drop((listener, one));
        let _late = connect(&address, &ConnectOptions::default()).await.unwrap();
        drop(two);
        let refused = connect(&address, &ConnectOptions::default()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn one_socket_takes_both_families_and_tells_ipv4_addresses_as_such() {
        let any = Address::Socket("[::]:0".parse().unwrap());
        let options = ListenOptions { dual_stack: true, ..ListenOptions::default() };
        let listener = listen_with(&any, &options).unwrap();
        let Address::Socket(bound) = listener.address() else { panic!("{listener:?}") };
        let client = connect(&loopback(bound.port()), &ConnectOptions::default()).await.unwrap();
        let (server, peer) = listener.acceptor().unwrap().accept().await.unwrap();
        assert_eq!(peer, client.local_address().unwrap());
        assert_eq!(server.local_address().unwrap(), loopback(bound.port()));
        assert_eq!(server.peer_address().unwrap(), peer);
    }

    #[test]
    fn a_port_in_use_names_the_address() {
        let listener = listen(&loopback(0), 16).unwrap();
        let error = listen(listener.address(), 16).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(text.contains(&format!("cannot listen on {}", listener.address())), "{text}");
    }

    #[tokio::test]
    async fn a_stale_unix_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // leaves its file behind
        let address = Address::Pipe(path.clone());
        let listener = listen(&address, 16).unwrap();
        assert_eq!(listen(&address, 16).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let client = connect(&address, &ConnectOptions::default()).await.unwrap();
        assert_eq!(client.peer_address().unwrap(), address);
        drop(listener);
        assert!(!path.exists(), "our own file is removed at the end");
    }

    #[test]
    fn a_plain_file_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let error = listen(&Address::Pipe(path.clone()), 16).unwrap_err();
        assert!(error.to_string().contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }

    #[tokio::test]
    async fn an_abstract_name_leaves_no_file() {
        let name = format!("@pillion-test-{}", std::process::id());
        let address = Address::Pipe(name.into());
        let listener = listen(&address, 16).unwrap();
        connect(&address, &ConnectOptions::default()).await.unwrap();
        drop(listener);
        assert!(connect(&address, &ConnectOptions::default()).await.is_err());
    }
}
