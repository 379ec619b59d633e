//! What is looked at in the heads of HTTP/1 requests before they are parsed: everything about which
//! two parsers could disagree (RFC 9112 section 11.2, request smuggling), and limits. What it finds
//! on the way is not looked for again: where the body ends, and what the client wants of the
//! connection.

use http::StatusCode;

use super::h1::Framing;

/// Limits and tolerances.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of a head, and of what is beside the data of a chunked body.
    pub max_head: usize,
    /// Lines of a head after the first.
    pub max_lines: usize,
    /// Take HTTP/1.0.
    pub accept_http_10: bool,
    /// Of two lengths, the chunks count (`allow_chunked_length`). Default: such requests are refused.
    pub allow_chunked_length: bool,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// With which status.
    pub status: StatusCode,
    /// In words.
    pub why: &'static str,
}

/// A head that is larger than [`Rules::max_head`].
pub const TOO_LARGE: Verdict = Verdict {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    why: "the head is larger than max_request_headers_kb",
};

/// A head that does not become whole in time.
pub const TOO_SLOW: Verdict = Verdict {
    status: StatusCode::REQUEST_TIMEOUT,
    why: "the head took longer than request_headers_timeout",
};

/// A request that is none.
pub fn bad(why: &'static str) -> Verdict {
    Verdict { status: StatusCode::BAD_REQUEST, why }
}

/// What a head says about its body and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follows {
    /// Its body. `transfer-encoding` counts where there is a `content-length` too.
    pub body: Framing,
    /// It has both.
    pub two_lengths: bool,
    /// Upgrades and CONNECT: what follows may not be HTTP.
    pub through: bool,
    /// It is HTTP/1.0.
    pub http_10: bool,
    /// Another request may follow (RFC 9112 section 9.3).
    pub keep_alive: bool,
    /// The client waits for `100 Continue` (RFC 9110 section 10.1.1).
    pub expects: bool,
    /// The client reads trailers (`te: trailers`).
    pub trailers: bool,
}

/// Look at a whole head, without blank lines before it.
///
/// # Errors
/// It may not pass.
pub fn check(head: &[u8], rules: &Rules) -> Result<Follows, Verdict> {
    let mut lines = lines(head);
    let first = lines.next().unwrap_or_default();
    let First { connect, http_10 } = check_first(first, rules)?;
    let mut found = Found::default();
    let mut count = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        count += 1;
        if count > rules.max_lines {
            return Err(Verdict {
                why: "there are more header lines than max_headers_count",
                ..TOO_LARGE
            });
        }
        check_line(line, &mut found)?;
    }
    let two_lengths = found.chunked && found.length.is_some();
    if two_lengths && !rules.allow_chunked_length {
        return Err(bad("content-length and transfer-encoding contradict each other"));
    }
    if found.chunked && http_10 {
        return Err(bad("HTTP/1.0 knows no transfer-encoding"));
    }
    Ok(Follows {
        body: match found.length {
            _ if found.chunked => Framing::Chunked,
            Some(length @ 1..) => Framing::Length(length),
            _ => Framing::None,
        },
        two_lengths,
        through: connect || (found.upgrade && found.asks_upgrade && !http_10),
        http_10,
        keep_alive: !two_lengths && !found.close && (!http_10 || found.keep_alive),
        expects: found.expects && !http_10,
        trailers: found.trailers,
    })
}

/// What header lines say.
#[derive(Default)]
struct Found {
    length: Option<u64>,
    chunked: bool,
    host: bool,
    upgrade: bool,
    asks_upgrade: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
    trailers: bool,
}

/// Its lines, without what ends them.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut from = 0;
    memchr::memchr_iter(b'\n', head).map(move |at| {
        let line = head.get(from..at).unwrap_or_default();
        from = at + 1;
        line.strip_suffix(b"\r").unwrap_or(line)
    })
}

/// What the first line says.
struct First {
    connect: bool,
    http_10: bool,
}

/// `METHOD target HTTP/1.1`
fn check_first(line: &[u8], rules: &Rules) -> Result<First, Verdict> {
    let mut words = line.split(|b| *b == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let version = words.next();
    if !is_token(method) {
        return Err(bad("the method is no token"));
    }
    if target.is_empty() || has(target, |b| !b.is_ascii_graphic()) {
        return Err(bad("the request target has characters that must be escaped"));
    }
    if target.contains(&b'#') {
        return Err(bad("the request target has a fragment"));
    }
    if target == b"*" && method != b"OPTIONS" {
        return Err(bad("only OPTIONS has the request target `*`"));
    }
    let upgrade = |why| Verdict { status: StatusCode::UPGRADE_REQUIRED, why };
    match version {
        Some(b"HTTP/1.1") => {}
        Some(b"HTTP/1.0") if rules.accept_http_10 => {}
        Some(b"HTTP/1.0") => {
            return Err(upgrade("HTTP/1.0 is not accepted here (accept_http_10)"));
        }
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(upgrade("this version of HTTP is not spoken here"));
        }
        None => return Err(upgrade("HTTP/0.9 is not accepted here")),
        Some(_) => return Err(bad("the version of HTTP is none")),
    }
    if words.next().is_some() {
        return Err(bad("the request target has a space"));
    }
    Ok(First { connect: method == b"CONNECT", http_10: version == Some(b"HTTP/1.0") })
}

fn check_line(line: &[u8], found: &mut Found) -> Result<(), Verdict> {
    if line.first().is_some_and(|b| matches!(b, b' ' | b'\t')) {
        return Err(bad("a header line is folded (RFC 9112 section 5.2)"));
    }
    let Some(colon) = memchr::memchr(b':', line) else {
        return Err(bad("a header line has no colon"));
    };
    let (name, value) = line.split_at(colon);
    if !is_token(name) {
        return Err(bad("a header name is no token"));
    }
    let value = value.get(1..).unwrap_or_default();
    if has(value, |b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(bad("a header value has control characters"));
    }
    let value = value.trim_ascii();
    match name.len() {
        2 if name.eq_ignore_ascii_case(b"te") => {
            found.trailers |= words(value).any(|word| word.eq_ignore_ascii_case(b"trailers"));
        }
        4 if name.eq_ignore_ascii_case(b"host") => {
            if std::mem::replace(&mut found.host, true) {
                return Err(bad("there is more than one `host` header"));
            }
            if value.iter().any(|b| matches!(b, b' ' | b'\t' | b'/' | b'?' | b'#' | b'\\')) {
                return Err(bad("`host` is no host"));
            }
        }
        6 if name.eq_ignore_ascii_case(b"expect") => {
            found.expects |= value.eq_ignore_ascii_case(b"100-continue");
        }
        7 if name.eq_ignore_ascii_case(b"upgrade") => {
            found.upgrade |= !value.eq_ignore_ascii_case(b"h2c");
        }
        10 if name.eq_ignore_ascii_case(b"connection") => {
            for word in words(value) {
                found.close |= word.eq_ignore_ascii_case(b"close");
                found.keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
                found.asks_upgrade |= word.eq_ignore_ascii_case(b"upgrade");
            }
        }
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            let length = length(value).ok_or_else(|| bad("content-length is no length"))?;
            if found.length.replace(length).is_some() {
                return Err(bad("there is more than one content-length"));
            }
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            if found.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Verdict {
                    status: StatusCode::NOT_IMPLEMENTED,
                    why: "`chunked` is the only transfer-encoding that is known",
                });
            }
            found.chunked = true;
        }
        _ => {}
    }
    Ok(())
}

/// The words of a list.
fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii)
}

fn length(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

/// RFC 9110 section 5.6.2.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

fn is_token(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().fold(true, |all, b| all & TOKEN[usize::from(*b)])
}

/// Whether any byte is like that. Without a branch for each, so that many are looked at at once.
fn has(bytes: &[u8], unwanted: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(false, |found, b| found | unwanted(*b))
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
