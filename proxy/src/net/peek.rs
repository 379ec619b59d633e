//! Looking at the first bytes of a connection and leaving them where they are.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, Interest, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Io;
use super::io::Socket;
use super::proxy_protocol::{self, Found};
use super::sniff::{LIMIT, Sniffed, inspect};
use crate::model::listener::Inspect;

/// Enough for most first packets.
const FIRST_LOOK: usize = 2048;

/// Inspects a new connection. No byte is taken from it, and where `what` asks for neither TLS nor
/// HTTP it returns at once, so that a server-first protocol is not held up.
///
/// `limit` is the longest that it waits for the client to speak; zero: for ever. After that, what is
/// known is returned with `need_more` set. A client that closes its side is not waited for.
///
/// # Errors
/// The connection was reset.
pub async fn peek(io: &Io, what: Inspect, limit: Duration) -> io::Result<Sniffed> {
    if io.is_tls() || !(what.tls || what.http) {
        return Ok(Sniffed::default());
    }
    let mut known = inspect(&[], what);
    let mut decide = |bytes: &[u8], ended| decide(bytes, what, &mut known, ended);
    within(limit, look(io, &mut decide)).await?;
    Ok(known)
}

/// Takes a PROXY header off a new connection, and nothing of what comes after it. Waits for the client as [`peek`] does;
/// a client that closes before that is `Undecided`.
///
/// # Errors
/// The connection was reset; [`io::ErrorKind::TimedOut`] after `limit`.
pub async fn take_proxy_header(io: &mut Io, limit: Duration) -> io::Result<Found> {
    let (mut found, mut closed) = (Found::Undecided, false);
    let mut decide = |bytes: &[u8], ended| {
        found = proxy_protocol::parse(bytes);
        closed = ended || bytes.len() >= LIMIT;
        closed || found != Found::Undecided
    };
    within(limit, look(io, &mut decide)).await?;
    if found == Found::Undecided && !closed {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if let Found::Whole(header) = &found {
        // All of it is there.
        io.read_exact(&mut vec![0; header.length]).await?;
    }
    Ok(found)
}

/// Zero: as long as it takes.
async fn within(limit: Duration, look: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    if limit.is_zero() {
        return look.await;
    }
    timeout(limit, look).await.unwrap_or(Ok(()))
}

/// Until `decide` is content with the bytes; it is told whether there will be no more.
async fn look(io: &Io, decide: &mut impl FnMut(&[u8], bool) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; FIRST_LOOK];
    let mut seen = first(io, &mut buffer).await?;
    if decide(&buffer[..seen], seen == 0) {
        return Ok(());
    }
    // To wait for more than what is there, readiness has to be cleared. On the stream itself that
    // would make a later read wait for bytes that have come already, so a second descriptor waits.
    let second = duplicate(io)?;
    loop {
        if seen == buffer.len() {
            buffer.resize((buffer.len() * 4).min(LIMIT), 0);
        }
        let closed = ready(&second).await?.is_read_closed();
        let looked = attempt(&second, || match peek_into(&second, &mut buffer)? {
            Some(now) if now > seen || closed => Ok(now),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        });
        let now = match looked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            looked => looked?,
        };
        let ended = now <= seen;
        seen = now;
        if decide(&buffer[..seen], ended) {
            return Ok(());
        }
    }
}

/// Whether there is nothing more to wait for.
fn decide(bytes: &[u8], what: Inspect, known: &mut Sniffed, ended: bool) -> bool {
    *known = inspect(bytes, what);
    if ended || bytes.len() >= LIMIT {
        known.need_more = false;
    }
    !known.need_more
}

async fn first(io: &Io, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        ready(io).await?;
        let looked =
            attempt(io, || peek_into(io, buffer)?.ok_or_else(|| io::ErrorKind::WouldBlock.into()));
        match looked {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            looked => return looked,
        }
    }
}

async fn ready(io: &Io) -> io::Result<Ready> {
    match io.socket() {
        Socket::Tcp(stream) => stream.ready(Interest::READABLE).await,
        Socket::Unix(stream) => stream.ready(Interest::READABLE).await,
    }
}

/// Clears readiness where `look` returns `WouldBlock`.
fn attempt(io: &Io, look: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
    match io.socket() {
        Socket::Tcp(stream) => stream.try_io(Interest::READABLE, look),
        Socket::Unix(stream) => stream.try_io(Interest::READABLE, look),
    }
}

/// The same socket under another descriptor.
fn duplicate(io: &Io) -> io::Result<Io> {
    let owned = io.as_fd().try_clone_to_owned()?;
    match io.socket() {
        Socket::Tcp(_) => TcpStream::from_std(owned.into()).map(Io::Tcp),
        Socket::Unix(_) => UnixStream::from_std(owned.into()).map(Io::Unix),
    }
}

/// None: nothing there yet.
fn peek_into(io: &Io, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match recv(io, buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, count)) => Ok(Some(count)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::model::listener::{Address, Transport};
    use crate::net::sniff::Http;
    use crate::net::{ConnectOptions, connect, listen};

    const BOTH: Inspect = Inspect { original_dst: false, tls: true, http: true };
    const LONG: Duration = Duration::from_secs(30);

    async fn pair() -> (Io, Io) {
        let listener = listen(&Address::Socket("127.0.0.1:0".parse().unwrap()), 16).unwrap();
        let client = connect(listener.address(), &ConnectOptions::default()).await.unwrap();
        let (server, _) = listener.acceptor().unwrap().accept().await.unwrap();
        (client, server)
    }

    #[tokio::test]
    async fn takes_nothing_and_waits_for_the_rest() {
        let (mut client, mut server) = pair().await;
        let line = format!("GET /{} HTTP/1.1\r\n", "x".repeat(5000));
        let whole = line.clone();
        let write = async move {
            for part in line.as_bytes().chunks(700) {
                client.write_all(part).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            client
        };
        let (_client, sniffed) = tokio::join!(write, peek(&server, BOTH, LONG));
        let sniffed = sniffed.unwrap();
        assert_eq!(sniffed.http, Some(Http::Http11));
        assert_eq!(sniffed.transport(), Transport::RawBuffer);
        let mut read = vec![0; whole.len()];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(read, whole.as_bytes());
    }

    #[tokio::test]
    async fn a_silent_client_costs_the_limit_and_a_server_first_one_nothing() {
        let (_client, server) = pair().await;
        let sniffed = peek(&server, BOTH, Duration::from_millis(20)).await.unwrap();
        assert!(sniffed.need_more);
        let nothing = peek(&server, Inspect::default(), Duration::ZERO).await.unwrap();
        assert_eq!(nothing, Sniffed::default());
    }

    #[tokio::test]
    async fn what_came_before_the_limit_can_still_be_read() {
        let (mut client, mut server) = pair().await;
        client.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
        let sniffed = peek(&server, BOTH, Duration::from_millis(50)).await.unwrap();
        assert_eq!((sniffed.transport, sniffed.need_more), (Some(Transport::Tls), true));
        let mut read = [0; 6];
        timeout(LONG, server.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(&read[..2], b"\x16\x03");
    }

    #[tokio::test]
    async fn a_client_that_closes_is_not_waited_for() {
        for sent in [&b""[..], b"GE"] {
            let (mut client, server) = pair().await;
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            let sniffed = peek(&server, BOTH, Duration::ZERO);
            let sniffed = timeout(LONG, sniffed).await.unwrap().unwrap();
            assert_eq!((sniffed.http, sniffed.need_more), (None, false));
        }
    }

    #[tokio::test]
    async fn a_proxy_header_is_taken_and_what_follows_is_left() {
        let (mut client, mut server) = pair().await;
        let writing = async move {
            for part in ["PROXY TCP4 192.0.2.1 192.0.2.2 ", "7 8\r", "\nGET"] {
                client.write_all(part.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            client
        };
        let (_client, found) = tokio::join!(writing, take_proxy_header(&mut server, LONG));
        let Found::Whole(header) = found.unwrap() else { panic!("no header") };
        assert_eq!(header.ends.unwrap().0, "192.0.2.1:7".parse().unwrap());
        let mut rest = [0; 3];
        server.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"GET");
    }

    #[tokio::test]
    async fn unix_sockets_too() {
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let sniffed = peek(&Io::Unix(far), BOTH, LONG).await.unwrap();
        assert_eq!(sniffed.http, Some(Http::H2c));
    }
}
