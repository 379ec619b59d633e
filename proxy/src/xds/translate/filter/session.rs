//! `envoy.extensions.filters.http.stateful_session.v3`

use std::sync::Arc;

use pillion_xds::envoy::extensions::filters::http::stateful_session::v3 as pb;
use pillion_xds::envoy::extensions::http::stateful_session as states;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, headers};
use crate::model::filter::{FilterKind, Override, SessionState, StatefulSession};

pub(super) fn filter(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::StatefulSession = common::unpack(at, packed)?;
    session(at, &config)
}

pub(super) fn per_route(at: &At<'_>, packed: &Any) -> Option<Override> {
    use pb::stateful_session_per_route::Override as Kind;
    let config: pb::StatefulSessionPerRoute = common::unpack(at, packed)?;
    match &config.r#override {
        Some(Kind::Disabled(true)) => Some(Override::Off),
        Some(Kind::Disabled(false)) => at.field("disabled").refuse("can only be true"),
        Some(Kind::StatefulSession(config)) => {
            session(&at.field("stateful_session"), config).map(Override::Settings)
        }
        None => at.refuse("expected disabled or stateful_session"),
    }
}

fn session(at: &At<'_>, config: &pb::StatefulSession) -> Option<FilterKind> {
    let state_at = at.field("session_state");
    let state = match &config.session_state {
        None => None,
        Some(state) => {
            let at = state_at.field("typed_config");
            Some(self::state(&at, at.required(state.typed_config.as_ref())?)?)
        }
    };
    let made = StatefulSession { state, strict: config.strict };
    Some(FilterKind::StatefulSession(Arc::new(made)))
}

fn state(at: &At<'_>, packed: &Any) -> Option<SessionState> {
    match common::type_of(packed) {
        "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState" => {
            let config: states::cookie::v3::CookieBasedSessionState = common::unpack(at, packed)?;
            let at = at.field("cookie");
            let cookie = at.required(config.cookie)?;
            at.field("name").expect(!cookie.name.is_empty(), "is empty")?;
            let attributes = at.field("attributes").each(&cookie.attributes, |at, one| {
                headers::cookie_attribute(at, &one.name, &one.value)
            });
            Some(SessionState::Cookie {
                name: cookie.name.as_str().into(),
                path: cookie.path.as_str().into(),
                ttl: at.field("ttl").duration(cookie.ttl).unwrap_or_default(),
                attributes: attributes.into(),
            })
        }
        "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState" => {
            let config: states::header::v3::HeaderBasedSessionState = common::unpack(at, packed)?;
            headers::name_of(&at.field("name"), &config.name).map(SessionState::Header)
        }
        other => at.refuse(format!("`{other}` is not supported")),
    }
}
