//! The deadlines of an exchange, watched with one timer.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use super::timers::Timers;
use crate::http::meter::Meter;
use crate::policy::timeout::Timeouts;
use crate::telemetry::reason::Reason;

/// When an exchange has taken too long.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    started: Instant,
    timeouts: Timeouts,
    /// Without a byte either way.
    idle: Option<Duration>,
    /// Of the connection manager: until the request is complete.
    request: Option<Duration>,
    meter: Option<Meter>,
}

impl Clock {
    pub(super) fn new(
        started: Instant,
        timeouts: Timeouts,
        idle: Option<Duration>,
        request: Option<Duration>,
        meter: Option<Meter>,
    ) -> Self {
        Self { started, timeouts, idle, request, meter }
    }

    /// The next deadline as things stand, and what passing it means. `active`: when a byte last
    /// went by in the other direction; `tried`: when the try that is under way began, or its last
    /// byte came.
    pub(super) fn next(
        &self,
        active: Instant,
        tried: Option<Instant>,
    ) -> Option<(Instant, Reason)> {
        let ended = self.meter.as_ref().map_or(Some(self.started), Meter::ended);
        let moved = self.meter.as_ref().map_or(active, |meter| meter.last_activity().max(active));
        // The route's timeout begins when the request is complete (Envoy: `RouteAction.timeout`).
        let global =
            ended.and_then(|ended| Some((ended + self.timeouts.global?, Reason::RequestTimeout)));
        let request = match ended {
            Some(_) => None,
            None => {
                self.request.map(|limit| (self.started + limit, Reason::DownstreamRequestTimeout))
            }
        };
        let stream =
            self.timeouts.max_stream.map(|limit| (self.started + limit, Reason::MaxDuration));
        let idle = self.idle.map(|limit| (moved + limit, Reason::StreamIdleTimeout));
        let try_idle = self.timeouts.per_try_idle.zip(tried).map(|(limit, tried)| {
            let moved = self.meter.as_ref().map_or(tried, |meter| meter.last_activity().max(tried));
            (moved + limit, Reason::PerTryIdleTimeout)
        });
        [global, request, stream, idle, try_idle].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Whether the whole request has been read.
    pub(super) fn request_complete(&self) -> bool {
        self.meter.as_ref().is_none_or(|meter| meter.ended().is_some())
    }

    /// Returns when a deadline has passed before any response came. `tried`: when the try began
    /// that is under way.
    pub(super) async fn run_out(&self, tried: Option<Instant>, timers: &Timers) -> Reason {
        let mut timer = timers.timer();
        // A deadline that has passed since the try began is seen by the timer.
        let mut now = tried.unwrap_or_else(Instant::now);
        loop {
            let per_try = tried.zip(self.timeouts.per_try);
            let per_try = per_try.map(|(at, limit)| (at + limit, Reason::PerTryTimeout));
            let next = [self.next(self.started, tried), per_try];
            let next = next.into_iter().flatten().min_by_key(|(at, _)| *at);
            let Some((at, reason)) = next else {
                self.request_end().await;
                if self.next(self.started, tried).is_none() {
                    // No limit at all.
                    std::future::pending::<()>().await;
                }
                now = Instant::now();
                continue;
            };
            if at <= now {
                return reason;
            }
            if self.request_complete() {
                poll_fn(|cx| timer.poll(cx, at)).await;
            } else {
                // The end of the request starts another deadline.
                tokio::select! {
                    () = poll_fn(|cx| timer.poll(cx, at)) => {}
                    () = self.request_end() => {}
                }
            }
            now = Instant::now();
        }
    }

    async fn request_end(&self) {
        if let Some(meter) = &self.meter {
            meter.wait_end().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_timeout_begins_when_the_request_is_complete() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let timeouts = Timeouts { global: Some(second), ..Timeouts::default() };
        let meter = Meter::new(start);
        let idle = Some(second * 300);
        let clock = Clock::new(start, timeouts, idle, Some(second * 9), Some(meter.clone()));
        assert_eq!(
            clock.next(start, None),
            Some((start + second * 9, Reason::DownstreamRequestTimeout))
        );
        meter.end(start + second * 2);
        assert_eq!(clock.next(start, None), Some((start + second * 3, Reason::RequestTimeout)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_deadline_is_the_one_that_counts() {
        let start = Instant::now();
        let short = Duration::from_millis(20);
        let timeouts = Timeouts { global: Some(short * 50), ..Timeouts::default() };
        let clock = Clock::new(start, timeouts, None, None, None);
        assert_eq!(clock.next(start, None), Some((start + short * 50, Reason::RequestTimeout)));
    }
}
