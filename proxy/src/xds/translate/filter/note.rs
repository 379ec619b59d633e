//! `set_filter_state.v3.Config` and `header_to_metadata.v3.Config`

use pillion_xds::envoy::extensions::filters::common::set_filter_state::v3 as state;
use pillion_xds::envoy::extensions::filters::http as pb;
use pillion_xds::envoy::extensions::filters::http::header_to_metadata::v3::config as of_headers;
use prost_types::Any;

use super::super::at::At;
use super::super::{access_log, common, matcher};
use crate::model::access_log::LogFormat;
use crate::model::dynamic::{HeaderOrCookie, HeaderRule, Noted, NotedKind, SetState};
use crate::model::filter::FilterKind;

/// The one kind of object that there is here.
const TEXT: &str = "envoy.string";

pub(super) fn set_filter_state(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::set_filter_state::v3::Config = common::unpack(at, packed)?;
    let all_at = at.field("on_request_headers");
    let all = all_at.each(&config.on_request_headers, set);
    all_at.expect(all.len() == config.on_request_headers.len(), "one is refused")?;
    Some(FilterKind::SetState(all.into()))
}

fn set(at: &At<'_>, config: &state::FilterStateValue) -> Option<SetState> {
    let key_at = at.field("object_key");
    let Some(state::filter_state_value::Key::ObjectKey(key)) = &config.key else {
        return key_at.refuse("is missing");
    };
    key_at.expect(!key.is_empty(), "is empty")?;
    let factory = if config.factory_key.is_empty() { key } else { &config.factory_key };
    at.field("factory_key")
        .expect(factory == TEXT, format!("`{factory}` is not supported: expected `{TEXT}`"))?;
    let value_at = at.field("format_string");
    let Some(state::filter_state_value::Value::FormatString(format)) = &config.value else {
        return value_at.refuse("is missing");
    };
    let LogFormat::Text(value) = access_log::format(&value_at, format)? else {
        return value_at.field("json_format").refuse("is not supported: expected a text");
    };
    Some(SetState {
        key: key.clone(),
        value,
        read_only: config.read_only,
        skip_if_empty: config.skip_if_empty,
    })
}

pub(super) fn header_to_metadata(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::header_to_metadata::v3::Config = common::unpack(at, packed)?;
    let rules_at = at.field("request_rules");
    let rules = rules_at.each(&config.request_rules, rule);
    rules_at.expect(rules.len() == config.request_rules.len(), "one is refused")?;
    Some(FilterKind::HeaderToMetadata(rules.into()))
}

fn rule(at: &At<'_>, config: &of_headers::Rule) -> Option<HeaderRule> {
    let from = match (config.header.as_str(), config.cookie.as_str()) {
        ("", "") => return at.refuse("expected header or cookie"),
        ("", cookie) => HeaderOrCookie::Cookie(cookie.to_owned()),
        (header, "") => match header.parse() {
            Ok(name) => HeaderOrCookie::Header(name),
            Err(_) => return at.field("header").refuse(format!("`{header}` is no header name")),
        },
        _ => return at.field("cookie").refuse("stands beside header: expected one of them"),
    };
    let one = |field: &str, config: Option<&of_headers::KeyValuePair>| match config {
        None => Some(None),
        Some(config) => noted(&at.field(field), config).map(Some),
    };
    let present = one("on_header_present", config.on_header_present.as_ref())?;
    let missing = one("on_header_missing", config.on_header_missing.as_ref())?;
    at.expect(
        present.is_some() || missing.is_some(),
        "expected on_header_present or on_header_missing",
    )?;
    let empty = missing.as_ref().is_some_and(|noted| noted.value.is_empty());
    at.field("on_header_missing").field("value").expect(!empty, "is missing")?;
    Some(HeaderRule { from, present, missing, remove: config.remove })
}

fn noted(at: &At<'_>, config: &of_headers::KeyValuePair) -> Option<Noted> {
    at.field("key").expect(!config.key.is_empty(), "is empty")?;
    let both = !config.value.is_empty() && config.regex_value_rewrite.is_some();
    at.field("regex_value_rewrite").expect(!both, "stands beside value")?;
    let namespace = match config.metadata_namespace.as_str() {
        "" => "envoy.filters.http.header_to_metadata",
        given => given,
    };
    let kind = match config.r#type() {
        of_headers::ValueType::String => NotedKind::Text,
        of_headers::ValueType::Number => NotedKind::Number,
        of_headers::ValueType::ProtobufValue => {
            return at.field("type").refuse("PROTOBUF_VALUE is not supported");
        }
    };
    Some(Noted {
        namespace: namespace.to_owned(),
        key: config.key.clone(),
        value: config.value.clone(),
        rewrite: match &config.regex_value_rewrite {
            Some(rewrite) => Some(matcher::substitute(&at.field("regex_value_rewrite"), rewrite)?),
            None => None,
        },
        kind,
        base64: config.encode() == of_headers::ValueEncode::Base64,
    })
}
