//! The service manager's side of life: readiness, status and watchdog by `sd_notify(3)`, and sockets
//! that it has bound by `sd_listen_fds(3)`. Without a service manager nothing here does anything.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use listenfd::ListenFd;

/// Speaks to the service manager, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    to: Option<Arc<Line>>,
    watchdog: Option<Duration>,
}

/// Where the service manager listens.
#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    address: UnixAddress,
}

impl Notifier {
    /// The one that `NOTIFY_SOCKET` and `WATCHDOG_USEC` name. What is wrong with them is logged.
    pub fn from_env() -> Self {
        let Some(path) = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self::default();
        };
        let watchdog = watchdog(
            env::var("WATCHDOG_USEC").ok().as_deref(),
            env::var("WATCHDOG_PID").ok().as_deref(),
        );
        match Self::to(&path, watchdog) {
            Ok(notifier) => notifier,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "NOTIFY_SOCKET cannot be used; going on without");
                Self::default()
            }
        }
    }

    /// Speaks to a socket of this path, or of this abstract name (`@name`).
    ///
    /// # Errors
    /// It is neither.
    fn to(path: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match path.as_bytes() {
            [b'@', name @ ..] => UnixAddress::from_abstract_name(name)?,
            [b'/', ..] => UnixAddress::from_pathname(path)?,
            _ => {
                let what = "expected a path, or @ and the name of an abstract Unix socket";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        };
        let socket = UnixDatagram::unbound()?;
        // A service manager that does not read is no reason to stop serving.
        socket.set_nonblocking(true)?;
        Ok(Self { to: Some(Arc::new(Line { socket, address })), watchdog })
    }

    /// How often the service manager wants to hear that we are alive. None: it does not.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// We serve.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// What we are at, in a line for people.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// We are going to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining");
    }

    /// Configuration is read anew, or another process takes over; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// This process is the service's main one from now on.
    pub fn main_process(&self) {
        self.send(&format!("MAINPID={}", std::process::id()));
    }

    /// We are alive: [`Self::watchdog`] begins anew.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    fn send(&self, text: &str) {
        let Some(line) = &self.to else { return };
        if let Err(error) = line.socket.send_to_addr(text.as_bytes(), &line.address) {
            tracing::debug!(%error, text, "the service manager does not hear");
        }
    }
}

/// Time that the watchdog waits; none, if it is that of another process.
fn watchdog(micros: Option<&str>, process: Option<&str>) -> Option<Duration> {
    let own = process.is_none_or(|id| id.parse() == Ok(std::process::id()));
    let micros = micros?.parse().ok().filter(|micros| *micros > 0 && own)?;
    Some(Duration::from_micros(micros))
}

/// A status of several lines would be several assignments.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Listening sockets that were handed to this process, each until it is taken.
#[derive(Debug, Default)]
pub struct Activated(Vec<Socket>);

/// One of them.
#[derive(Debug)]
pub struct Socket {
    /// `FileDescriptorName=` of the socket unit.
    pub name: String,
    /// Where it listens. None: at a Unix socket.
    pub address: Option<SocketAddr>,
    /// The socket.
    pub socket: OwnedFd,
}

impl Activated {
    /// Those of `LISTEN_FDS`. Is to be called before there are threads, and once: the variables are
    /// removed, so that no other process takes the sockets for its own.
    pub fn from_env() -> Self {
        let names = env::var_os("LISTEN_FDNAMES");
        let mut found = ListenFd::from_env();
        let names = names_of(names, found.len());
        let mut sockets = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            match take(&mut found, index) {
                Ok(Some((socket, address))) => sockets.push(Socket { name, address, socket }),
                Ok(None) => {}
                Err(error) => eprintln!("socket activation: `{name}` cannot be used: {error}"),
            }
        }
        Self(sockets)
    }

    /// The TCP socket for this address: one of exactly this name, else one that listens there, else
    /// one that listens on the same port of all addresses.
    pub fn tcp(&mut self, name: &str, wanted: SocketAddr) -> Option<TcpListener> {
        let fits = |one: &Socket, exactly: bool| {
            one.address.is_some_and(|at| at == wanted || !exactly && covers(at, wanted))
        };
        let by = |test: &dyn Fn(&Socket) -> bool| self.0.iter().position(test);
        let index = by(&|one| one.name == name && one.address.is_some())
            .or_else(|| by(&|one| fits(one, true)))
            .or_else(|| by(&|one| fits(one, false)))?;
        Some(self.0.swap_remove(index).socket.into())
    }

    /// All that were not taken.
    pub fn rest(self) -> Vec<Socket> {
        self.0
    }
}

/// Whether a socket bound to `at` gets the connections to `wanted`.
pub(super) fn covers(at: SocketAddr, wanted: SocketAddr) -> bool {
    let any = match at.ip() {
        IpAddr::V4(own) => own.is_unspecified() && wanted.is_ipv4(),
        // systemd's default for `ListenStream=PORT`, which takes IPv4 connections as well.
        IpAddr::V6(own) => own.is_unspecified(),
    };
    any && at.port() == wanted.port()
}

/// Names that were not given are `unknown`, as `sd_listen_fds_with_names(3)` has it.
fn names_of(names: Option<OsString>, count: usize) -> Vec<String> {
    let names = names.map(|names| names.to_string_lossy().into_owned()).unwrap_or_default();
    let names = names.split(':').filter(|name| !name.is_empty()).map(str::to_owned);
    names.chain(std::iter::repeat("unknown".to_owned())).take(count).collect()
}

fn take(found: &mut ListenFd, index: usize) -> io::Result<Option<(OwnedFd, Option<SocketAddr>)>> {
    // An error leaves the socket where it is.
    if let Ok(Some(unix)) = found.take_unix_listener(index) {
        return listening(unix.into()).map(|socket| Some((socket, None)));
    }
    let Some(tcp) = found.take_tcp_listener(index)? else { return Ok(None) };
    let address = tcp.local_addr()?;
    listening(tcp.into()).map(|socket| Some((socket, Some(address))))
}

/// `Accept=yes` would pass connections.
fn listening(socket: OwnedFd) -> io::Result<OwnedFd> {
    if !rustix::net::sockopt::socket_acceptconn(socket.as_fd())? {
        let what = "it does not listen; sockets are expected, not connections (Accept=no)";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 512];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    }

    #[test]
    fn paths_and_abstract_names_are_spoken_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str(), None).unwrap();
        notifier.ready("two\nlines");
        assert_eq!(heard(&manager), "READY=1\nSTATUS=two lines");
        notifier.main_process();
        assert_eq!(heard(&manager), format!("MAINPID={}", std::process::id()));
        notifier.reloading();
        assert!(heard(&manager).starts_with("RELOADING=1\nMONOTONIC_USEC="));

        let name = format!("pillion-notify-{}", std::process::id());
        let address = UnixAddress::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::to(format!("@{name}").as_ref(), None).unwrap();
        notifier.stopping();
        assert_eq!(heard(&manager), "STOPPING=1\nSTATUS=draining");
        drop(manager);
        notifier.stopping();
        assert!(Notifier::to("vsock:2:1234".as_ref(), None).is_err());
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let own = std::process::id().to_string();
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(Some("1000000"), Some(&own)), second);
        assert_eq!(watchdog(Some("1000000"), None), second);
        assert_eq!(watchdog(Some("1000000"), Some("1")), None);
        for bad in [None, Some(""), Some("0"), Some("soon")] {
            assert_eq!(watchdog(bad, None), None);
        }
    }

    #[test]
    fn sockets_are_found_by_name_then_by_address_then_by_port() {
        let socket = |name: &str, at: &str| {
            let listener = TcpListener::bind(at).unwrap();
            let address = listener.local_addr().unwrap();
            let one = Socket { name: name.into(), address: Some(address), socket: listener.into() };
            (one, address)
        };
        let (first, loopback) = socket("unknown", "127.0.0.1:0");
        let (second, every) = socket("unknown", "0.0.0.0:0");
        let (third, named) = socket("admin", "127.0.0.1:0");
        let mut all = Activated(vec![second, first, third]);
        assert!(all.tcp("xds", "127.0.0.1:1".parse().unwrap()).is_none());
        let found = all.tcp("inbound", SocketAddr::from(([127, 0, 0, 1], every.port()))).unwrap();
        assert_eq!(found.local_addr().unwrap(), every);
        assert_eq!(all.tcp("xds", loopback).unwrap().local_addr().unwrap(), loopback);
        assert_eq!(all.tcp("admin", loopback).unwrap().local_addr().unwrap(), named);
        assert!(all.rest().is_empty());
    }

    #[test]
    fn names_are_made_up_where_they_are_missing() {
        assert_eq!(names_of(Some("a:b".into()), 3), ["a", "b", "unknown"]);
        assert_eq!(names_of(None, 1), ["unknown"]);
        assert_eq!(names_of(Some("a:b".into()), 1), ["a"]);
    }
}
