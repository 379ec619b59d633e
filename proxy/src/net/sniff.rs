//! Recognising what a connection speaks from its first bytes, without a socket and without state.
//!
//! What Envoy's `tls_inspector` and `http_inspector` find out.

mod client_hello;
mod http;

use client_hello::Hello;
pub use http::Http;

use crate::model::listener::{Inspect, Transport};

/// No ClientHello or request line that is longer than this is waited for.
pub const LIMIT: usize = 64 * 1024;

/// What the first bytes show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sniffed {
    /// What is spoken below the application. None: not known (yet), or not asked for.
    pub transport: Option<Transport>,
    /// Server name of the ClientHello, in lower case.
    pub sni: Option<String>,
    /// ALPN list of the ClientHello.
    pub alpn: Vec<String>,
    /// HTTP in plain text.
    pub http: Option<Http>,
    /// More bytes could tell more.
    pub need_more: bool,
}

impl Sniffed {
    /// The transport that filter chains match on: plain text where nothing else is known.
    pub fn transport(&self) -> Transport {
        self.transport.unwrap_or(Transport::RawBuffer)
    }

    /// The application protocols that filter chains match on: the ALPN list, or what the plain text
    /// turned out to be.
    pub fn application_protocols(&self) -> Vec<String> {
        match self.http {
            Some(http) => vec![http.as_str().to_owned()],
            None => self.alpn.clone(),
        }
    }

    fn undecided() -> Self {
        Self { need_more: true, ..Self::default() }
    }
}

/// Looks at the first bytes of a connection. Nothing is asked for: nothing is found, at once.
pub fn inspect(bytes: &[u8], what: Inspect) -> Sniffed {
    if what.tls {
        match client_hello::parse(bytes) {
            Hello::No => {}
            Hello::Undecided => return Sniffed::undecided(),
            Hello::Partial => {
                return Sniffed {
                    transport: Some(Transport::Tls),
                    need_more: bytes.len() < LIMIT,
                    ..Sniffed::default()
                };
            }
            Hello::Whole { sni, alpn } => {
                return Sniffed {
                    transport: Some(Transport::Tls),
                    sni,
                    alpn,
                    ..Sniffed::default()
                };
            }
        }
    }
    let transport = what.tls.then_some(Transport::RawBuffer);
    if !what.http {
        return Sniffed { transport, ..Sniffed::default() };
    }
    match http::parse(bytes) {
        http::Found::No => Sniffed { transport, ..Sniffed::default() },
        http::Found::Undecided => {
            Sniffed { transport, need_more: bytes.len() < LIMIT, ..Sniffed::default() }
        }
        http::Found::Yes(http) => Sniffed { transport, http: Some(http), ..Sniffed::default() },
    }
}

#[cfg(test)]
#[path = "sniff/tests.rs"]
mod tests;
