//! Accepting, with every error put in its class: an error of one connection is nobody else's.

use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::sleep;

use super::Io;
use super::original_dst::unmapped;
use crate::model::listener::Address;

/// Shortest pause after the process ran out of something.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// One worker's end of a listening socket.
#[derive(Debug)]
pub struct Acceptor {
    inner: Inner,
    pause: Duration,
}

#[derive(Debug)]
enum Inner {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What an error of `accept(2)` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// That connection is gone; the next may be fine.
    Connection,
    /// Out of descriptors or memory: wait.
    Exhausted,
    /// The listening socket itself is broken.
    Permanent,
}

impl Acceptor {
    pub(crate) fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        Ok(Self { inner: Inner::Tcp(TcpListener::from_std(listener)?), pause: PAUSE_MIN })
    }

    pub(crate) fn unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        Ok(Self { inner: Inner::Unix(UnixListener::from_std(listener)?), pause: PAUSE_MIN })
    }

    /// The next connection (with `TCP_NODELAY`) and its peer's address. Connections that failed
    /// before we got them are passed over; out of file descriptors or memory it waits, longer each
    /// time, up to a second. Safe to drop at any await.
    ///
    /// # Errors
    /// Only when the listening socket is broken: accepting again is useless.
    pub async fn accept(&mut self) -> io::Result<(Io, Address)> {
        loop {
            let error = match self.accept_once().await {
                Ok(accepted) => {
                    self.pause = PAUSE_MIN;
                    return Ok(accepted);
                }
                Err(error) => error,
            };
            match classify(&error) {
                Class::Connection => {
                    tracing::debug!(%error, "a connection failed before it was accepted")
                }
                Class::Permanent => return Err(error),
                Class::Exhausted => {
                    let pause = jittered(self.pause, fastrand::f64());
                    tracing::warn!(%error, ?pause, "cannot accept connections for now");
                    self.pause = (self.pause * 2).min(PAUSE_MAX);
                    sleep(pause).await;
                }
            }
        }
    }

    async fn accept_once(&self) -> io::Result<(Io, Address)> {
        match &self.inner {
            Inner::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // Fails only for a peer that has left already; then the first read says so.
                let _ = stream.set_nodelay(true);
                Ok((Io::Tcp(stream), Address::Socket(unmapped(peer))))
            }
            Inner::Unix(listener) => {
                let (stream, peer) = listener.accept().await?;
                let path = peer.as_pathname().map(Into::into).unwrap_or_default();
                Ok((Io::Unix(stream), Address::Pipe(path)))
            }
        }
    }
}

fn classify(error: &io::Error) -> Class {
    use rustix::io::Errno;
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Class::Exhausted,
        Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP | Errno::FAULT) => {
            Class::Permanent
        }
        // ECONNABORTED, EINTR, EPERM (firewall), and pending network errors of the new socket,
        // which accept(2) says to treat as "try again".
        _ => Class::Connection,
    }
}

/// Between half of it and all of it, so that the workers do not wake together.
fn jittered(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_fall_in_their_class() {
        use rustix::io::Errno;
        let class = |errno: Errno| classify(&io::Error::from_raw_os_error(errno.raw_os_error()));
        assert_eq!(class(Errno::CONNABORTED), Class::Connection);
        assert_eq!(class(Errno::PROTO), Class::Connection);
        assert_eq!(class(Errno::HOSTUNREACH), Class::Connection);
        assert_eq!(class(Errno::MFILE), Class::Exhausted);
        assert_eq!(class(Errno::NFILE), Class::Exhausted);
        assert_eq!(class(Errno::BADF), Class::Permanent);
        assert_eq!(classify(&io::Error::other("no number")), Class::Connection);
    }

    #[test]
    fn the_pause_is_between_half_and_all() {
        assert_eq!(jittered(PAUSE_MAX, 0.0), Duration::from_millis(500));
        assert_eq!(jittered(PAUSE_MAX, 1.0), PAUSE_MAX);
    }
}
