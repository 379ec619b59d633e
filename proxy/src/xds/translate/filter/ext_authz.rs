//! `ext_authz.v3.ExtAuthz` and `ExtAuthzPerRoute`

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::filters::http::ext_authz::v3 as pb;
use pillion_xds::envoy::r#type::matcher::v3::ListStringMatcher;
use prost_types::Any;

use super::super::at::At;
use super::super::{authz, common, headers, matcher, service};
use crate::model::ext_authz::{BodySettings, ExtAuthz, ExtAuthzRoute, HttpAuthz, Service};
use crate::model::filter::{FilterKind, Override};
use crate::model::matcher::StringMatcher;

/// Envoy's default of a call's time.
const TIME: Duration = Duration::from_millis(200);

pub(super) fn filter(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::ExtAuthz = common::unpack(at, packed)?;
    let (service, of_service) = services(at, config.services.as_ref())?;
    let own = list(&at.field("allowed_headers"), config.allowed_headers.as_ref())?;
    at.field("allowed_headers").expect(
        own.is_none() || of_service.is_none(),
        "stands beside authorization_request.allowed_headers: expected one of them",
    )?;
    let disallowed = list(&at.field("disallowed_headers"), config.disallowed_headers.as_ref())?;
    let body = match &config.with_request_body {
        Some(settings) => Some(body(&at.field("with_request_body"), settings)?),
        None => None,
    };
    let deny = config.deny_at_disable.as_ref();
    let version = config.transport_api_version();
    at.field("transport_api_version")
        .expect(version != core::ApiVersion::V2, "is not supported: expected V3")?;
    Some(FilterKind::ExtAuthz(Arc::new(ExtAuthz {
        service,
        namespaces: config.metadata_context_namespaces.clone(),
        notes: config.enable_dynamic_metadata_ingestion != Some(false),
        failure_mode_allow: config.failure_mode_allow,
        failure_mode_header: config.failure_mode_allow_header_add,
        status_on_error: status(
            &at.field("status_on_error").field("code"),
            config.status_on_error.as_ref().map_or(0, |status| status.code),
        )?,
        body,
        clear_route: config.clear_route_cache,
        enabled: config.filter_enabled.as_ref().map_or(1_000_000, common::runtime_fraction),
        deny_at_disable: deny.is_some_and(|flag| flag.default_value == Some(true)),
        include_peer_certificate: config.include_peer_certificate,
        include_tls_session: config.include_tls_session,
        allowed_headers: own.or(of_service),
        disallowed_headers: disallowed.unwrap_or_default(),
        raw_headers: config.encode_raw_headers,
        validate: config.validate_mutations,
        stat_prefix: config.stat_prefix.as_str().into(),
    })))
}

pub(super) fn per_route(at: &At<'_>, packed: &Any) -> Option<Override> {
    use pb::ext_authz_per_route::Override as Kind;
    let config: pb::ExtAuthzPerRoute = common::unpack(at, packed)?;
    let route = match &config.r#override {
        Some(Kind::Disabled(true)) => ExtAuthzRoute::Disabled,
        Some(Kind::Disabled(false)) => return at.field("disabled").refuse("expected true"),
        Some(Kind::CheckSettings(settings)) => {
            let at = at.field("check_settings");
            let extensions = settings.context_extensions.clone().into_iter().collect();
            let both =
                settings.disable_request_body_buffering && settings.with_request_body.is_some();
            at.field("with_request_body")
                .expect(!both, "stands beside disable_request_body_buffering")?;
            let body = match &settings.with_request_body {
                Some(settings) => Some(body(&at.field("with_request_body"), settings)?),
                None => None,
            };
            let no_body = settings.disable_request_body_buffering;
            ExtAuthzRoute::Check { extensions, no_body, body }
        }
        None => return at.refuse("expected disabled or check_settings"),
    };
    Some(Override::Settings(FilterKind::ExtAuthzRoute(Arc::new(route))))
}

/// The service, and the headers that it says may be told.
fn services(
    at: &At<'_>,
    config: Option<&pb::ext_authz::Services>,
) -> Option<(Service, Option<Vec<StringMatcher>>)> {
    use pb::ext_authz::Services;
    match at.field("services").required(config)? {
        Services::GrpcService(config) => {
            let made = service::grpc(&at.field("grpc_service"), Some(config))?;
            let time = made.timeout.unwrap_or(TIME);
            Some((Service::Grpc(made, time, authz::WIRE), None))
        }
        Services::HttpService(config) => {
            let at = at.field("http_service");
            let request_at = at.field("authorization_request");
            let request = config.authorization_request.clone().unwrap_or_default();
            let response_at = at.field("authorization_response");
            let response = config.authorization_response.clone().unwrap_or_default();
            let prefix = &config.path_prefix;
            let fine = prefix.is_empty() || prefix.starts_with('/');
            at.field("path_prefix").expect(fine, "expected a path that begins with `/`")?;
            let once = config.retry_policy.is_none();
            at.field("retry_policy").expect(once, "is not supported")?;
            let taken = |field: &str, from: &Option<ListStringMatcher>| {
                list(&response_at.field(field), from.as_ref())
            };
            let made = HttpAuthz {
                service: service::http(&at.field("server_uri"), config.server_uri.as_ref())?,
                path_prefix: prefix.clone(),
                headers_to_add: added(
                    &request_at.field("headers_to_add"),
                    &request.headers_to_add,
                )?,
                to_upstream: taken("allowed_upstream_headers", &response.allowed_upstream_headers)?
                    .unwrap_or_default(),
                to_upstream_append: taken(
                    "allowed_upstream_headers_to_append",
                    &response.allowed_upstream_headers_to_append,
                )?
                .unwrap_or_default(),
                to_client: taken("allowed_client_headers", &response.allowed_client_headers)?,
                to_client_on_success: taken(
                    "allowed_client_headers_on_success",
                    &response.allowed_client_headers_on_success,
                )?
                .unwrap_or_default(),
            };
            let allowed =
                list(&request_at.field("allowed_headers"), request.allowed_headers.as_ref())?;
            Some((Service::Http(made), allowed))
        }
    }
}

fn added(
    at: &At<'_>,
    headers: &[core::HeaderValue],
) -> Option<Vec<(http::HeaderName, HeaderValue)>> {
    let made = at.each(headers, |at, header| {
        let name = headers::name_of(&at.field("key"), &header.key)?;
        match HeaderValue::from_str(&header.value) {
            Ok(value) => Some((name, value)),
            Err(_) => at.field("value").refuse("is no header value"),
        }
    });
    (made.len() == headers.len()).then_some(made)
}

/// None inside: there is none. One that lost a part would mean something else.
#[expect(clippy::option_option, reason = "absent and refused are two things")]
fn list(at: &At<'_>, list: Option<&ListStringMatcher>) -> Option<Option<Vec<StringMatcher>>> {
    let Some(list) = list else { return Some(None) };
    let made = at.field("patterns").each(&list.patterns, matcher::string);
    (made.len() == list.patterns.len()).then_some(Some(made))
}

fn body(at: &At<'_>, config: &pb::BufferSettings) -> Option<BodySettings> {
    at.field("max_request_bytes").expect(config.max_request_bytes > 0, "expected at least 1")?;
    Some(BodySettings {
        most: config.max_request_bytes as usize,
        partial: config.allow_partial_message,
        bytes: config.pack_as_bytes,
    })
}

fn status(at: &At<'_>, code: i32) -> Option<StatusCode> {
    if code == 0 {
        return Some(StatusCode::FORBIDDEN);
    }
    let made = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    made.or_else(|| at.refuse("is no status of HTTP"))
}
