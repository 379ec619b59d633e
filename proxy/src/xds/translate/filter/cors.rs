//! `cors.v3.CorsPolicy`

use std::sync::Arc;

use http::HeaderValue;
use pillion_xds::envoy::extensions::filters::http::cors::v3 as pb;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, matcher};
use crate::model::filter::{Cors, FilterKind};

pub(super) fn policy(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::CorsPolicy = common::unpack(at, packed)?;
    let origins_at = at.field("allow_origin_string_match");
    let allow_origin = origins_at.each(&config.allow_origin_string_match, matcher::string);
    let value = |field: &str, text: &str| match (text, HeaderValue::from_str(text)) {
        ("", _) => None,
        (_, Ok(value)) => Some(value),
        (_, Err(_)) => at.field(field).refuse("is no header value"),
    };
    Some(FilterKind::Cors(Some(Arc::new(Cors {
        allow_origin,
        allow_methods: value("allow_methods", &config.allow_methods),
        allow_headers: value("allow_headers", &config.allow_headers),
        expose_headers: value("expose_headers", &config.expose_headers),
        max_age: value("max_age", &config.max_age),
        allow_credentials: config.allow_credentials == Some(true),
        allow_private_network: config.allow_private_network_access == Some(true),
        enabled: config.filter_enabled.as_ref().map_or(1_000_000, common::runtime_fraction),
        forward_not_matching_preflights: config.forward_not_matching_preflights != Some(false),
    }))))
}
