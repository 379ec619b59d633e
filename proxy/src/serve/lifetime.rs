//! When a downstream connection ends: it is drained, has been idle or open for too long, or has
//! served enough.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::header::{CONNECTION, HeaderValue};
use http::{Response, StatusCode};
use tokio::sync::Notify;

use super::listener::Http;
use super::overload::Overload;
use super::stats::HttpStats;
use crate::model::http::HttpManager;
use crate::model::overload::Timer;
use crate::net::drain::Watch;
use crate::telemetry::reason::Reason;

/// How long a drained HTTP/1 connection without a request waits for one. Whoever sends a request
/// just then would find the connection closed, and cannot know whether it was read; so the next
/// answer says `Connection: close`, and only a connection that stays silent is closed unasked.
const IDLE_GRACE: Duration = Duration::from_secs(1);

/// A connection is looked at after so many requests (Envoy:
/// `overload.premature_reset_total_stream_count`).
const RESETS_AFTER: u64 = 500;
/// A request that its client resets in this time is a premature one (Envoy:
/// `overload.premature_reset_min_stream_lifetime_seconds`).
const PREMATURE: Duration = Duration::from_secs(1);
/// How long GOAWAY has to be written.
const FAREWELL: Duration = Duration::from_millis(200);

/// What connections can do, whatever version of HTTP they speak.
pub(super) trait Graceful: Future {
    /// Finish what is under way, then close.
    fn finish(self: Pin<&mut Self>);
}

/// What a connection is told while it is served.
enum Word {
    /// It has to end now.
    Closing,
    /// It has to end soon.
    Draining,
    /// It has served enough, or is abused.
    Enough,
    /// Its limits have changed.
    Rescaled,
    /// A limit of time.
    Limit,
}

/// What a connection has served, and what it may.
#[derive(Debug)]
pub(super) struct Lifetime {
    /// Requests under way.
    active: AtomicUsize,
    /// Requests so far.
    served: AtomicU64,
    /// When the last request ended, in milliseconds after `since`.
    idle_from: AtomicU64,
    since: Instant,
    /// The connection has served enough, or is abused.
    enough: Notify,
    /// Requests that ended.
    ended: AtomicU64,
    /// Requests that the client reset at once.
    premature: AtomicU64,
    /// Most requests are reset at once: an attack (CVE-2023-44487).
    abused: AtomicBool,
    /// The next answer is the last one, and says so.
    goodbye: AtomicBool,
    /// Things are scarce: it has been told to end.
    ending: AtomicBool,
    idle: Option<Duration>,
    max_age: Option<Duration>,
    max_requests: Option<u32>,
    /// HTTP/2 has GOAWAY for what HTTP/1 says in an answer.
    h2: bool,
    /// The connection is no more.
    over: AtomicBool,
}

impl Lifetime {
    /// Of a connection that begins now.
    pub(super) fn new(manager: &HttpManager, h2: bool) -> Self {
        Self {
            active: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            idle_from: AtomicU64::new(0),
            since: Instant::now(),
            enough: Notify::new(),
            ended: AtomicU64::new(0),
            premature: AtomicU64::new(0),
            abused: AtomicBool::new(false),
            goodbye: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            idle: manager.timeouts.idle.filter(|idle| !idle.is_zero()),
            max_age: manager.timeouts.max_connection_duration,
            max_requests: manager.limits.max_requests_per_connection,
            h2,
            over: AtomicBool::new(false),
        }
    }

    /// The connection is no more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// How a client has left who wants no more of an exchange. None: it is still there, for HTTP/1 knows no other way.
    pub(super) fn departure(&self) -> Option<Reason> {
        if self.over.load(Ordering::Relaxed) {
            return Some(Reason::DownstreamTermination);
        }
        self.h2.then_some(Reason::DownstreamReset)
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.active.load(Ordering::Relaxed) > 0
    }

    /// How long it has been open.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// A request begins.
    pub(super) fn request(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
        let served = self.served.fetch_add(1, Ordering::Relaxed) + 1;
        if self.max_requests.is_some_and(|limit| served >= u64::from(limit)) {
            self.enough.notify_one();
        }
    }

    /// A request ended at this time: with an answer, or without one after so long.
    pub(super) fn request_ended(&self, at: Instant, unanswered: Option<Duration>) {
        let open = at.saturating_duration_since(self.since);
        self.idle_from.store(crate::model::duration::millis(open), Ordering::Relaxed);
        self.active.fetch_sub(1, Ordering::Relaxed);
        let ended = self.ended.fetch_add(1, Ordering::Relaxed) + 1;
        let premature = if unanswered.is_some_and(|after| after < PREMATURE) {
            self.premature.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            self.premature.load(Ordering::Relaxed)
        };
        if ended >= RESETS_AFTER && premature * 2 >= ended {
            self.abused.store(true, Ordering::Relaxed);
            self.enough.notify_one();
        }
    }

    /// Marks the last answer of an HTTP/1 connection that is being drained.
    pub(super) fn say_goodbye<B>(&self, response: &mut Response<B>) {
        if self.goodbye.load(Ordering::Relaxed)
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Marks an answer as the last one (HTTP/1), or has the connection end after what is under way
    /// (HTTP/2). False: that was said already.
    pub(super) fn end_soon<B>(&self, response: &mut Response<B>) -> bool {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            || self.ending.swap(true, Ordering::Relaxed)
        {
            return false;
        }
        if self.h2 {
            self.enough.notify_one();
        } else {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        true
    }

    /// Drive a connection until it ends.
    pub(super) async fn watch_over<E>(
        &self,
        serving: impl Graceful<Output = Result<(), E>>,
        drain: &Watch,
        http: &Http,
    ) -> Result<(), E> {
        let (stats, overload) = (&http.stats, &*http.overload);
        let mut serving = std::pin::pin!(serving);
        let mut finishing = false;
        let mut grace = None;
        loop {
            let limit = match grace {
                Some(grace) => Some(grace),
                None => self.next_limit(overload),
            };
            let word = async {
                tokio::select! {
                    () = drain.closing(), if finishing => Word::Closing,
                    () = drain.draining(), if !finishing && grace.is_none() => Word::Draining,
                    () = self.enough.notified() => Word::Enough,
                    () = overload.rescaled(), if !finishing => Word::Rescaled,
                    () = sleep_until(limit), if !finishing && limit.is_some() => Word::Limit,
                }
            };
            // In a set of its own, which knows who woke it: nothing of this is looked at for every request.
            let mut words = FuturesUnordered::from_iter([word]);
            let word = tokio::select! {
                biased;
                ended = serving.as_mut() => return ended,
                Some(word) = words.next() => word,
            };
            drop(words);
            match word {
                Word::Closing => return Ok(()),
                Word::Draining => {
                    stats.downstream_cx_drain_close.inc();
                    if !self.h2 && self.active.load(Ordering::Relaxed) == 0 {
                        self.goodbye.store(true, Ordering::Relaxed);
                        grace = Some(Instant::now() + IDLE_GRACE);
                        continue;
                    }
                }
                Word::Enough => {
                    if self.abused.load(Ordering::Relaxed) {
                        stats.downstream_rq_too_many_premature_resets.inc();
                        return farewell(serving).await;
                    }
                    if finishing {
                        continue;
                    }
                    stats.downstream_cx_max_requests_reached.inc();
                }
                Word::Rescaled => continue,
                Word::Limit => {
                    if grace.is_none() && !self.has_passed(limit, stats, overload) {
                        continue;
                    }
                }
            }
            finishing = true;
            serving.as_mut().finish();
        }
    }

    /// When the connection should be looked at next, because of its idle time or its age.
    fn next_limit(&self, overload: &Overload) -> Option<Instant> {
        let idle_from = Duration::from_millis(self.idle_from.load(Ordering::Relaxed));
        let idle = self.idle.map(|idle| {
            let idle = overload.timeout(Timer::ConnectionIdle, idle);
            if self.active.load(Ordering::Relaxed) > 0 {
                Instant::now() + idle
            } else {
                self.since + idle_from + idle
            }
        });
        let age = self.oldest(overload);
        idle.into_iter().chain(age).min()
    }

    /// When it is too old.
    fn oldest(&self, overload: &Overload) -> Option<Instant> {
        let limit = self.max_age?;
        Some(self.since + overload.timeout(Timer::ConnectionMax, limit))
    }

    /// Whether a limit has really been passed; counts which.
    fn has_passed(&self, limit: Option<Instant>, stats: &HttpStats, overload: &Overload) -> bool {
        let now = Instant::now();
        if self.oldest(overload).is_some_and(|end| end <= now) {
            stats.downstream_cx_max_duration_reached.inc();
            return true;
        }
        // A request may have come and gone since the timer was set.
        let passed = self.active.load(Ordering::Relaxed) == 0
            && self.next_limit(overload).is_some_and(|next| next <= now && limit.is_some());
        if passed {
            stats.downstream_cx_idle_timeout.inc();
        }
        passed
    }
}

/// Ends a connection without much waiting.
async fn farewell<E>(
    mut serving: Pin<&mut impl Graceful<Output = Result<(), E>>>,
) -> Result<(), E> {
    serving.as_mut().finish();
    tokio::time::timeout(FAREWELL, serving).await.unwrap_or(Ok(()))
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
