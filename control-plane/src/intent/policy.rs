//! `TrafficPolicy`: how a service is called.

use std::time::Duration;

use super::decode::{
    At, Context, Object, any_text, choice, dns_name, duration, percent, quoted, text, whole,
};
use super::document::Referent;
use super::filter::header_name;
use super::health_check::{self, HealthCheck};
use super::http_route::RouteKind;
use super::meta::{Meta, Name};
use super::problem::nearest;
use super::rate_limit::{RateLimit, rate_limit};

/// `pillion.io/v1alpha1 TrafficPolicy`.
///
/// On a Service, `loadBalancer`, `circuitBreaker`, `outlierDetection` and `timeout.connect` hold for its endpoints,
/// whoever sends there; `retry`, the other timeouts and what a hash is made of hold for requests to its host
/// name. On a route, the latter hold for that route and win over those of the Service. `rateLimit`
/// is for a Gateway, or for a route at gateways, where it takes the place of the Gateway's.
#[derive(Debug, Clone, PartialEq)]
pub struct TrafficPolicy {
    /// Namespace and name.
    pub name: Name,
    /// `creationTimestamp`: of two policies on one target the older one wins.
    pub created: Option<String>,
    /// What it holds for; never empty.
    pub targets: Vec<Target>,
    /// How an endpoint is chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits of what is under way at once.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// When an endpoint is taken out.
    pub outlier_detection: Option<OutlierDetection>,
    /// How endpoints are asked whether they are well.
    pub health_check: Option<HealthCheck>,
    /// What is tried again. `None` is the safe default: only what provably was not processed.
    pub retry: Option<Retry>,
    /// Timeouts.
    pub timeout: PolicyTimeouts,
    /// How many requests gateways take.
    pub rate_limit: Option<RateLimit>,
}

/// What a policy holds for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// A Service.
    Service(Name),
    /// A Gateway.
    Gateway(Name),
    /// An `HTTPRoute` or `GRPCRoute`.
    Route(RouteKind, Name),
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancer {
    /// Default `LeastRequest`.
    pub algorithm: Algorithm,
    /// What the hash of `RingHash` and `Maglev` is made of.
    pub hash_on: Option<HashOn>,
}

/// Load-balancing algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// In turn.
    RoundRobin,
    /// The less busy one of two drawn at random.
    LeastRequest,
    /// The quicker and less busy one of two drawn at random: latency, remembered by its peaks,
    /// times requests under way.
    PeakEwma,
    /// Drawn at random.
    Random,
    /// By hash, on a ring.
    RingHash,
    /// By hash, by Maglev's table.
    Maglev,
}

/// What a hash is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// A request header.
    Header(String),
    /// A cookie, made by the proxy if there is none and a life is given (0 is a session cookie).
    Cookie(String, Option<Duration>),
    /// The client's address.
    SourceIp,
}

/// Limits of what is under way at once, per sidecar. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Connections.
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests.
    pub max_requests: Option<u32>,
    /// Retries; if written, and no budget is, it takes the budget's place.
    pub max_retries: Option<u32>,
}

/// When an endpoint is taken out, and for how long. `None` is the default of the data plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// 5xx in a row. 0 is never.
    pub consecutive_5xx: Option<u32>,
    /// 502, 503 or 504 in a row. 0 is never.
    pub consecutive_gateway_errors: Option<u32>,
    /// Failed connects, resets or timeouts in a row. 0 is never.
    pub consecutive_local_origin_failures: Option<u32>,
    /// Time between two looks.
    pub interval: Option<Duration>,
    /// Time out, multiplied by how often it was out before.
    pub base_ejection_time: Option<Duration>,
    /// Longest time out.
    pub max_ejection_time: Option<Duration>,
    /// Share of the endpoints that may be out at once, in percent.
    pub max_ejection_percent: Option<u32>,
}

/// What is tried again, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Conditions, in the words of Envoy's `retry_on`.
    pub on: Vec<String>,
    /// Answers that are tried again.
    pub codes: Vec<u32>,
    /// How many times more; 0 turns retries off. Default 2.
    pub attempts: u32,
    /// For one try.
    pub per_try_timeout: Option<Duration>,
    /// Shortest pause between two tries.
    pub backoff: Option<Duration>,
    /// How many retries there may be, relative to the requests under way.
    pub budget: Option<RetryBudget>,
}

/// How many retries there may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// Share of the requests under way, in percent. Default 20.
    pub percent: f64,
    /// Retries a second that there may be in any case. Default 10.
    pub min_per_second: u32,
}

/// Timeouts. 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PolicyTimeouts {
    /// For the whole request with its retries. Default none.
    pub request: Option<Duration>,
    /// Without a byte either way.
    pub idle: Option<Duration>,
    /// For a TCP connection to an endpoint. Default 2 s.
    pub connect: Option<Duration>,
}

/// Words that `retry.on` takes: Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
pub(crate) const RETRY_ON: [&str; 15] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

impl TrafficPolicy {
    pub(crate) fn decode(cx: &mut Context, meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let targets = object.required(cx, "targetRefs", |cx, at| {
            let items = at.items(cx)?;
            if items.is_empty() {
                return cx.expected(at, "at least one target");
            }
            Some(items.iter().filter_map(|at| target(cx, at)).collect())
        });
        let policy = Self {
            name: meta.name.clone(),
            created: meta.created.clone(),
            targets: targets.unwrap_or_default(),
            load_balancer: object.optional(cx, "loadBalancer", load_balancer),
            circuit_breaker: object.optional(cx, "circuitBreaker", circuit_breaker),
            outlier_detection: object.optional(cx, "outlierDetection", outlier_detection),
            health_check: object.optional(cx, "healthCheck", health_check::decode),
            retry: object.optional(cx, "retry", retry),
            timeout: object.optional(cx, "timeout", timeouts).unwrap_or_default(),
            rate_limit: object.optional(cx, "rateLimit", rate_limit),
        };
        object.finish(cx);
        policy.check_targets(cx, spec);
        Some(policy)
    }

    /// What holds for what.
    fn check_targets(&self, cx: &mut Context, at: &At<'_>) {
        let is_service = |target: &Target| matches!(target, Target::Service(_));
        let is_gateway = |target: &Target| matches!(target, Target::Gateway(_));
        if self.rate_limit.is_some() && self.targets.iter().any(is_service) {
            cx.error::<()>(at, "`rateLimit` holds for a Gateway, or for a route at gateways");
        }
        let timeout = self.timeout != PolicyTimeouts::default();
        let others = self.load_balancer.is_some()
            || self.circuit_breaker.is_some()
            || self.outlier_detection.is_some()
            || self.health_check.is_some()
            || self.retry.is_some()
            || timeout;
        if others && self.targets.iter().any(is_gateway) {
            cx.error::<()>(
                at,
                "for a Gateway only `rateLimit` holds; the rest is for Services and routes",
            );
        }
    }
}

fn target(cx: &mut Context, at: &At<'_>) -> Option<Target> {
    let mut object = Object::open(cx, at)?;
    let group = object.optional(cx, "group", any_text).unwrap_or_default();
    let kind = object.required(cx, "kind", text);
    let name_at = object.field("name");
    let name = object.required(cx, "name", dns_name);
    object.finish(cx);
    let name = Name::new(cx.namespace.clone(), name?);
    let target = match (group.as_str(), kind?.as_str()) {
        ("", "Service") => Target::Service(name),
        ("gateway.networking.k8s.io", "Gateway") => Target::Gateway(name),
        ("gateway.networking.k8s.io", "HTTPRoute") => Target::Route(RouteKind::Http, name),
        ("gateway.networking.k8s.io", "GRPCRoute") => Target::Route(RouteKind::Grpc, name),
        (group, kind) => {
            let written =
                if group.is_empty() { kind.to_owned() } else { format!("{group}/{kind}") };
            let expected = "a Service (group `\"\"`), or a Gateway, HTTPRoute or GRPCRoute (group `gateway.networking.k8s.io`)";
            return cx
                .error(at, format!("a policy cannot hold for a {written}; expected {expected}"));
        }
    };
    if let Some(at) = name_at {
        cx.refer(&at, Referent::PolicyTarget(target.clone()));
    }
    Some(target)
}

fn load_balancer(cx: &mut Context, at: &At<'_>) -> Option<LoadBalancer> {
    let mut object = Object::open(cx, at)?;
    let algorithm = choice(&[
        ("RoundRobin", Algorithm::RoundRobin),
        ("LeastRequest", Algorithm::LeastRequest),
        ("PeakEwma", Algorithm::PeakEwma),
        ("Random", Algorithm::Random),
        ("RingHash", Algorithm::RingHash),
        ("Maglev", Algorithm::Maglev),
    ]);
    let algorithm = object.optional(cx, "type", algorithm).unwrap_or(Algorithm::LeastRequest);
    let hash_on = object.optional(cx, "hashOn", hash_on);
    object.finish(cx);
    match (algorithm, &hash_on) {
        (Algorithm::RingHash | Algorithm::Maglev, None) => {
            cx.warn(
                at,
                "without `hashOn` every request gets a hash of its own, so this chooses at random",
            );
        }
        (
            Algorithm::RoundRobin
            | Algorithm::LeastRequest
            | Algorithm::PeakEwma
            | Algorithm::Random,
            Some(_),
        ) => {
            cx.warn(at, "`hashOn` has no effect: only RingHash and Maglev choose by hash");
        }
        _ => {}
    }
    Some(LoadBalancer { algorithm, hash_on })
}

fn hash_on(cx: &mut Context, at: &At<'_>) -> Option<HashOn> {
    let mut object = Object::open(cx, at)?;
    object.exactly_one(cx, &["header", "cookie", "sourceIp"]);
    let header = object.optional(cx, "header", header_name).map(HashOn::Header);
    let cookie = object.optional(cx, "cookie", |cx, at| {
        let mut object = Object::open(cx, at)?;
        let name = object.required(cx, "name", text);
        let life = object.optional(cx, "ttl", duration);
        object.finish(cx);
        Some(HashOn::Cookie(name?, life))
    });
    let source = object.optional(cx, "sourceIp", choice_true).map(|()| HashOn::SourceIp);
    object.finish(cx);
    header.or(cookie).or(source)
}

fn choice_true(cx: &mut Context, at: &At<'_>) -> Option<()> {
    match super::decode::boolean(cx, at)? {
        true => Some(()),
        false => cx.expected(at, "`true` (leave the field out otherwise)"),
    }
}

fn circuit_breaker(cx: &mut Context, at: &At<'_>) -> Option<CircuitBreaker> {
    let mut object = Object::open(cx, at)?;
    let limit = whole(0..=u32::MAX);
    let breaker = CircuitBreaker {
        max_connections: object.optional(cx, "maxConnections", &limit),
        max_pending_requests: object.optional(cx, "maxPendingRequests", &limit),
        max_requests: object.optional(cx, "maxRequests", &limit),
        max_retries: object.optional(cx, "maxRetries", &limit),
    };
    object.finish(cx);
    Some(breaker)
}

fn outlier_detection(cx: &mut Context, at: &At<'_>) -> Option<OutlierDetection> {
    let mut object = Object::open(cx, at)?;
    let count = whole(0..=u32::MAX);
    let detection = OutlierDetection {
        consecutive_5xx: object.optional(cx, "consecutive5xx", &count),
        consecutive_gateway_errors: object.optional(cx, "consecutiveGatewayErrors", &count),
        consecutive_local_origin_failures: object.optional(
            cx,
            "consecutiveLocalOriginFailures",
            &count,
        ),
        interval: object.optional(cx, "interval", some_time),
        base_ejection_time: object.optional(cx, "baseEjectionTime", some_time),
        max_ejection_time: object.optional(cx, "maxEjectionTime", some_time),
        max_ejection_percent: object.optional(cx, "maxEjectionPercent", whole(0..=100)),
    };
    object.finish(cx);
    if let (Some(base), Some(longest)) = (detection.base_ejection_time, detection.max_ejection_time)
        && base > longest
    {
        cx.error::<()>(at, "baseEjectionTime is longer than maxEjectionTime");
    }
    Some(detection)
}

/// A duration that is not 0.
pub(super) fn some_time(cx: &mut Context, at: &At<'_>) -> Option<Duration> {
    match duration(cx, at)? {
        Duration::ZERO => cx.expected(at, "a duration longer than 0"),
        time => Some(time),
    }
}

fn retry(cx: &mut Context, at: &At<'_>) -> Option<Retry> {
    let mut object = Object::open(cx, at)?;
    let retry = Retry {
        on: object.list(cx, "on", retry_on),
        codes: object.list(cx, "codes", whole(400..=599)),
        attempts: object.optional(cx, "attempts", whole(0..=100)).unwrap_or(2),
        per_try_timeout: object.optional(cx, "perTryTimeout", some_time),
        backoff: object.optional(cx, "backoff", some_time),
        budget: object.optional(cx, "budget", |cx, at| {
            let mut object = Object::open(cx, at)?;
            let percent = object.optional(cx, "percent", percent).unwrap_or(20.0);
            let min_per_second =
                object.optional(cx, "minPerSecond", whole(0..=1_000_000)).unwrap_or(10);
            object.finish(cx);
            Some(RetryBudget { percent, min_per_second })
        }),
    };
    object.finish(cx);
    if retry.on.is_empty() && retry.codes.is_empty() && retry.attempts > 0 {
        cx.error::<()>(at, "it says neither `on` nor `codes`, so nothing would be tried again");
    }
    Some(retry)
}

fn retry_on(cx: &mut Context, at: &At<'_>) -> Option<String> {
    let written = text(cx, at)?;
    if RETRY_ON.contains(&written.as_str()) {
        return Some(written);
    }
    let meant = nearest(&written, RETRY_ON).map(|name| format!(", did you mean `{name}`?"));
    let message = format!("unknown condition `{written}`{}", meant.unwrap_or_default());
    cx.error(at, format!("{message}; expected one of {}", quoted(&RETRY_ON)))
}

fn timeouts(cx: &mut Context, at: &At<'_>) -> Option<PolicyTimeouts> {
    let mut object = Object::open(cx, at)?;
    let timeouts = PolicyTimeouts {
        request: object.optional(cx, "request", duration),
        idle: object.optional(cx, "idle", duration),
        connect: object.optional(cx, "connect", some_time),
    };
    object.finish(cx);
    Some(timeouts)
}
