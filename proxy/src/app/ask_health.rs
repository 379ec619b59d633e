//! `pillion-proxy health`: asks a running proxy whether it serves.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// The answer to `/ready` has two lines.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// What `pillion-proxy health` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Health {
    /// Port of the proxy's admin endpoint on loopback.
    #[arg(long, value_name = "PORT", default_value_t = 15000)]
    pub admin_port: u16,
    /// How long the answer may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout_s: u64,
}

/// Exits with 0 when the proxy is ready, as Envoy's `/ready` means it; says why not.
pub(super) fn run(args: &Health) -> ExitCode {
    match ask(args) {
        Ok((200, text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok((status, text)) => {
            println!("{status} {text}");
            ExitCode::FAILURE
        }
        Err(error) => {
            let port = args.admin_port;
            eprintln!("pillion-proxy health: no answer at 127.0.0.1:{port}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask(args: &Health) -> std::io::Result<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.admin_port));
    let limit = Duration::from_secs(args.timeout_s);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| std::io::Error::other("it is not HTTP"))
}

/// Status and body of an HTTP/1.1 answer that is not chunked.
fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(with: &'static str) -> std::io::Result<(u16, String)> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let admin_port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).unwrap();
            stream.write_all(with.as_bytes()).unwrap();
        });
        let answer = ask(&Health { admin_port, timeout_s: 60 });
        server.join().unwrap();
        answer
    }

    #[test]
    fn the_answer_is_read() {
        let ready = answered("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nLIVE\n");
        assert_eq!(ready.unwrap(), (200, "LIVE".to_owned()));
        let draining = answered("HTTP/1.1 503 Service Unavailable\r\n\r\nDRAINING\n");
        assert_eq!(draining.unwrap(), (503, "DRAINING".to_owned()));
        assert!(answered("SSH-2.0-nonsense\r\n").is_err());
        assert!(answered("").is_err());
    }
}
