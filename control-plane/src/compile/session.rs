//! Sessions of gateways, as Envoy's stateful session filter.

use pillion_xds::any::pack;
use pillion_xds::envoy::config::core::v3::TypedExtensionConfig;
use pillion_xds::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route,
};
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use pillion_xds::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use pillion_xds::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use pillion_xds::envoy::r#type::http::v3::Cookie;
use prost_types::Any;

use super::proto::duration;
use crate::intent::{Session, SessionBy};

const FILTER: &str = "envoy.filters.http.stateful_session";
/// Where no name is written.
const NAME: &str = "pillion-session";

/// The filter itself, which knows no sessions: they come with routes, so that a new one is no new
/// listener.
pub(crate) fn filter() -> HttpFilter {
    HttpFilter {
        name: FILTER.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(&StatefulSession::default()))),
        ..HttpFilter::default()
    }
}

/// What `typed_per_filter_config` says about a session.
pub(crate) fn per_filter(session: &Session) -> (String, Any) {
    let name = session.name.clone().unwrap_or_else(|| NAME.to_owned());
    let (kind, config) = match &session.by {
        SessionBy::Cookie(life) => {
            let cookie =
                Cookie { name, ttl: life.map(duration), path: "/".to_owned(), ..Cookie::default() };
            ("cookie", pack(&CookieBasedSessionState { cookie: Some(cookie) }))
        }
        SessionBy::Header => ("header", pack(&HeaderBasedSessionState { name })),
    };
    let state = TypedExtensionConfig {
        name: format!("envoy.http.stateful_session.{kind}"),
        typed_config: Some(config),
    };
    let session = StatefulSession { session_state: Some(state), ..StatefulSession::default() };
    let here = stateful_session_per_route::Override::StatefulSession(session);
    (FILTER.to_owned(), pack(&StatefulSessionPerRoute { r#override: Some(here) }))
}
