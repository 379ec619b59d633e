//! Ports for processes that have to be told one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A loopback port that the kernel chose and that nobody else is given while this lives.
///
/// The socket is bound and never listens: connections to it are refused, until a server that sets
/// `SO_REUSEADDR` (every proxy does) binds the same port and listens.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _held: Socket,
}

impl Port {
    /// Takes a free one.
    ///
    /// # Errors
    /// When the kernel has none.
    pub fn reserve() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let bound = socket.local_addr()?.as_socket();
        let number = bound.ok_or_else(|| io::Error::other("not an internet socket"))?.port();
        Ok(Self { number, _held: socket })
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// With the loopback address.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}
