//! `sessionPersistence` of a route's rule (Gateway API, GEP-1619).

use std::time::Duration;

use super::decode::{At, Context, Object, choice, duration};
use super::filter::header_name;

/// Requests of one session go to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Of the cookie or the header. `None` is a name that the proxy chooses.
    pub name: Option<String>,
    /// Where the client keeps it.
    pub by: SessionBy,
}

/// Where a client keeps its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionBy {
    /// In a cookie, for so long. `None` is until the client ends.
    Cookie(Option<Duration>),
    /// In a header.
    Header,
}

pub(crate) fn session(cx: &mut Context, at: &At<'_>) -> Option<Session> {
    let mut object = Object::open(cx, at)?;
    // Cookies and headers are both named by tokens.
    let name = object.optional(cx, "sessionName", header_name);
    let life = object.optional(cx, "absoluteTimeout", duration);
    let idle = object.optional(cx, "idleTimeout", duration);
    let cookie = choice(&[("Cookie", true), ("Header", false)]);
    let cookie = object.optional(cx, "type", cookie).unwrap_or(true);
    let permanent = object.optional(cx, "cookieConfig", permanent);
    object.finish(cx);
    if idle.is_some() {
        cx.warn(at, "`idleTimeout` has no effect: nobody remembers when a session was last used");
    }
    let by = match (cookie, permanent.unwrap_or(false), life) {
        (true, true, None) => {
            return cx.error(at, "a Permanent cookie needs `absoluteTimeout`");
        }
        (true, true, Some(life)) => SessionBy::Cookie(Some(life)),
        (cookie, _, life) => {
            if life.is_some() {
                cx.warn(at, "`absoluteTimeout` has an effect on Permanent cookies only");
            }
            if cookie { SessionBy::Cookie(None) } else { SessionBy::Header }
        }
    };
    Some(Session { name, by })
}

fn permanent(cx: &mut Context, at: &At<'_>) -> Option<bool> {
    let mut object = Object::open(cx, at)?;
    let permanent = choice(&[("Permanent", true), ("Session", false)]);
    let permanent = object.optional(cx, "lifetimeType", permanent);
    object.finish(cx);
    permanent
}
