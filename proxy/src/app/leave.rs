//! `pillion-proxy leave`: what a container runtime calls before it stops an application.

use std::io::{Error, Read, Result, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use super::flags::Leave;

/// How long the sidecar may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Tell the sidecar, and wait.
pub(super) fn run(args: &Leave) -> ExitCode {
    if let Err(error) = post(args.admin_port) {
        eprintln!("pillion-proxy leave: admin port {}: {error}", args.admin_port);
        return ExitCode::FAILURE;
    }
    std::thread::sleep(Duration::from_secs(args.wait_s));
    ExitCode::SUCCESS
}

fn post(port: u16) -> Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let head = "POST /deregister HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n";
    stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let line = answer.lines().next().unwrap_or_default();
    if line.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(Error::other(line.to_owned())) }
}
