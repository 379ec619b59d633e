//! SNI and ALPN of a TLS ClientHello (RFC 8446, section 4.1.2; RFC 6066, section 3; RFC 7301).

use std::borrow::Cow;

/// Largest handshake message that is looked into; a hello with a key share for X25519MLKEM768 has
/// less than 2 KiB.
const MESSAGE_LIMIT: usize = 32 * 1024;

/// Largest record: 2^14, and some room for what TLS 1.2 allowed (RFC 8446, section 5.1).
const RECORD_LIMIT: usize = 16 * 1024 + 2048;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hello {
    /// This is no TLS.
    No,
    /// Too few bytes to say.
    Undecided,
    /// TLS, of which not all of the ClientHello is here.
    Partial,
    /// All of it. One that is damaged inside has no names: the handshake will say what is wrong.
    Whole { sni: Option<String>, alpn: Vec<String> },
}

pub(super) fn parse(bytes: &[u8]) -> Hello {
    // Record: type, version 3.x, length; then the message's type.
    let fits = |at: usize, test: fn(u8) -> bool| bytes.get(at).is_none_or(|byte| test(*byte));
    let plausible = fits(0, |byte| byte == HANDSHAKE)
        && fits(1, |byte| byte == 3)
        && fits(2, |byte| byte <= 4)
        && fits(5, |byte| byte == CLIENT_HELLO);
    if !plausible {
        return Hello::No;
    }
    if bytes.len() < 6 {
        return Hello::Undecided;
    }
    let Some(message) = message(bytes) else { return Hello::Whole { sni: None, alpn: Vec::new() } };
    match message {
        None => Hello::Partial,
        Some(body) => {
            let (mut sni, mut alpn) = (None, Vec::new());
            // What was read before the damage is kept.
            let _ = read(&body, &mut sni, &mut alpn);
            Hello::Whole { sni, alpn }
        }
    }
}

/// Body of the first handshake message, put together from its records. Outer None: damaged; inner
/// None: not all here.
#[allow(clippy::option_option, reason = "damaged, incomplete and complete are three things")]
fn message(bytes: &[u8]) -> Option<Option<Cow<'_, [u8]>>> {
    let mut rest = Reader(bytes);
    let mut whole: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        if let Some(header) = whole.get(..4) {
            let length =
                usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
            if length > MESSAGE_LIMIT {
                return None;
            }
            if whole.len() >= 4 + length {
                return Some(Some(match whole {
                    Cow::Borrowed(all) => Cow::Borrowed(&all[4..4 + length]),
                    Cow::Owned(all) => Cow::Owned(all[4..4 + length].to_vec()),
                }));
            }
        }
        match rest.0.first() {
            None => return Some(None),
            Some(&HANDSHAKE) => {}
            Some(_) => return None,
        }
        let Some(header) = rest.take(5) else { return Some(None) };
        let length = usize::from(header[3]) << 8 | usize::from(header[4]);
        if length == 0 || length > RECORD_LIMIT {
            return None;
        }
        let Some(payload) = rest.take(length) else { return Some(None) };
        if whole.is_empty() {
            whole = Cow::Borrowed(payload);
        } else {
            whole.to_mut().extend_from_slice(payload);
        }
    }
}

fn read(body: &[u8], sni: &mut Option<String>, alpn: &mut Vec<String>) -> Option<()> {
    let mut hello = Reader(body);
    hello.take(2 + 32)?; // version, random
    hello.short_vector()?; // session
    hello.vector()?; // cipher suites
    hello.short_vector()?; // compression
    let mut extensions = Reader(hello.vector()?);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let body = extensions.vector()?;
        match kind {
            SERVER_NAME => *sni = server_name(body),
            ALPN => *alpn = protocols(body),
            _ => {}
        }
    }
    Some(())
}

/// The first host name of the list; there may be no other kind.
fn server_name(body: &[u8]) -> Option<String> {
    let mut list = Reader(Reader(body).vector()?);
    while !list.0.is_empty() {
        let kind = list.u8()?;
        let name = list.vector()?;
        if kind == 0 {
            let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
            return (!name.is_empty()).then_some(name);
        }
    }
    None
}

/// Those that are text; nothing else could be matched.
fn protocols(body: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut list = Reader(Reader(body).vector().unwrap_or_default());
    while let Some(name) = list.short_vector() {
        if let Ok(name) = std::str::from_utf8(name) {
            found.push(name.to_owned());
        }
    }
    found
}

/// Takes from the front; None at the end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// With a length of one byte.
    fn short_vector(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// With a length of two bytes.
    fn vector(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }
}
