//! Listening sockets that another process has bound: the proxy before this one, or systemd.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::listen::{ListenOptions, Listener, listen_with};
use crate::model::listener::Address;

/// A socket and what it is for.
#[derive(Debug)]
pub struct Passed {
    /// Name of the listener.
    pub name: String,
    /// The address that the listener was configured with; its port may be 0.
    pub address: Address,
    /// Bound to all addresses, it may stand for one of them: the service manager decides where to
    /// listen.
    pub wide: bool,
    /// The socket; it listens.
    pub socket: OwnedFd,
}

/// Sockets that wait for the listener that they are for. What is never asked for is closed in the
/// end, with [`clear`](Self::clear).
#[derive(Debug, Default)]
pub struct Inherited(Mutex<Vec<Passed>>);

impl Inherited {
    /// These wait.
    pub fn new(passed: Vec<Passed>) -> Self {
        Self(Mutex::new(passed))
    }

    /// Listens on a waiting socket of this address, or else binds one. An address with port 0
    /// means the socket of the listener of the same name.
    ///
    /// # Errors
    /// As of [`listen_with`].
    pub fn listen(
        &self,
        name: &str,
        address: &Address,
        options: &ListenOptions,
    ) -> io::Result<Listener> {
        let Some(passed) = self.take(name, address) else { return listen_with(address, options) };
        Listener::adopt(passed.socket, options).map_err(|error| {
            let text = format!("the inherited socket for {address} cannot be used: {error}");
            io::Error::new(error.kind(), text)
        })
    }

    /// Closes what still waits; returns how many that were.
    pub fn clear(&self) -> usize {
        std::mem::take(&mut *self.lock()).len()
    }

    fn take(&self, name: &str, address: &Address) -> Option<Passed> {
        let any_port = matches!(address, Address::Socket(socket) if socket.port() == 0);
        let mut waiting = self.lock();
        let is_it = |one: &Passed| one.address == *address && (!any_port || one.name == name);
        let covers = |one: &Passed| one.wide && covers(&one.address, address);
        let index = waiting.iter().position(is_it).or_else(|| waiting.iter().position(covers))?;
        Some(waiting.swap_remove(index))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Passed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a socket bound to `at` gets the connections to `wanted`.
fn covers(at: &Address, wanted: &Address) -> bool {
    let (Address::Socket(at), Address::Socket(wanted)) = (at, wanted) else { return false };
    // `::` takes IPv4 connections as well: systemd's default for `ListenStream=PORT`.
    at.ip().is_unspecified() && at.port() == wanted.port() && (at.is_ipv6() || wanted.is_ipv4())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::net::{ConnectOptions, connect, listen};

    fn passed(name: &str, asked: &Address, listener: &Listener) -> Passed {
        let socket = listener.as_fd().try_clone_to_owned().unwrap();
        Passed { name: name.to_owned(), address: asked.clone(), wide: false, socket }
    }

    #[tokio::test]
    async fn a_connection_that_waits_is_accepted_by_the_heir() {
        let any = Address::Socket(([127, 0, 0, 1], 0).into());
        let first = listen(&any, 16).unwrap();
        let address = first.address().clone();
        let inherited =
            Inherited::new(vec![passed("other", &any, &first), passed("in", &any, &first)]);
        let client = connect(&address, &ConnectOptions::default()).await.unwrap();
        let heir = inherited.listen("in", &any, &ListenOptions::default()).unwrap();
        drop(first);
        assert_eq!(*heir.address(), address);
        let (_server, peer) = heir.acceptor().unwrap().accept().await.unwrap();
        assert_eq!(peer, client.local_address().unwrap());
        assert_eq!(inherited.clear(), 1, "the one of another name was not taken");
    }

    #[test]
    fn only_a_wide_socket_stands_for_one_address() {
        let all = listen(&Address::Socket("[::]:0".parse().unwrap()), 16).unwrap();
        let Address::Socket(at) = *all.address() else { panic!("{all:?}") };
        let wanted = Address::Socket(([127, 0, 0, 1], at.port()).into());
        let inherited = Inherited::new(vec![passed("", all.address(), &all)]);
        assert!(inherited.take("in", &wanted).is_none());
        let wide = Passed { wide: true, ..passed("", all.address(), &all) };
        let inherited = Inherited::new(vec![wide]);
        assert!(inherited.take("in", &Address::Socket(([127, 0, 0, 1], 1).into())).is_none());
        assert!(inherited.take("in", &wanted).is_some());
    }

    #[test]
    fn what_nobody_left_is_bound() {
        let any = Address::Socket(([127, 0, 0, 1], 0).into());
        let bound = Inherited::default().listen("in", &any, &ListenOptions::default()).unwrap();
        assert_ne!(*bound.address(), any);
    }

    #[tokio::test]
    async fn the_file_of_a_shared_unix_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Pipe(dir.path().join("socket"));
        let first = listen(&address, 16).unwrap();
        let inherited = Inherited::new(vec![passed("in", &address, &first)]);
        let heir = inherited.listen("in", &address, &ListenOptions::default()).unwrap();
        first.share();
        drop(first);
        connect(&address, &ConnectOptions::default()).await.unwrap();
        drop(heir);
        assert!(!dir.path().join("socket").exists(), "the last one removes it");
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Pipe(dir.path().join("socket"));
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let passed = Passed {
            name: String::new(),
            address: address.clone(),
            wide: false,
            socket: one.into(),
        };
        let inherited = Inherited::new(vec![passed]);
        let error = inherited.listen("in", &address, &ListenOptions::default()).unwrap_err();
        assert!(error.to_string().contains("no listening socket"), "{error}");
    }
}
