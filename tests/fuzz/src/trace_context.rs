//! `traceparent`, `tracestate` and B3: what is read can be written, and read again as the same.

use http::{HeaderMap, HeaderName, HeaderValue};
use pillion_proxy::telemetry::trace::TraceContext;

const NAMES: &[&str] = &[
    "traceparent",
    "tracestate",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-b3-flags",
];

/// Lines of a header each: its first byte chooses the name.
pub(super) fn target(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some((choice, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { continue };
        let name = NAMES[usize::from(*choice) % NAMES.len()];
        headers.append(HeaderName::from_static(name), value);
    }
    let Some(context) = TraceContext::extract(&headers) else { return };
    let mut next = HeaderMap::new();
    context.inject(&mut next);
    let again = TraceContext::extract(&next).expect("what we write can be read");
    // Who spoke B3 is told in both ways, and the first of them counts.
    let known = |one: &TraceContext| (one.trace_id, one.span_id, one.sampled, one.state.clone());
    assert_eq!(known(&again), known(&context));
}
