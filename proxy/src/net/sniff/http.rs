//! HTTP in plain text, from its request line (RFC 9112, section 3) or preface (RFC 9113, section 3.4).

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// No method is longer.
const METHOD_LIMIT: usize = 32;

/// Which HTTP it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
    /// HTTP/2 by prior knowledge.
    H2c,
}

impl Http {
    /// What filter chains call it: `http/1.0`, `http/1.1`, `h2c`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "http/1.0",
            Self::Http11 => "http/1.1",
            Self::H2c => "h2c",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    No,
    Undecided,
    Yes(Http),
}

pub(super) fn parse(bytes: &[u8]) -> Found {
    if bytes.starts_with(PREFACE) {
        return Found::Yes(Http::H2c);
    }
    if PREFACE.starts_with(bytes) {
        return Found::Undecided;
    }
    // An empty line before the request line is allowed.
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let method = bytes.iter().take_while(|byte| is_token(**byte)).count();
    match bytes.get(method) {
        _ if method > METHOD_LIMIT => return Found::No,
        None => return Found::Undecided,
        Some(b'\r') if bytes.len() == 1 => return Found::Undecided,
        Some(b' ') if method > 0 => {}
        Some(_) => return Found::No,
    }
    let target = &bytes[method + 1..];
    let end = target.iter().position(|byte| *byte == b'\n');
    let line = &target[..end.unwrap_or(target.len())];
    // Control characters have no place in a request line: this is none, and will not become one.
    let is_text = |byte: &u8| (b' '..0x7f).contains(byte) || *byte == b'\r' || *byte >= 0x80;
    if !line.iter().all(is_text) {
        return Found::No;
    }
    if end.is_none() {
        return Found::Undecided;
    }
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.ends_with(b" HTTP/1.1") {
        Found::Yes(Http::Http11)
    } else if line.ends_with(b" HTTP/1.0") {
        Found::Yes(Http::Http10)
    } else {
        Found::No
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
