//! `LocalReplyConfig`, and bodies that are made by a format.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3 as pb;

use super::at::At;
use super::{access_log, common, headers};
use crate::model::access_log::LogFormat;
use crate::model::local_reply::{BodyFormat, LocalReplies, Mapper};
use crate::model::tls::DataSource;

/// `LocalReplyConfig` of a connection manager. Inner None: there is none.
#[expect(clippy::option_option, reason = "refused, none and some are three things")]
pub(super) fn config(
    at: &At<'_>,
    config: Option<&pb::LocalReplyConfig>,
) -> Option<Option<Arc<LocalReplies>>> {
    let at = at.field("local_reply_config");
    let format_at = at.field("body_format");
    optional(config, |config| {
        let format = config.body_format.as_ref();
        Some(Arc::new(LocalReplies {
            mappers: at.field("mappers").each(&config.mappers, mapper),
            format: optional(format, |format| body_format(&format_at, format))?,
        }))
    })
}

fn mapper(at: &At<'_>, mapper: &pb::ResponseMapper) -> Option<Mapper> {
    let filter_at = at.field("filter");
    let format_at = at.field("body_format_override");
    let body_at = at.field("body");
    Some(Mapper {
        filter: access_log::filter(&filter_at, filter_at.required(mapper.filter.as_ref())?)?,
        status: match mapper.status_code {
            Some(code) => Some(status(&at.field("status_code"), code)?),
            None => None,
        },
        body: optional(mapper.body.as_ref(), |body| text(&body_at, body))?,
        format: optional(mapper.body_format_override.as_ref(), |format| {
            body_format(&format_at, format)
        })?,
        headers: headers::ops(
            at,
            ("headers_to_add", &mapper.headers_to_add),
            ("headers_to_remove", &[]),
        ),
    })
}

/// `SubstitutionFormatString` of a body.
pub(super) fn body_format(
    at: &At<'_>,
    format: &core::SubstitutionFormatString,
) -> Option<BodyFormat> {
    let made = access_log::format(at, format)?;
    let content_type = match (format.content_type.as_str(), &made) {
        ("", LogFormat::Json(_)) => HeaderValue::from_static("application/json"),
        ("", LogFormat::Text(_)) => HeaderValue::from_static("text/plain"),
        (kind, _) => match HeaderValue::from_str(kind) {
            Ok(kind) => kind,
            Err(_) => return at.field("content_type").refuse("is no header value"),
        },
    };
    Some(BodyFormat { format: made, content_type })
}

/// The bytes themselves; a file is read now.
pub(super) fn text(at: &At<'_>, source: &core::DataSource) -> Option<Bytes> {
    match common::data_source(at, Some(source))? {
        DataSource::Inline(bytes) => Some(Bytes::copy_from_slice(&bytes)),
        DataSource::File(path) => match std::fs::read(&path) {
            Ok(bytes) => Some(bytes.into()),
            Err(error) => at.field("filename").refuse(format!("{}: {error}", path.display())),
        },
    }
}

fn status(at: &At<'_>, code: u32) -> Option<StatusCode> {
    let known = u16::try_from(code).ok().filter(|code| (200..600).contains(code));
    let status = known.and_then(|code| StatusCode::from_u16(code).ok());
    status.or_else(|| at.refuse(format!("{code} is no status: expected 200 to 599")))
}

/// Inner None: it is not there.
#[expect(clippy::option_option, reason = "refused, none and some are three things")]
fn optional<P, T>(value: Option<&P>, translate: impl FnOnce(&P) -> Option<T>) -> Option<Option<T>> {
    match value {
        Some(value) => translate(value).map(Some),
        None => Some(None),
    }
}
