//! Requests that become byte streams with the consent of the endpoint: WebSocket and other
//! upgrades, and CONNECT that is passed on. (CONNECT that ends here is [`super::tunnel`]'s.)

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};

use super::admit::Plan;
use super::body::AnswerBody;
use super::exchange::Exchange;
use super::reply::{self, Answer};
use super::tunnel::{Inside, Tunnel};
use crate::cluster::ResponseBody;
use crate::http::presence::Presence;
use crate::http::upgrade::Asked;
use crate::http::upgraded::{self, OnUpgrade};
use crate::model::route::{Action, Route};
use crate::net::copy::CopyOptions;
use crate::policy::timeout::Timeouts;
use crate::telemetry::reason::{Reason, Refusal, Sent};
use crate::telemetry::stats::GaugeGuard;

/// What a request asks to become, and the bytes that it will be.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// None: CONNECT.
    asked: Option<Asked>,
    on: OnUpgrade,
    /// Counts it from when it was admitted.
    active: Option<GaugeGuard>,
}

/// Takes what a request asks to become out of it.
pub(super) fn take<B>(request: &mut Request<B>, present: Presence) -> Option<Upgrade> {
    // HTTP/2 asks in a pseudo-header.
    let may = present.has(Presence::UPGRADE) || request.version() == Version::HTTP_2;
    let asked = if may { crate::http::upgrade::take(request, fastrand::u128(..)) } else { None };
    if asked.is_none() && request.method() != Method::CONNECT {
        return None;
    }
    let on = upgraded::take(request.extensions_mut())?;
    Some(Upgrade { asked, on, active: None })
}

impl Upgrade {
    /// Puts back what is taken from requests on entry.
    pub(super) fn restore<B>(&self, request: &mut Request<B>) {
        if let Some(asked) = &self.asked {
            asked.restore(request.headers_mut());
        }
    }

    fn kind(&self) -> &[u8] {
        self.asked.as_ref().map_or(b"connect", |asked| asked.kind.as_bytes())
    }

    /// The bytes of the client, and what counts them.
    pub(super) fn into_bytes(self) -> (OnUpgrade, Option<GaugeGuard>) {
        (self.on, self.active)
    }
}

/// Whether the route, or else the connection manager, takes such upgrades.
///
/// # Errors
/// It does not (403, as in Envoy).
pub(super) fn admit(exchange: &mut Exchange, route: &Route) -> Result<(), Refusal> {
    let Some(upgrade) = &mut exchange.upgrade else { return Ok(()) };
    let kind = upgrade.kind();
    let here = match &route.action {
        Action::Forward(forward) => {
            forward.upgrades.iter().find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(kind))
        }
        _ => None,
    };
    let http = &exchange.connection.http;
    let upgrades = &http.manager.upgrades;
    let taken = here.map_or_else(
        || upgrades.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(kind)),
        |(_, taken)| *taken,
    );
    if taken {
        http.stats.downstream_cx_upgrades_total.inc();
        upgrade.active = Some(http.stats.downstream_cx_upgrades_active.guard());
        return Ok(());
    }
    http.stats.downstream_rq_ws_on_non_ws_route.inc();
    let kind = String::from_utf8_lossy(kind);
    let detail = format!("upgrades to `{kind}` are not taken here (upgrade_configs)");
    Err(Refusal::downstream(Reason::UpgradeRefused, StatusCode::FORBIDDEN, detail))
}

/// The time limits of a request that is never complete: those that begin with its end never do.
pub(super) fn unlimited(timeouts: Timeouts) -> Timeouts {
    Timeouts { max_stream: timeouts.max_stream, ..Timeouts::default() }
}

/// The endpoint's answer: it may have agreed.
///
/// # Errors
/// It switches to what nobody asked for.
pub(super) async fn answered(
    exchange: &mut Exchange,
    mut plan: Plan<'_>,
    mut response: Response<ResponseBody>,
) -> Result<Answer, Refusal> {
    let agreed = exchange.upgrade.is_some();
    let agreed = if agreed { upgraded::take(response.extensions_mut()) } else { None };
    let Some((upgrade, upstream)) = agreed.and_then(|on| Some((exchange.upgrade.take()?, on)))
    else {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let detail = "the upstream switches protocols without being asked";
            let refusal = Refusal::upstream(Reason::UpstreamProtocolError, Sent::Maybe, detail);
            return Err(Refusal { status: StatusCode::BAD_GATEWAY, ..refusal });
        }
        return Ok(reply::from_upstream(exchange, &mut plan, response).await);
    };
    let options = options(exchange, &plan);
    // Logs say the same whatever versions are spoken.
    let connect = upgrade.asked.is_none();
    if !connect {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    }
    let kind = response.headers().get(UPGRADE).cloned();
    exchange.facts.status = Some(response.status());
    let (head, body) = response.into_parts();
    let mut response = Response::from_parts(head, AnswerBody::Empty);
    reply::dress(exchange, &plan, (&mut response, body.present())).await;
    // The request is not complete: nothing is known about how long it takes.
    response.headers_mut().remove(reply::SERVICE_TIME);
    if let Some(asked) = &upgrade.asked {
        asked.agree(&mut response, kind, exchange.connection.is_http2());
    }
    let (head, _) = response.into_parts();
    Ok(Answer::Tunnel(Box::new(Tunnel {
        head: Response::from_parts(head, ()),
        upgrade: upgrade.on,
        _active: upgrade.active,
        inside: Inside::Switched(upstream, Box::new(body)),
        options,
        _permit: plan.permit,
    })))
}

/// After an upgrade that did not happen, nobody can be sure that what follows is HTTP: an HTTP/1
/// connection ends.
pub(super) fn refused<B>(response: &mut Response<B>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// How long the bytes may go on.
pub(super) fn options(exchange: &Exchange, plan: &Plan<'_>) -> CopyOptions {
    let timeouts = &exchange.connection.http.manager.timeouts;
    let idle = plan.forward.idle_timeout.or(timeouts.stream_idle);
    CopyOptions {
        idle: idle.filter(|idle| !idle.is_zero()),
        max_duration: plan.timeouts.max_stream.or(timeouts.max_stream_duration),
        buffers: None,
    }
}
