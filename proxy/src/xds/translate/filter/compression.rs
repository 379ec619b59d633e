//! `compressor.v3.Compressor`, `CompressorPerRoute` and `decompressor.v3.Decompressor`

use std::sync::Arc;

use http::StatusCode;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::compression as libraries;
use pillion_xds::envoy::extensions::filters::http::compressor::v3 as pb;
use pillion_xds::envoy::extensions::filters::http::decompressor::v3 as undo;
use prost_types::Any;

use super::super::at::At;
use super::super::common;
use crate::model::Name;
use crate::model::compression::{
    Coding, Compressor, CompressorRoute, DEFAULT_TYPES, Decompressor, Direction, Library, Undo,
};
use crate::model::filter::{FilterKind, Override};

const PREFIX: &str = "envoy.extensions.compression.";

pub(super) fn compressor(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::Compressor = common::unpack(at, packed)?;
    let (name, library) =
        library(&at.field("compressor_library"), config.compressor_library.as_ref())?;
    let response = config.response_direction_config.as_ref();
    let response_at = at.field("response_direction_config");
    let codes_at = response_at.field("uncompressible_response_codes");
    let codes = response.map_or(&[][..], |config| &config.uncompressible_response_codes);
    Some(FilterKind::Compressor(Arc::new(Compressor {
        name,
        library,
        request: config
            .request_direction_config
            .as_ref()
            .map(|config| request_direction(config.common_config.as_ref())),
        response: direction(response.and_then(|config| config.common_config.as_ref())),
        response_named: response.is_some(),
        disable_on_etag: response.is_some_and(|config| config.disable_on_etag_header),
        remove_accept_encoding: response.is_some_and(|c| c.remove_accept_encoding_header),
        uncompressible: codes_at.each(codes, |at, code| {
            let code = u16::try_from(*code).ok().and_then(|code| StatusCode::from_u16(code).ok());
            code.or_else(|| at.refuse("is no status of HTTP"))
        }),
        choose_first: config.choose_first,
    })))
}

pub(super) fn per_route(at: &At<'_>, packed: &Any) -> Option<Override> {
    use pb::compressor_per_route::Override as Kind;
    let config: pb::CompressorPerRoute = common::unpack(at, packed)?;
    match &config.r#override {
        Some(Kind::Disabled(true)) => {
            let made = CompressorRoute { disabled: true, ..CompressorRoute::default() };
            Some(Override::Settings(FilterKind::CompressorRoute(Arc::new(made))))
        }
        Some(Kind::Disabled(false)) => at.field("disabled").refuse("expected true"),
        None => at.refuse("expected disabled or overrides"),
        Some(Kind::Overrides(config)) => {
            let at = at.field("overrides");
            let response = config.response_direction_config.as_ref();
            Some(Override::Settings(FilterKind::CompressorRoute(Arc::new(CompressorRoute {
                disabled: false,
                remove_accept_encoding: response.and_then(|c| c.remove_accept_encoding_header),
                library: match &config.compressor_library {
                    Some(given) => Some(library(&at.field("compressor_library"), Some(given))?),
                    None => None,
                },
            }))))
        }
    }
}

pub(super) fn decompressor(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: undo::Decompressor = common::unpack(at, packed)?;
    let library_at = at.field("decompressor_library");
    let (name, packed) = extension(&library_at, config.decompressor_library.as_ref())?;
    let kind = common::type_of(packed);
    let mut max_ratio = 100;
    let coding = match kind.strip_prefix(PREFIX) {
        Some("gzip.decompressor.v3.Gzip") => {
            let at = library_at.field("typed_config");
            let gzip: libraries::gzip::decompressor::v3::Gzip = common::unpack(&at, packed)?;
            max_ratio = gzip.max_inflate_ratio.unwrap_or(100).into();
            Coding::Gzip
        }
        Some("brotli.decompressor.v3.Brotli") => Coding::Brotli,
        Some("zstd.decompressor.v3.Zstd") => Coding::Zstd,
        _ => return library_at.refuse(format!("`{kind}` is not supported")),
    };
    let request = config.request_direction_config.as_ref();
    let response = config.response_direction_config.as_ref();
    let undo = |common: Option<&undo::decompressor::CommonDirectionConfig>| Undo {
        enabled: is_enabled(common.and_then(|common| common.enabled.as_ref())),
        ignore_no_transform: common.is_some_and(|common| common.ignore_no_transform_header),
    };
    Some(FilterKind::Decompressor(Arc::new(Decompressor {
        name,
        coding,
        request: undo(request.and_then(|config| config.common_config.as_ref())),
        response: undo(response.and_then(|config| config.common_config.as_ref())),
        advertise: request.and_then(|c| c.advertise_accept_encoding) != Some(false),
        max_ratio,
    })))
}

fn is_enabled(flag: Option<&core::RuntimeFeatureFlag>) -> bool {
    flag.and_then(|flag| flag.default_value) != Some(false)
}

fn direction(common: Option<&pb::compressor::CommonDirectionConfig>) -> Direction {
    let given = common.map_or(&[][..], |common| &common.content_type);
    let types = if given.is_empty() {
        DEFAULT_TYPES.iter().map(ToString::to_string).collect()
    } else {
        given.to_vec()
    };
    Direction {
        enabled: is_enabled(common.and_then(|common| common.enabled.as_ref())),
        min_length: common.and_then(|common| common.min_content_length).unwrap_or(30).into(),
        types,
    }
}

/// Requests are compressed only where that is switched on.
fn request_direction(common: Option<&pb::compressor::CommonDirectionConfig>) -> Direction {
    let on = common.and_then(|common| common.enabled.as_ref());
    let on = on.and_then(|flag| flag.default_value) == Some(true);
    Direction { enabled: on, ..direction(common) }
}

fn extension<'a>(
    at: &At<'_>,
    config: Option<&'a core::TypedExtensionConfig>,
) -> Option<(Name, &'a Any)> {
    let config = at.required(config)?;
    let packed = at.field("typed_config").required(config.typed_config.as_ref())?;
    Some((config.name.as_str().into(), packed))
}

fn library(at: &At<'_>, config: Option<&core::TypedExtensionConfig>) -> Option<(Name, Library)> {
    let (name, packed) = extension(at, config)?;
    let at = at.field("typed_config");
    let kind = common::type_of(packed);
    let library = match kind.strip_prefix(PREFIX) {
        Some("gzip.compressor.v3.Gzip") => {
            let gzip: libraries::gzip::compressor::v3::Gzip = common::unpack(&at, packed)?;
            let level = u32::try_from(gzip.compression_level).unwrap_or(0);
            Library::Gzip { level: if level == 0 { 6 } else { level.min(9) } }
        }
        Some("brotli.compressor.v3.Brotli") => {
            let brotli: libraries::brotli::compressor::v3::Brotli = common::unpack(&at, packed)?;
            let quality = brotli.quality.unwrap_or(3);
            at.field("quality").expect(quality <= 11, "expected 0 to 11")?;
            let window_bits = brotli.window_bits.unwrap_or(18);
            let window_fits = (10..=24).contains(&window_bits);
            at.field("window_bits").expect(window_fits, "expected 10 to 24")?;
            Library::Brotli { quality, window_bits }
        }
        Some("zstd.compressor.v3.Zstd") => {
            let zstd: libraries::zstd::compressor::v3::Zstd = common::unpack(&at, packed)?;
            let level = zstd.compression_level.unwrap_or(3);
            let level_at = at.field("compression_level");
            level_at.expect((1..=22).contains(&level), "expected 1 to 22")?;
            Library::Zstd { level: level.cast_signed(), checksum: zstd.enable_checksum }
        }
        _ => return at.refuse(format!("`{kind}` is not supported")),
    };
    Some((name, library))
}
