//! Decompression (Envoy: decompressor filter).

use std::sync::Arc;

use bytes::BytesMut;
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Body as _;

use super::super::body::AnswerBody;
use crate::http::body::{BodyError, BoxBody, RequestBody};
use crate::http::compression::Decoder;
use crate::http::transform::{Change, Changed};
use crate::model::compression::{Decompressor, Undo};
use crate::telemetry::stats::{Counter, Scope};

/// So little goes into the library at once: a byte may become a hundred thousand.
const SIP: usize = 256;
/// Less than this may be any number of times what came in.
const HARMLESS: u64 = 256 * 1024;

#[derive(Debug)]
pub(super) struct DecompressStats {
    request: Arc<DirectionStats>,
    response: Arc<DirectionStats>,
}

#[derive(Debug)]
struct DirectionStats {
    decompressed: Counter,
    not_decompressed: Counter,
    total_uncompressed_bytes: Counter,
    total_compressed_bytes: Counter,
}

impl DecompressStats {
    /// `decompressor.<name of the library's extension>.<coding>.request.|response.`
    pub(super) fn new(scope: &Scope, config: &Decompressor) -> Self {
        let prefix = format!("decompressor.{}.{}", config.name, config.coding.stat());
        let of = |direction: &str| {
            let counter = |name: &str| scope.counter(&format!("{prefix}.{direction}.{name}"));
            Arc::new(DirectionStats {
                decompressed: counter("decompressed"),
                not_decompressed: counter("not_decompressed"),
                total_uncompressed_bytes: counter("total_uncompressed_bytes"),
                total_compressed_bytes: counter("total_compressed_bytes"),
            })
        };
        Self { request: of("request"), response: of("response") }
    }
}

/// Decompresses the request, and tells the upstream that it may compress.
pub(super) fn request(
    config: &Decompressor,
    stats: &DecompressStats,
    request: &mut Request<RequestBody>,
) {
    if config.response.enabled && config.advertise {
        advertise(request.headers_mut(), config.coding.name());
    }
    if matches!(request.body(), RequestBody::Empty) {
        return;
    }
    let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
    let map = request.headers_mut();
    *request.body_mut() = match open(config, config.request, &stats.request, map) {
        Some(change) => RequestBody::Boxed(unpacked(body.boxed(), change)),
        None => body,
    };
}

/// Decompresses the answer.
pub(super) fn response(
    config: &Decompressor,
    stats: &DecompressStats,
    mut response: Response<AnswerBody>,
) -> Response<AnswerBody> {
    if response.body().is_end_stream() {
        return response;
    }
    match open(config, config.response, &stats.response, response.headers_mut()) {
        Some(change) => response.map(|body| AnswerBody::Boxed(unpacked(body.boxed(), change))),
        None => response,
    }
}

/// What the body has to go through, if it is for this decompressor.
fn open(
    config: &Decompressor,
    how: Undo,
    stats: &Arc<DirectionStats>,
    map: &mut HeaderMap,
) -> Option<Unpack> {
    let may = how.enabled && (how.ignore_no_transform || !forbids(map));
    let decoder = (may && is_first(map, config.coding.name()))
        .then(|| Decoder::new(config.coding).ok())
        .flatten();
    let Some(decoder) = decoder else {
        stats.not_decompressed.inc();
        return None;
    };
    stats.decompressed.inc();
    map.remove(CONTENT_LENGTH);
    drop_first(map);
    Some(Unpack {
        decoder,
        stats: Arc::clone(stats),
        max_ratio: config.max_ratio,
        compressed: 0,
        uncompressed: 0,
        names: [total_name(config, "compressed"), total_name(config, "uncompressed")],
    })
}

/// `x-envoy-decompressor-<name>-compressed-bytes`, a trailer.
fn total_name(config: &Decompressor, what: &str) -> Option<HeaderName> {
    format!("x-envoy-decompressor-{}-{what}-bytes", config.name).parse().ok()
}

fn unpacked(body: BoxBody, change: Unpack) -> BoxBody {
    Changed::boxed(body, change)
}

fn forbids(map: &HeaderMap) -> bool {
    let value = map.get(CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(',').any(|part| part.trim().eq_ignore_ascii_case("no-transform"))
}

/// The coding that was applied last stands last, but Envoy looks at the first, and so do we: more
/// than one is hardly ever seen.
fn is_first(map: &HeaderMap, coding: &str) -> bool {
    let value = map.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(',').next().is_some_and(|first| first.trim().eq_ignore_ascii_case(coding))
}

fn drop_first(map: &mut HeaderMap) {
    let value = map.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    let rest = value.and_then(|value| value.split_once(',')).map(|(_, rest)| rest.trim());
    match rest.and_then(|rest| HeaderValue::from_str(rest).ok()) {
        Some(rest) => map.insert(CONTENT_ENCODING, rest),
        None => map.remove(CONTENT_ENCODING),
    };
}

fn advertise(map: &mut HeaderMap, coding: &'static str) {
    let there = map.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    let name = |part: &str| part.split(';').next().unwrap_or("").trim().to_owned();
    if there.split(',').any(|part| name(part) == coding) {
        return;
    }
    let value = if there.is_empty() { coding.to_owned() } else { format!("{there},{coding}") };
    if let Ok(value) = HeaderValue::from_str(&value) {
        map.insert(ACCEPT_ENCODING, value);
    }
}

struct Unpack {
    decoder: Decoder,
    stats: Arc<DirectionStats>,
    max_ratio: u64,
    compressed: u64,
    uncompressed: u64,
    /// Trailers that tell both.
    names: [Option<HeaderName>; 2],
}

impl Change for Unpack {
    fn data(&mut self, piece: &[u8], _more: bool, out: &mut BytesMut) -> Result<(), BodyError> {
        for sip in piece.chunks(SIP) {
            let before = out.len();
            self.decoder.write(sip, out)?;
            let made = (out.len() - before) as u64;
            self.compressed += sip.len() as u64;
            self.uncompressed += made;
            self.stats.total_compressed_bytes.add(sip.len() as u64);
            self.stats.total_uncompressed_bytes.add(made);
            if self.uncompressed > HARMLESS
                && self.uncompressed > self.compressed.saturating_mul(self.max_ratio)
            {
                return Err("a compressed body is too large when decompressed".into());
            }
        }
        Ok(())
    }

    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        _out: &mut BytesMut,
    ) -> Result<Option<HeaderMap>, BodyError> {
        let mut trailers = trailers.unwrap_or_default();
        for (name, total) in self.names.iter_mut().zip([self.compressed, self.uncompressed]) {
            if let Some(name) = name.take() {
                trailers.insert(name, HeaderValue::from(total));
            }
        }
        Ok(Some(trailers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_taken_off_and_offered() {
        let mut map = HeaderMap::new();
        map.insert(CONTENT_ENCODING, HeaderValue::from_static("GZIP, br"));
        assert!(is_first(&map, "gzip") && !is_first(&map, "br"));
        drop_first(&mut map);
        assert_eq!(map[CONTENT_ENCODING], "br");
        drop_first(&mut map);
        assert!(map.is_empty());
        advertise(&mut map, "gzip");
        advertise(&mut map, "br");
        advertise(&mut map, "gzip");
        assert_eq!(map[ACCEPT_ENCODING], "gzip,br");
    }
}
