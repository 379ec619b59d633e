//! What is looked at in HTTP/1 requests before the parser sees them: everything about which two
//! parsers could disagree (RFC 9112 section 11.2, request smuggling), and limits.
//!
//! A state machine over bytes, without a socket: it follows heads and bodies, and says of each
//! head whether it may pass.

use http::StatusCode;

/// Limits and tolerances.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bytes of a head.
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

/// Where in a connection's bytes it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    Chunk(Chunk),
    /// Upgrades and CONNECT: whatever follows is not HTTP, or the connection ends.
    Through,
    /// The body is no body: the parser shall see no more than that.
    Broken,
}

/// Within a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// In a line with a size; so far.
    Size(u64),
    /// In an extension of that size.
    Extension(u64),
    /// In its data.
    Data(u64),
    /// In the end of the line after data.
    End,
    /// At the beginning of a trailer line.
    Trailer,
    /// Within one.
    Line,
}

/// Follows one connection.
#[derive(Debug)]
pub struct Guard {
    rules: Rules,
    state: State,
    /// Bytes of trailers, or of chunk extensions: both could go on for ever.
    idle_bytes: usize,
}

/// What may be passed on of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes may pass, and after them more is needed to say anything.
    Pass(usize),
    /// So many bytes may pass; what follows is a head that may not.
    Refuse(usize, Verdict),
    /// So many bytes may pass, and then nothing any more.
    End(usize),
}

impl Guard {
    /// At the beginning of a connection.
    pub fn new(rules: Rules) -> Self {
        Self { rules, state: State::Head, idle_bytes: 0 }
    }

    /// Nothing more will be looked at.
    pub fn is_through(&self) -> bool {
        self.state == State::Through
    }

    /// Waiting for a head, or in the middle of one.
    pub fn is_in_head(&self) -> bool {
        self.state == State::Head
    }

    /// Look at `bytes`, that follow what passed before. Heads are only passed whole.
    pub fn look(&mut self, bytes: &[u8]) -> Step {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match self.state {
                State::Through => return Step::Pass(bytes.len()),
                State::Broken => return Step::End(at),
                State::Head => match self.head(rest) {
                    Ok(Some(length)) => at += length,
                    Ok(None) => return Step::Pass(at),
                    Err(verdict) => return Step::Refuse(at, verdict),
                },
                State::Length(left) => {
                    let passed = left.min(rest.len() as u64);
                    let after = left - passed;
                    self.state = if after == 0 { State::Head } else { State::Length(after) };
                    at += usize::try_from(passed).unwrap_or(rest.len());
                }
                State::Chunk(chunk) => at += self.chunk(chunk, rest),
            }
        }
        Step::Pass(at)
    }

    /// The length of the head at the beginning, once it is whole.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Verdict> {
        let blank = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let whole = end_of_head(bytes.get(blank..).unwrap_or_default());
        let length = whole.map(|length| blank + length);
        if length.unwrap_or(bytes.len()) > self.rules.max_head {
            return Err(TOO_LARGE);
        }
        let Some(length) = length else { return Ok(None) };
        let head = bytes.get(blank..length).unwrap_or_default();
        self.state = check(head, &self.rules)?;
        self.idle_bytes = 0;
        Ok(Some(length))
    }

    /// How many bytes of a chunked body were looked at.
    fn chunk(&mut self, chunk: Chunk, bytes: &[u8]) -> usize {
        if let Chunk::Data(left) = chunk {
            let passed = left.min(bytes.len() as u64);
            let after = left - passed;
            self.state = State::Chunk(if after == 0 { Chunk::End } else { Chunk::Data(after) });
            return usize::try_from(passed).unwrap_or(bytes.len());
        }
        let Some(byte) = bytes.first().copied() else { return 0 };
        self.state = match self.next(chunk, byte) {
            Some(state) => state,
            None => State::Broken,
        };
        1
    }

    fn next(&mut self, chunk: Chunk, byte: u8) -> Option<State> {
        let after = |size| State::Chunk(if size == 0 { Chunk::Trailer } else { Chunk::Data(size) });
        Some(match (chunk, byte) {
            (Chunk::Size(size) | Chunk::Extension(size), b'\n') => after(size),
            (Chunk::Size(size), b'\r' | b';' | b' ' | b'\t') => {
                State::Chunk(Chunk::Extension(size))
            }
            (Chunk::Size(size), digit) => {
                let digit = u64::from((digit as char).to_digit(16)?);
                let size = size.checked_mul(16)?.checked_add(digit)?;
                State::Chunk(Chunk::Size(size))
            }
            (Chunk::Extension(size), _) => {
                self.count()?;
                State::Chunk(Chunk::Extension(size))
            }
            (Chunk::End, b'\r') => State::Chunk(Chunk::End),
            (Chunk::End, b'\n') => State::Chunk(Chunk::Size(0)),
            (Chunk::End | Chunk::Data(_), _) => return None,
            (Chunk::Trailer, b'\r') => State::Chunk(Chunk::Trailer),
            (Chunk::Trailer, b'\n') => State::Head,
            (Chunk::Line, b'\n') => State::Chunk(Chunk::Trailer),
            (Chunk::Trailer | Chunk::Line, _) => {
                self.count()?;
                State::Chunk(Chunk::Line)
            }
        })
    }

    /// A byte that brings nothing on.
    fn count(&mut self) -> Option<()> {
        self.idle_bytes += 1;
        (self.idle_bytes <= self.rules.max_head).then_some(())
    }
}

const TOO_LARGE: Verdict = Verdict {
    status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    why: "the head is larger than max_request_headers_kb",
};

fn bad(why: &'static str) -> Verdict {
    Verdict { status: StatusCode::BAD_REQUEST, why }
}

/// Where a head ends, its empty line included.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', bytes).find_map(|at| match bytes.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// The fields that decide where a request ends.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    host: bool,
    upgrade: bool,
    asks_upgrade: bool,
}

/// What follows a head.
fn check(head: &[u8], rules: &Rules) -> Result<State, Verdict> {
    let mut lines = lines(head);
    let first = lines.next().unwrap_or_default();
    let connect = check_first(first, rules)?;
    let mut framing = Framing::default();
    let mut count = 0;
    for line in lines.take_while(|line| !line.is_empty()) {
        count += 1;
        if count > rules.max_lines {
            return Err(Verdict {
                why: "there are more header lines than max_headers_count",
                ..TOO_LARGE
            });
        }
        check_line(line, &mut framing)?;
    }
    if framing.chunked && framing.length.is_some() && !rules.allow_chunked_length {
        return Err(bad("content-length and transfer-encoding contradict each other"));
    }
    Ok(if connect || (framing.upgrade && framing.asks_upgrade) {
        State::Through
    } else if framing.chunked {
        State::Chunk(Chunk::Size(0))
    } else {
        match framing.length {
            Some(length @ 1..) => State::Length(length),
            _ => State::Head,
        }
    })
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

/// `METHOD target HTTP/1.1`. Returns whether it is CONNECT.
fn check_first(line: &[u8], rules: &Rules) -> Result<bool, Verdict> {
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
    Ok(method == b"CONNECT")
}

fn check_line(line: &[u8], framing: &mut Framing) -> Result<(), Verdict> {
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
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    if has(value, |b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(bad("a header value has control characters"));
    }
    match name.len() {
        4 if name.eq_ignore_ascii_case(b"host") => {
            if std::mem::replace(&mut framing.host, true) {
                return Err(bad("there is more than one `host` header"));
            }
            if value.iter().any(|b| matches!(b, b' ' | b'\t' | b'/' | b'?' | b'#' | b'\\')) {
                return Err(bad("`host` is no host"));
            }
        }
        7 if name.eq_ignore_ascii_case(b"upgrade") => {
            framing.upgrade = !value.eq_ignore_ascii_case(b"h2c");
        }
        10 if name.eq_ignore_ascii_case(b"connection") => {
            let mut words = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
            framing.asks_upgrade |= words.any(|word| word.eq_ignore_ascii_case(b"upgrade"));
        }
        14 if name.eq_ignore_ascii_case(b"content-length") => {
            let length = length(value).ok_or_else(|| bad("content-length is no length"))?;
            if framing.length.replace(length).is_some() {
                return Err(bad("there is more than one content-length"));
            }
        }
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
            if framing.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Verdict {
                    status: StatusCode::NOT_IMPLEMENTED,
                    why: "`chunked` is the only transfer-encoding that is known",
                });
            }
            framing.chunked = true;
        }
        _ => {}
    }
    Ok(())
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
    !word.is_empty() && word.iter().all(|b| TOKEN[usize::from(*b)])
}

/// Whether any byte is like that. Without a branch for each, so that many are looked at at once.
fn has(bytes: &[u8], unwanted: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(false, |found, b| found | unwanted(*b))
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
