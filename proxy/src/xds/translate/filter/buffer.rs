//! `buffer.v3.Buffer` and `BufferPerRoute`

use pillion_xds::envoy::extensions::filters::http::buffer::v3 as pb;
use prost_types::Any;

use super::super::at::At;
use super::super::common;
use crate::model::filter::{FilterKind, Override};

pub(super) fn filter(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::Buffer = common::unpack(at, packed)?;
    settings(at, &config)
}

pub(super) fn per_route(at: &At<'_>, packed: &Any) -> Option<Override> {
    use pb::buffer_per_route::Override as Kind;
    let config: pb::BufferPerRoute = common::unpack(at, packed)?;
    match &config.r#override {
        Some(Kind::Disabled(true)) => Some(Override::Off),
        Some(Kind::Disabled(false)) => at.field("disabled").refuse("expected true"),
        Some(Kind::Buffer(config)) => settings(&at.field("buffer"), config).map(Override::Settings),
        None => at.refuse("expected disabled or buffer"),
    }
}

fn settings(at: &At<'_>, config: &pb::Buffer) -> Option<FilterKind> {
    let at = at.field("max_request_bytes");
    let most = at.required(config.max_request_bytes)?;
    at.expect(most > 0, "expected at least 1")?;
    Some(FilterKind::Buffer(most))
}
