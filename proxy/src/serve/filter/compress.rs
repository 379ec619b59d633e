//! Compression (Envoy: compressor filter).

use std::sync::Arc;

use bytes::BytesMut;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY,
};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Body as _;

use super::super::body::AnswerBody;
use super::accept_encoding::{self, Choice};
use super::{Filter, Routed, effective};
use crate::http::body::{BodyError, RequestBody};
use crate::http::compression::Encoder;
use crate::http::transform::{Change, Changed};
use crate::model::compression::{Compressor, CompressorRoute, Direction, Library};
use crate::model::filter::FilterKind;
use crate::telemetry::stats::{Counter, Scope};

#[derive(Debug)]
pub(super) struct CompressStats {
    request: Arc<DirectionStats>,
    response: Arc<DirectionStats>,
    no_accept_header: Counter,
    header_identity: Counter,
    header_compressor_used: Counter,
    header_compressor_overshadowed: Counter,
    header_wildcard: Counter,
    header_not_valid: Counter,
    not_compressed_etag: Counter,
}

#[derive(Debug)]
struct DirectionStats {
    compressed: Counter,
    not_compressed: Counter,
    total_uncompressed_bytes: Counter,
    total_compressed_bytes: Counter,
    content_length_too_small: Counter,
}

impl CompressStats {
    /// `compressor.<name of the library's extension>.<coding>.[request.|response.]`
    pub(super) fn new(scope: &Scope, config: &Compressor) -> Self {
        let prefix = format!("compressor.{}.{}", config.name, config.library.coding().stat());
        let of = if config.response_named { format!("{prefix}.response") } else { prefix.clone() };
        // What `accept-encoding` said has no direction.
        let counter = |name: &str| scope.counter(&format!("{prefix}.{name}"));
        Self {
            request: Arc::new(DirectionStats::new(scope, &format!("{prefix}.request"))),
            response: Arc::new(DirectionStats::new(scope, &of)),
            no_accept_header: counter("no_accept_header"),
            header_identity: counter("header_identity"),
            header_compressor_used: counter("header_compressor_used"),
            header_compressor_overshadowed: counter("header_compressor_overshadowed"),
            header_wildcard: counter("header_wildcard"),
            header_not_valid: counter("header_not_valid"),
            not_compressed_etag: counter("not_compressed_etag"),
        }
    }
}

impl DirectionStats {
    fn new(scope: &Scope, prefix: &str) -> Self {
        let counter = |name: &str| scope.counter(&format!("{prefix}.{name}"));
        Self {
            compressed: counter("compressed"),
            not_compressed: counter("not_compressed"),
            total_uncompressed_bytes: counter("total_uncompressed_bytes"),
            total_compressed_bytes: counter("total_compressed_bytes"),
            content_length_too_small: counter("content_length_too_small"),
        }
    }
}

/// What a request said about its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    config: Arc<Compressor>,
    library: Library,
    accept: Option<HeaderValue>,
    /// Off on this route; the others still see that it is there.
    disabled: bool,
}

/// Compresses the request, where that is configured, and remembers what the answer may be.
pub(super) fn request(
    config: &Arc<Compressor>,
    route: Option<&CompressorRoute>,
    stats: &CompressStats,
    request: &mut Request<RequestBody>,
) -> Asked {
    let library = route.and_then(|route| route.library.as_ref()).map(|(_, library)| library);
    let library = library.unwrap_or(&config.library).clone();
    let accept = request.headers().get(ACCEPT_ENCODING).cloned();
    let remove = route.and_then(|route| route.remove_accept_encoding);
    if config.response.enabled && remove.unwrap_or(config.remove_accept_encoding) {
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    let disabled = route.is_some_and(|route| route.disabled);
    if let Some(direction) = config.request.as_ref().filter(|_| !disabled) {
        let fits = !matches!(request.body(), RequestBody::Empty)
            && direction.enabled
            && long_enough(request.headers(), direction, &stats.request)
            && of_type(request.headers(), direction)
            && !request.headers().contains_key(CONTENT_ENCODING);
        match fits.then(|| Encoder::new(&library)) {
            Some(Ok(encoder)) => {
                encoded(request.headers_mut(), &library);
                let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
                let squeeze = Squeeze { encoder, stats: Arc::clone(&stats.request) };
                *request.body_mut() = RequestBody::Boxed(Changed::boxed(body.boxed(), squeeze));
                stats.request.compressed.inc();
            }
            _ => stats.request.not_compressed.inc(),
        }
    } else {
        stats.request.not_compressed.inc();
    }
    Asked { config: Arc::clone(config), library, accept, disabled }
}

/// Compresses the answer, if the client takes that and the answer is worth it.
pub(super) fn response(
    asked: &Asked,
    stats: &CompressStats,
    (filters, routed): (&[Filter], Routed<'_>),
    mut response: Response<AnswerBody>,
) -> Response<AnswerBody> {
    let config = &asked.config;
    let direction = &config.response;
    let status = response.status();
    let map = response.headers();
    let big = direction.enabled && !asked.disabled && long_enough(map, direction, &stats.response);
    let compressible = big
        && of_type(map, direction)
        && !has_token(map.get(CACHE_CONTROL), "no-transform")
        && etag_allows(config, map, stats)
        && !map.contains_key(CONTENT_ENCODING)
        && !config.uncompressible.contains(&status);
    let goes = big
        && !response.body().is_end_stream()
        && accepted(asked, stats, (filters, routed), response.headers())
        && compressible;
    let encoder = if goes { Encoder::new(&asked.library).ok() } else { None };
    if compressible {
        vary(response.headers_mut());
    }
    let Some(encoder) = encoder else {
        stats.response.not_compressed.inc();
        return response;
    };
    stats.response.compressed.inc();
    let map = response.headers_mut();
    sanitize_etag(map);
    encoded(map, &asked.library);
    let squeeze = Squeeze { encoder, stats: Arc::clone(&stats.response) };
    response.map(|body| AnswerBody::Boxed(Changed::boxed(body.boxed(), squeeze)))
}

fn encoded(map: &mut HeaderMap, library: &Library) {
    map.remove(CONTENT_LENGTH);
    map.insert(CONTENT_ENCODING, HeaderValue::from_static(library.coding().name()));
}

/// A body of unknown length is long enough.
fn long_enough(map: &HeaderMap, direction: &Direction, stats: &DirectionStats) -> bool {
    let Some(length) = map.get(CONTENT_LENGTH) else { return true };
    let length = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
    let fits = length.is_some_and(|length| length >= direction.min_length);
    if !fits {
        stats.content_length_too_small.inc();
    }
    fits
}

fn media_type(map: &HeaderMap) -> &str {
    let kind = map.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    kind.split(';').next().unwrap_or("").trim()
}

fn of_type(map: &HeaderMap, direction: &Direction) -> bool {
    let kind = media_type(map);
    kind.is_empty() || direction.types.iter().any(|wanted| wanted == kind)
}

fn has_token(value: Option<&HeaderValue>, token: &str) -> bool {
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split([',', ' ']).any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn etag_allows(config: &Compressor, map: &HeaderMap, stats: &CompressStats) -> bool {
    let allowed = !(config.disable_on_etag && map.contains_key(ETAG));
    if !allowed {
        stats.not_compressed_etag.inc();
    }
    allowed
}

/// A strong `etag` promises the same bytes (RFC 9110 section 8.8.1): it is taken out.
fn sanitize_etag(map: &mut HeaderMap) {
    let weak = |etag: &[u8]| etag.len() > 2 && (etag.starts_with(b"W/") || etag.starts_with(b"w/"));
    if map.get(ETAG).is_some_and(|etag| !weak(etag.as_bytes())) {
        map.remove(ETAG);
    }
}

fn vary(map: &mut HeaderMap) {
    const NAME: &str = "Accept-Encoding";
    let value = match map.get(VARY) {
        None => HeaderValue::from_static(NAME),
        Some(there) if has_token(Some(there), NAME) => return,
        Some(there) => {
            let both = [there.as_bytes(), b", ", NAME.as_bytes()].concat();
            HeaderValue::from_bytes(&both).unwrap_or(HeaderValue::from_static(NAME))
        }
    };
    map.insert(VARY, value);
}

/// Whether this compressor is the one that the client gets, of all that the chain has.
fn accepted(
    asked: &Asked,
    stats: &CompressStats,
    (filters, routed): (&[Filter], Routed<'_>),
    map: &HeaderMap,
) -> bool {
    let Some(accept) = asked.accept.as_ref().and_then(|accept| accept.to_str().ok()) else {
        stats.no_accept_header.inc();
        return false;
    };
    let kind = media_type(map);
    let mut have: Vec<(&str, bool)> = Vec::new();
    for filter in filters {
        let FilterKind::Compressor(config) = &filter.config.kind else { continue };
        if effective(filter, routed).is_none() {
            continue;
        }
        let coding = config.library.coding().name();
        let typed = kind.is_empty() || config.response.types.iter().any(|wanted| wanted == kind);
        if typed && have.iter().all(|(there, _)| *there != coding) {
            have.push((coding, config.choose_first));
        }
    }
    let own = asked.config.library.coding().name();
    match accept_encoding::choose(accept, &have) {
        Choice::NotValid => stats.header_not_valid.inc(),
        Choice::Identity => stats.header_identity.inc(),
        Choice::Wildcard(coding) => {
            stats.header_wildcard.inc();
            return coding == own;
        }
        Choice::Coding(coding) if coding == own => {
            stats.header_compressor_used.inc();
            return true;
        }
        Choice::Coding(_) => stats.header_compressor_overshadowed.inc(),
    }
    false
}

struct Squeeze {
    encoder: Encoder,
    stats: Arc<DirectionStats>,
}

impl Change for Squeeze {
    fn data(&mut self, piece: &[u8], more: bool, out: &mut BytesMut) -> Result<(), BodyError> {
        let before = out.len();
        self.encoder.write(piece, more, out)?;
        self.stats.total_uncompressed_bytes.add(piece.len() as u64);
        self.stats.total_compressed_bytes.add((out.len() - before) as u64);
        Ok(())
    }

    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        out: &mut BytesMut,
    ) -> Result<Option<HeaderMap>, BodyError> {
        let before = out.len();
        self.encoder.finish(out)?;
        self.stats.total_compressed_bytes.add((out.len() - before) as u64);
        Ok(trailers)
    }
}
