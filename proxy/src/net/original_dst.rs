//! Where a connection was going before nftables or iptables redirected it to us.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::io::Errno;
use socket2::SockRef;
use tokio::net::TcpStream;

/// The destination before a REDIRECT (`SO_ORIGINAL_DST`, for IPv6 `IP6T_SO_ORIGINAL_DST`). None: the
/// connection was not redirected (it goes to the very address that was connected to), or the kernel
/// tracks none.
///
/// # Errors
/// The socket is gone.
pub fn original_dst(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    let local = unmapped(stream.local_addr()?);
    let socket = SockRef::from(stream);
    let found = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    match found {
        Ok(address) => Ok(address.as_socket().map(unmapped).filter(|found| *found != local)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// No conntrack module, no entry, or no permission to ask.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::NOPROTOOPT | Errno::NOENT | Errno::PERM | Errno::OPNOTSUPP)
    )
}

/// An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) as the IPv4 address that it is.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, address.port())),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::listener::Address;
    use crate::net::{ConnectOptions, connect, listen};

    #[tokio::test]
    async fn a_connection_that_was_not_redirected_has_none() {
        let listener = listen(&Address::Socket("127.0.0.1:0".parse().unwrap()), 16).unwrap();
        let _client = connect(listener.address(), &ConnectOptions::default()).await.unwrap();
        let (server, _) = listener.acceptor().unwrap().accept().await.unwrap();
        let stream = server.tcp().unwrap();
        // With conntrack loaded the kernel answers with the address itself.
        assert_eq!(original_dst(stream).unwrap(), None);
    }

    #[test]
    fn mapped_addresses_become_what_they_are() {
        let unmap = |text: &str| unmapped(text.parse().unwrap()).to_string();
        assert_eq!(unmap("[::ffff:10.0.0.1]:80"), "10.0.0.1:80");
        assert_eq!(unmap("[2001:db8::1]:80"), "[2001:db8::1]:80");
        assert_eq!(unmap("10.0.0.1:80"), "10.0.0.1:80");
    }
}
