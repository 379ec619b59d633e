//! Limits of speed: of all requests together (Envoy: bandwidth limit filter), or of one answer
//! (fault filter, `response_rate_limit`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Body as _;

use super::super::body::AnswerBody;
use crate::http::body::{BoxBody, RequestBody};
use crate::http::throttle::{Allowance, Step, Throttled};
use crate::http::transform::{Change, Changed};
use crate::model::protection::BandwidthLimit;
use crate::telemetry::stats::{Counter, Gauge, GaugeGuard, Registry};

/// A speed limit's ticks in the fault filter.
const FAULT_TICK: Duration = Duration::from_millis(63);

/// What is shared by the requests of one configuration.
struct Shared {
    request: Arc<Allowance>,
    response: Arc<Allowance>,
    stats: BandwidthStats,
}

struct BandwidthStats {
    request: DirectionStats,
    response: DirectionStats,
}

#[derive(Clone)]
struct DirectionStats {
    enabled: Counter,
    enforced: Counter,
    pending: Gauge,
    incoming_size: Gauge,
    incoming_total_size: Counter,
    allowed_size: Gauge,
    allowed_total_size: Counter,
}

impl DirectionStats {
    /// Flat `<prefix>.http_bandwidth_limit.…`, as in Envoy.
    fn new(registry: &Registry, config: &BandwidthLimit, direction: &str) -> Self {
        let label = || ("envoy_http_bandwidth_limit_prefix", Arc::clone(&config.stat_prefix));
        let flat =
            |name: &str| format!("{}.http_bandwidth_limit.{direction}_{name}", config.stat_prefix);
        let counter = |name: &str| {
            let family = format!("http_bandwidth_limit_{direction}_{name}");
            registry.prefixed_counter(&flat(name), &family, label())
        };
        let gauge = |name: &str| {
            let family = format!("http_bandwidth_limit_{direction}_{name}");
            registry.prefixed_gauge(&flat(name), &family, label())
        };
        Self {
            enabled: counter("enabled"),
            enforced: counter("enforced"),
            pending: gauge("pending"),
            incoming_size: gauge("incoming_size"),
            incoming_total_size: counter("incoming_total_size"),
            allowed_size: gauge("allowed_size"),
            allowed_total_size: counter("allowed_total_size"),
        }
    }

    /// Counts what goes through a body, and how long it had to wait.
    fn watch(&self, held_up: Option<HeldUp>) -> Box<dyn FnMut(Step) + Send> {
        let stats = self.clone();
        let mut pending: Option<GaugeGuard> = None;
        let mut waits_since: Option<Instant> = None;
        Box::new(move |step| match step {
            Step::Came(bytes) => {
                if pending.is_none() {
                    pending = Some(stats.pending.guard());
                }
                stats.incoming_size.set(i64::try_from(bytes).unwrap_or(i64::MAX));
                stats.incoming_total_size.add(bytes as u64);
            }
            Step::Went(bytes) => {
                stats.allowed_size.set(i64::try_from(bytes).unwrap_or(i64::MAX));
                stats.allowed_total_size.add(bytes as u64);
                if let (Some(since), Some(held_up)) = (waits_since.take(), &held_up) {
                    held_up.add(since.elapsed());
                }
            }
            Step::Waits => {
                stats.enforced.inc();
                waits_since.get_or_insert_with(Instant::now);
            }
        })
    }
}

/// How long a filter held a body up so far.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldUp(Arc<Mutex<Duration>>);

impl HeldUp {
    fn add(&self, more: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += more;
    }

    fn millis(&self) -> u64 {
        let held = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        u64::try_from(held.as_millis()).unwrap_or(u64::MAX)
    }
}

/// What is remembered of a request for the trailers of its answer.
#[derive(Clone, Debug)]
pub(crate) struct Limited {
    config: Arc<BandwidthLimit>,
    since: Instant,
    request: HeldUp,
}

fn shared<'a>(config: &'a BandwidthLimit, registry: &Registry) -> &'a Shared {
    config.kept.get(|| {
        let speed = config.kbps.saturating_mul(1024);
        Shared {
            request: Arc::new(Allowance::new(speed, config.interval)),
            response: Arc::new(Allowance::new(speed, config.interval)),
            stats: BandwidthStats {
                request: DirectionStats::new(registry, config, "request"),
                response: DirectionStats::new(registry, config, "response"),
            },
        }
    })
}

/// Slows the request's body down.
pub(super) fn request(
    config: &Arc<BandwidthLimit>,
    registry: &Registry,
    request: &mut Request<RequestBody>,
) -> Limited {
    let held_up = HeldUp::default();
    if config.request {
        let shared = shared(config, registry);
        shared.stats.request.enabled.inc();
        if !matches!(request.body(), RequestBody::Empty) {
            let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
            let watch = shared.stats.request.watch(Some(held_up.clone()));
            let body = Throttled::boxed(body.boxed(), Arc::clone(&shared.request), Some(watch));
            *request.body_mut() = RequestBody::Boxed(body);
        }
    }
    Limited { config: Arc::clone(config), since: Instant::now(), request: held_up }
}

/// Slows the answer's body down.
pub(super) fn response(
    limited: &Limited,
    registry: &Registry,
    response: Response<AnswerBody>,
) -> Response<AnswerBody> {
    let config = &limited.config;
    if !config.response {
        return response;
    }
    let shared = shared(config, registry);
    shared.stats.response.enabled.inc();
    if response.body().is_end_stream() {
        return response;
    }
    let held_up = HeldUp::default();
    let watch = shared.stats.response.watch(Some(held_up.clone()));
    response.map(|body| {
        let body = Throttled::boxed(body.boxed(), Arc::clone(&shared.response), Some(watch));
        AnswerBody::Boxed(match &config.trailers {
            None => body,
            Some(_) => with_trailers(body, limited.clone(), held_up),
        })
    })
}

fn with_trailers(body: BoxBody, limited: Limited, response: HeldUp) -> BoxBody {
    Changed::boxed(body, Told { limited, response, since: Instant::now() })
}

/// Adds the trailers that tell how long things took.
struct Told {
    limited: Limited,
    response: HeldUp,
    since: Instant,
}

impl Change for Told {
    fn data(
        &mut self,
        piece: &[u8],
        _more: bool,
        out: &mut bytes::BytesMut,
    ) -> Result<(), crate::http::body::BodyError> {
        out.extend_from_slice(piece);
        Ok(())
    }

    fn end(
        &mut self,
        trailers: Option<HeaderMap>,
        _out: &mut bytes::BytesMut,
    ) -> Result<Option<HeaderMap>, crate::http::body::BodyError> {
        let (request, response) = (self.limited.request.millis(), self.response.millis());
        if request == 0 && response == 0 {
            return Ok(trailers);
        }
        let mut trailers = trailers.unwrap_or_default();
        let prefix = self.limited.config.trailers.as_deref().unwrap_or("");
        let dash = if prefix.is_empty() { "" } else { "-" };
        let took = |since: Instant| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let whole = took(self.since);
        for (name, value) in [
            ("request-delay-ms", took(self.limited.since).saturating_sub(whole)),
            ("response-delay-ms", whole),
            ("request-filter-delay-ms", request),
            ("response-filter-delay-ms", response),
        ] {
            if let Ok(name) = format!("{prefix}{dash}bandwidth-{name}").parse::<HeaderName>() {
                trailers.insert(name, HeaderValue::from(value));
            }
        }
        Ok(Some(trailers))
    }
}

/// An answer at this speed, alone; `held` lasts as long as its body.
pub(super) fn alone(
    kbps: u64,
    response: Response<AnswerBody>,
    held: GaugeGuard,
) -> Response<AnswerBody> {
    if response.body().is_end_stream() {
        return response;
    }
    let allowance = Arc::new(Allowance::new(kbps.saturating_mul(1024), FAULT_TICK));
    let watch: Box<dyn FnMut(Step) + Send> = Box::new(move |_| {
        let _ = &held;
    });
    response.map(|body| AnswerBody::Boxed(Throttled::boxed(body.boxed(), allowance, Some(watch))))
}
