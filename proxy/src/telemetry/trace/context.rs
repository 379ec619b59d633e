//! Trace context on the wire: `traceparent` and `tracestate` (W3C Trace Context), B3 read too.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::model::names::TRACEPARENT;
use crate::telemetry::hex;

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3_SINGLE: HeaderName = HeaderName::from_static("b3");
const B3_TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");
/// List members that must be passed on (W3C Trace Context, section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl TraceId {
    /// Of its two halves.
    pub fn new(high: u64, low: u64) -> Self {
        Self(u128::from(high) << 64 | u128::from(low))
    }

    /// Its last eight bytes, which are the random ones everywhere.
    pub fn low(self) -> u64 {
        (self.0 & u128::from(u64::MAX)) as u64
    }

    /// As bytes, for OTLP.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is passed from hop to hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Of the whole trace.
    pub trace_id: TraceId,
    /// Of this hop's span, or of the parent where it came in.
    pub span_id: u64,
    /// Whether it is recorded.
    pub sampled: bool,
    /// `tracestate`, passed on as it came. Empty: none.
    pub state: String,
    /// The caller speaks B3: it is told in B3 too.
    pub b3: B3,
}

/// How a caller told its context in B3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum B3 {
    /// Not.
    #[default]
    No,
    /// `b3`
    Single,
    /// `x-b3-traceid` and its like.
    Multi,
}

impl TraceContext {
    /// The beginning of a trace.
    pub fn root(trace_id: TraceId, span_id: u64, sampled: bool) -> Self {
        Self { trace_id, span_id, sampled, state: String::new(), b3: B3::No }
    }

    /// The next hop of the same trace.
    pub fn child(&self, span_id: u64, sampled: bool) -> Self {
        Self { span_id, sampled, ..self.clone() }
    }

    /// The context that a request brings: `traceparent`, else B3. None: none, or an invalid one,
    /// and then a new trace begins.
    pub fn extract(headers: &HeaderMap) -> Option<Self> {
        Self::extract_with(headers, true)
    }

    /// The same where it is known whether there may be a `tracestate` (`stated`).
    pub fn extract_with(headers: &HeaderMap, stated: bool) -> Option<Self> {
        let mut lines = headers.get_all(TRACEPARENT).iter();
        if let Some(first) = lines.next() {
            // Two of them: there is no telling which is right.
            if lines.next().is_some() {
                return None;
            }
            let mut context = parse(first.as_bytes())?;
            if stated {
                context.state = state(headers);
            }
            return Some(context);
        }
        b3(headers)
    }

    /// Put it onto a request, in place of whatever is there.
    pub fn inject(&self, headers: &mut HeaderMap) {
        self.inject_with(headers, true);
    }

    /// The same where it is known whether there may be a `tracestate` (`stated`).
    pub fn inject_with(&self, headers: &mut HeaderMap, stated: bool) {
        let mut text = *b"00-................................-................-00";
        hex::put(&mut text[3..35], self.trace_id.0);
        hex::put(&mut text[36..52], u128::from(self.span_id));
        hex::put(&mut text[53..], u128::from(self.sampled));
        if let Ok(value) = HeaderValue::from_bytes(&text) {
            // In its place, where it is one: `insert` makes room for one more even then.
            let single = headers.len() == headers.keys_len();
            match headers.get_mut(TRACEPARENT).filter(|_| single) {
                Some(before) => *before = value,
                None => drop(headers.insert(TRACEPARENT, value)),
            }
        }
        if self.state.is_empty() {
            if stated {
                headers.remove(TRACESTATE);
            }
        } else if let Ok(value) = HeaderValue::from_str(&self.state) {
            headers.insert(TRACESTATE, value);
        }
        self.inject_b3(headers);
    }

    /// In place of what the caller sent, whose span is another one.
    fn inject_b3(&self, headers: &mut HeaderMap) {
        if self.b3 == B3::No {
            return;
        }
        let flag = if self.sampled { "1" } else { "0" };
        let (trace, span) = (self.trace_id.to_string(), format!("{:016x}", self.span_id));
        let pairs = match self.b3 {
            B3::No => vec![],
            B3::Single => vec![("b3", format!("{trace}-{span}-{flag}"))],
            B3::Multi => {
                headers.remove("x-b3-parentspanid");
                headers.remove("x-b3-flags");
                vec![
                    ("x-b3-traceid", trace),
                    ("x-b3-spanid", span),
                    ("x-b3-sampled", flag.to_owned()),
                ]
            }
        };
        for (name, value) in pairs {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

/// `version "-" trace-id "-" parent-id "-" trace-flags`, all lower-case hexadecimal. A later
/// version may go on after another `-`; version `ff` is forbidden.
fn parse(bytes: &[u8]) -> Option<TraceContext> {
    if bytes.len() < 55 || [2, 35, 52].iter().any(|at| bytes.get(*at) != Some(&b'-')) {
        return None;
    }
    let version = hex::read(bytes.get(..2)?)?;
    let fits = match version {
        0xff => false,
        0 => bytes.len() == 55,
        _ => bytes.len() == 55 || bytes.get(55) == Some(&b'-'),
    };
    let high = hex::read(bytes.get(3..19)?)?;
    let low = hex::read(bytes.get(19..35)?)?;
    let span_id = hex::read(bytes.get(36..52)?)?;
    let flags = hex::read(bytes.get(53..55)?)?;
    (fits && high | low != 0 && span_id != 0).then(|| TraceContext {
        trace_id: TraceId::new(high, low),
        span_id,
        sampled: flags & 1 == 1,
        state: String::new(),
        b3: B3::No,
    })
}

/// All lines as one list; empty members are dropped, and the whole if there are too many.
fn state(headers: &HeaderMap) -> String {
    let lines = headers.get_all(TRACESTATE).iter().filter_map(|line| line.to_str().ok());
    let members: Vec<&str> = lines
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|member| !member.is_empty())
        .collect();
    let mut keys: Vec<&str> = Vec::with_capacity(members.len());
    for member in &members {
        match member.split_once('=') {
            Some((key, value)) if is_key(key) && is_value(value) && !keys.contains(&key) => {
                keys.push(key);
            }
            // What is wrong anywhere is wrong as a whole (section 3.3.1).
            _ => return String::new(),
        }
    }
    if members.len() <= MAX_MEMBERS { members.join(",") } else { String::new() }
}

/// A simple key, or `tenant@system`.
fn is_key(key: &str) -> bool {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-*/@".contains(c);
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let parts: Vec<&str> = key.split('@').collect();
    let sized = match parts.as_slice() {
        [simple] => simple.len() <= 256,
        [tenant, system] => tenant.len() <= 241 && (1..=14).contains(&system.len()),
        _ => false,
    };
    sized && key.starts_with(first) && key.chars().all(fine)
}

/// Up to 256 printable characters without comma and equals sign, not ending with a space.
fn is_value(value: &str) -> bool {
    let fine = |c: char| (' '..='~').contains(&c) && c != ',' && c != '=';
    (1..=256).contains(&value.len()) && value.chars().all(fine) && !value.ends_with(' ')
}

/// B3, single header or several; 8-byte trace ids are filled up with zeros.
fn b3(headers: &HeaderMap) -> Option<TraceContext> {
    let header = |name: HeaderName| headers.get(name)?.to_str().ok();
    if let Some(single) = header(B3_SINGLE) {
        let mut parts = single.split('-');
        let (trace, span) = (parts.next()?, parts.next()?);
        let context = from_b3(trace, span, parts.next().unwrap_or("0"))?;
        return Some(TraceContext { b3: B3::Single, ..context });
    }
    let trace_id = header(B3_TRACE_ID)?;
    let sampled = match header(B3_FLAGS) {
        Some("1") => "d",
        _ => header(B3_SAMPLED).unwrap_or("0"),
    };
    let context = from_b3(trace_id, header(B3_SPAN_ID)?, sampled)?;
    Some(TraceContext { b3: B3::Multi, ..context })
}

fn from_b3(trace: &str, span: &str, sampled: &str) -> Option<TraceContext> {
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 {
        return None;
    }
    let read = |text: &str| hex::read(text.to_ascii_lowercase().as_bytes());
    let (high, low) = trace.split_at_checked(trace.len() - 16)?;
    let trace_id = TraceId::new(read(high)?, read(low)?);
    let span_id = read(span)?;
    (trace_id.0 != 0 && span_id != 0).then(|| {
        let sampled = matches!(sampled, "1" | "d" | "true");
        TraceContext::root(trace_id, span_id, sampled)
    })
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
