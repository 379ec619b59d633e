//! `rateLimit` of a `TrafficPolicy`: how many requests a gateway takes.

use std::time::Duration;

use super::decode::{At, Context, Object, boolean, duration, whole};
use super::filter::header_name;

/// How many requests a gateway takes, each of its instances by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// So many in each `per`.
    pub requests: u32,
    /// Default 1 s; at least 50 ms.
    pub per: Duration,
    /// So many at once, after a pause. Default `requests`.
    pub burst: u32,
    /// Each client by itself; `None` is all together.
    pub by: Option<LimitBy>,
    /// Clients that are told apart at a time. The least recent of more is forgotten. Default 10000.
    pub max_clients: u32,
}

/// What tells clients apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitBy {
    /// Its address; of IPv6, its network of 64 bits.
    ClientAddress,
    /// The value of a header. Requests without it are one client together.
    Header(String),
}

/// Envoy's floor.
const SHORTEST: Duration = Duration::from_millis(50);

pub(crate) fn rate_limit(cx: &mut Context, at: &At<'_>) -> Option<RateLimit> {
    let mut object = Object::open(cx, at)?;
    let requests = object.required(cx, "requests", whole(1..=1_000_000_000));
    let per = object.optional(cx, "per", |cx, at| match duration(cx, at)? {
        short if short < SHORTEST => cx.expected(at, "a duration of 50ms or more"),
        per => Some(per),
    });
    let burst = object.optional(cx, "burst", whole(1..=1_000_000_000));
    let by = object.optional(cx, "by", limit_by);
    let max_clients = object.optional(cx, "maxClients", whole(1..=1_000_000)).unwrap_or(10_000);
    object.finish(cx);
    let requests = requests?;
    Some(RateLimit {
        requests,
        per: per.unwrap_or(Duration::from_secs(1)),
        burst: burst.unwrap_or(requests),
        by,
        max_clients,
    })
}

fn limit_by(cx: &mut Context, at: &At<'_>) -> Option<LimitBy> {
    let mut object = Object::open(cx, at)?;
    object.exactly_one(cx, &["clientAddress", "header"]);
    let address = object.optional(cx, "clientAddress", |cx, at| match boolean(cx, at)? {
        true => Some(LimitBy::ClientAddress),
        false => cx.expected(at, "`true` (leave the field out otherwise)"),
    });
    let header = object.optional(cx, "header", header_name).map(LimitBy::Header);
    object.finish(cx);
    address.or(header)
}
