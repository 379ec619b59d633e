//! Headers of the PROXY protocol: reading and writing them, without a socket and without state.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>, and where that leaves a choice, as Envoy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::proxy_protocol::{Header, Version};

/// What headers of version 2 begin with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What headers of version 1 begin with.
const WORD: &[u8; 6] = b"PROXY ";
/// Longest header of version 1 that is waited for: the specification's 107 bytes, and one.
const LONGEST_LINE: usize = 108;
/// Bytes of version 2 before the addresses.
const FIXED: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No header.
    No,
    /// More bytes are needed to know.
    Undecided,
    /// A header that cannot be taken, and why.
    Bad(Version, &'static str),
    /// A header.
    Whole(Read),
}

/// A header that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// How it was written.
    pub version: Version,
    /// Its bytes, up to where the connection's own begin.
    pub length: usize,
    /// The client, and where it was going. None: the sender speaks for itself.
    pub ends: Option<(SocketAddr, SocketAddr)>,
}

/// Looks for a header at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> Found {
    if bytes.starts_with(SIGNATURE) {
        return binary(bytes);
    }
    if bytes.starts_with(WORD) {
        return line(bytes);
    }
    if SIGNATURE.starts_with(bytes) || WORD.starts_with(bytes) {
        return Found::Undecided;
    }
    Found::No
}

/// The header for a connection between these ends; None, or addresses of two kinds: the sender speaks for itself.
pub fn write(header: &Header, ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let ends = ends.filter(|(source, destination)| source.is_ipv4() == destination.is_ipv4());
    match header.version {
        Version::V1 => write_line(ends).into_bytes(),
        Version::V2 => write_binary(&header.tlvs, ends),
    }
}

fn line(bytes: &[u8]) -> Found {
    let bad = |why| Found::Bad(Version::V1, why);
    let looked = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = looked.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() >= LONGEST_LINE {
            bad("the line has no end")
        } else {
            Found::Undecided
        };
    };
    let Ok(text) = std::str::from_utf8(&looked[..end]) else { return bad("the line is no text") };
    let whole = |ends| Found::Whole(Read { version: Version::V1, length: end + 2, ends });
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        [_, "UNKNOWN", ..] => whole(None),
        [_, "TCP4", from, to, from_port, to_port] => {
            match (from.parse::<Ipv4Addr>(), to.parse::<Ipv4Addr>(), port(from_port), port(to_port))
            {
                (Ok(from), Ok(to), Some(source), Some(destination)) => {
                    whole(Some(((from, source).into(), (to, destination).into())))
                }
                _ => bad("expected two IPv4 addresses and two ports"),
            }
        }
        [_, "TCP6", from, to, from_port, to_port] => {
            match (from.parse::<Ipv6Addr>(), to.parse::<Ipv6Addr>(), port(from_port), port(to_port))
            {
                (Ok(from), Ok(to), Some(source), Some(destination)) => {
                    whole(Some(((from, source).into(), (to, destination).into())))
                }
                _ => bad("expected two IPv6 addresses and two ports"),
            }
        }
        _ => bad("expected UNKNOWN, or TCP4 or TCP6 with two addresses and two ports"),
    }
}

/// Digits only: the standard library takes a sign too.
fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

fn binary(bytes: &[u8]) -> Found {
    let bad = |why| Found::Bad(Version::V2, why);
    let Some(&[command, kind, high, low]) = bytes.get(SIGNATURE.len()..FIXED) else {
        return Found::Undecided;
    };
    if command >> 4 != 2 {
        return bad("it is not version 2");
    }
    let size = usize::from(u16::from_be_bytes([high, low]));
    let Some(rest) = bytes.get(FIXED..FIXED + size) else { return Found::Undecided };
    let whole = |ends| Found::Whole(Read { version: Version::V2, length: FIXED + size, ends });
    match (command & 15, kind >> 4, kind & 15) {
        // The sender's own connection, such as a health check; or it says no addresses.
        (0, ..) | (1, 0, 0) => whole(None),
        (1, 1, 1 | 2) => match rest.first_chunk::<12>() {
            Some(at) => whole(Some((
                (Ipv4Addr::new(at[0], at[1], at[2], at[3]), u16::from_be_bytes([at[8], at[9]]))
                    .into(),
                (Ipv4Addr::new(at[4], at[5], at[6], at[7]), u16::from_be_bytes([at[10], at[11]]))
                    .into(),
            ))),
            None => bad("too short for two IPv4 addresses"),
        },
        (1, 2, 1 | 2) => match rest.first_chunk::<36>() {
            Some(at) => {
                let address = |from: usize| {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&at[from..from + 16]);
                    Ipv6Addr::from(octets)
                };
                whole(Some((
                    (address(0), u16::from_be_bytes([at[32], at[33]])).into(),
                    (address(16), u16::from_be_bytes([at[34], at[35]])).into(),
                )))
            }
            None => bad("too short for two IPv6 addresses"),
        },
        (1, ..) => bad("expected addresses of IPv4 or IPv6"),
        _ => bad("unknown command"),
    }
}

fn write_line(ends: Option<(SocketAddr, SocketAddr)>) -> String {
    let Some((source, destination)) = ends else { return "PROXY UNKNOWN\r\n".to_owned() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (source.ip(), destination.ip());
    format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port())
}

fn write_binary(tlvs: &[(u8, Vec<u8>)], ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    const STREAM: u8 = 1;
    let mut body = Vec::new();
    let (command, family) = match ends {
        None => (0, 0),
        Some((source, destination)) => {
            for address in [source.ip(), destination.ip()] {
                match address {
                    IpAddr::V4(address) => body.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => body.extend_from_slice(&address.octets()),
                }
            }
            body.extend_from_slice(&source.port().to_be_bytes());
            body.extend_from_slice(&destination.port().to_be_bytes());
            for (kind, value) in tlvs {
                body.push(*kind);
                body.extend_from_slice(
                    &u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes(),
                );
                body.extend_from_slice(value);
            }
            (1, if source.is_ipv4() { 0x10 | STREAM } else { 0x20 | STREAM })
        }
    };
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[0x20 | command, family]);
    header.extend_from_slice(&u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes());
    header.extend_from_slice(&body);
    header
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
