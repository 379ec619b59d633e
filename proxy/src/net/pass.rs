//! Packets with file descriptors between two processes of one machine: a Unix socket of kind
//! `SOCK_SEQPACKET`, which keeps what belongs together in one packet (unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// Most descriptors of one packet; the kernel's limit (`SCM_MAX_FD`) is 253.
pub const MAX_FDS: usize = 128;
/// Longest text of a packet, in bytes.
pub const MAX_TEXT: usize = 64 * 1024;

/// One end of a conversation.
#[derive(Debug)]
pub struct Link(Socket);

/// Where others can begin a conversation.
#[derive(Debug)]
pub struct Door(Socket);

impl Door {
    /// Listens at `path` for processes of the same user (mode 0600), in place of whoever did so
    /// before.
    ///
    /// # Errors
    /// The folder cannot be written, or the path is too long for a Unix socket (107 bytes).
    pub fn open(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let fresh = Path::new(&name);
        let _ = std::fs::remove_file(fresh);
        socket.bind(&SockAddr::unix(fresh)?)?;
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
        std::fs::set_permissions(fresh, mode)?;
        socket.listen(4)?;
        // Renamed when it listens, so that nobody ever finds a door that nobody stands behind.
        std::fs::rename(fresh, path)?;
        Ok(Self(socket))
    }

    /// The next conversation, with a process of our own user or of root; others are turned away.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn accept(&self) -> io::Result<Link> {
        loop {
            let link = Link(self.0.accept()?.0);
            if link.is_trusted()? {
                return Ok(link);
            }
        }
    }
}

impl Link {
    /// Begins a conversation. None: nobody listens at `path`.
    ///
    /// # Errors
    /// Somebody of another user listens there, or it cannot be reached.
    pub fn connect(path: &Path) -> io::Result<Option<Self>> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.cloexec(), None)?;
        match socket.connect(&SockAddr::unix(path)?) {
            Ok(()) => {}
            Err(error) => {
                let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
                return if nobody.contains(&error.kind()) { Ok(None) } else { Err(error) };
            }
        }
        let link = Self(socket);
        if link.is_trusted()? {
            return Ok(Some(link));
        }
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user's process listens there"))
    }

    /// How long [`receive`](Self::receive) waits. None: for ever.
    ///
    /// # Errors
    /// Zero is no limit.
    pub fn set_patience(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(limit)
    }

    /// Sends one packet.
    ///
    /// # Errors
    /// The other end is gone; the packet is too long, or has more than [`MAX_FDS`] descriptors.
    pub fn send(&self, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        if text.len() > MAX_TEXT || fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the packet is too long"));
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("no room for the descriptors"));
        }
        let texts = [IoSlice::new(text)];
        rustix::net::sendmsg(&self.0, &texts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Receives one packet. None: the other end has gone.
    ///
    /// # Errors
    /// Nothing came in time ([`WouldBlock`](io::ErrorKind::WouldBlock)), or something was cut off.
    pub fn receive(&self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut text = vec![0; MAX_TEXT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut texts = [IoSliceMut::new(&mut text)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = match rustix::net::recvmsg(&self.0, &mut texts, &mut control, flags) {
            Ok(received) => received,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet was cut off"));
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        text.truncate(received.bytes);
        Ok(Some((text, fds)))
    }

    fn is_trusted(&self) -> io::Result<bool> {
        let peer = rustix::net::sockopt::socket_peercred(self.0.as_fd())?.uid;
        Ok(peer == rustix::process::geteuid() || peer.is_root())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_descriptor_comes_with_its_packet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door");
        assert!(Link::connect(&path).unwrap().is_none());
        let door = Door::open(&path).unwrap();
        let link = Link::connect(&path).unwrap().unwrap();
        let other = door.accept().unwrap();
        let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        other.send(b"plain", &[]).unwrap();
        other.send(b"with", &[far.as_fd()]).unwrap();
        drop((other, far));
        let (text, fds) = link.receive().unwrap().unwrap();
        assert_eq!((&text[..], fds.len()), (&b"plain"[..], 0));
        let (text, mut fds) = link.receive().unwrap().unwrap();
        assert_eq!((&text[..], fds.len()), (&b"with"[..], 1));
        let mut far = std::os::unix::net::UnixStream::from(fds.remove(0));
        near.write_all(b"x").unwrap();
        drop(near);
        let mut got = String::new();
        far.read_to_string(&mut got).unwrap();
        assert_eq!(got, "x");
        assert!(link.receive().unwrap().is_none(), "the other end has gone");
    }

    #[test]
    fn the_latest_door_is_the_one_that_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("door");
        let old = Door::open(&path).unwrap();
        let new = Door::open(&path).unwrap();
        let link = Link::connect(&path).unwrap().unwrap();
        drop(old);
        new.accept().unwrap().send(b"new", &[]).unwrap();
        assert_eq!(link.receive().unwrap().unwrap().0, b"new");
        drop(new);
        assert!(Link::connect(&path).unwrap().is_none(), "a stale file is nobody");
    }

    #[test]
    fn whoever_waits_too_long_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let door = Door::open(&dir.path().join("door")).unwrap();
        let link = Link::connect(&dir.path().join("door")).unwrap().unwrap();
        let _other = door.accept().unwrap();
        link.set_patience(Some(Duration::from_millis(10))).unwrap();
        assert_eq!(link.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
