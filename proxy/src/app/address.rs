//! Which of this machine's addresses others reach it at.

use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

/// After a failed attempt, the next one comes this much later; twice as much each time.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The address that this machine uses towards `authority` (`host:port`). While the name is unknown,
/// or there is no way to it, as when the machine has just started, it waits and says so.
pub(super) fn towards(authority: &str) -> IpAddr {
    let mut pause = FIRST_PAUSE;
    loop {
        match local_address(authority) {
            Ok(address) => return address,
            Err(error) => tracing::warn!(
                %error,
                "cannot tell this machine's own address by its way to {authority}; --address says it"
            ),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// As the routes say; nothing is sent.
fn local_address(authority: &str) -> Result<IpAddr> {
    let mut last = Error::new(ErrorKind::NotFound, "the name has no address");
    for remote in authority.to_socket_addrs()? {
        match way_to(remote) {
            Ok(address) if !address.is_unspecified() => return Ok(address),
            Ok(_) => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn way_to(remote: SocketAddr) -> Result<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_on_this_machine_is_reached_from_loopback() {
        assert_eq!(local_address("127.0.0.1:15012").unwrap(), IpAddr::from([127, 0, 0, 1]));
        assert_eq!(towards("127.0.0.1:15012"), IpAddr::from([127, 0, 0, 1]));
    }

    #[test]
    fn what_cannot_be_resolved_is_an_error() {
        assert!(local_address("no port").is_err());
    }
}
