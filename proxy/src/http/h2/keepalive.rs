//! PINGs to an end that is silent (`connection_keepalive`).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

use crate::model::cluster::Http2Options;

/// How long a PING may stay unanswered where the configuration says nothing.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Asks an end that has been silent whether it is still there.
#[derive(Debug)]
pub struct KeepAlive {
    interval: Duration,
    timeout: Duration,
    pings: PingPong,
    /// Until the next PING, or until the answer to the last one is too late.
    timer: Pin<Box<Sleep>>,
    waiting: bool,
    /// Bytes received when something was received last, and when that was.
    heard: (u64, Instant),
}

impl KeepAlive {
    /// As the configuration wants it. None: nobody is asked.
    pub fn new(options: &Http2Options, pings: impl FnOnce() -> Option<PingPong>) -> Option<Self> {
        let interval = options.keepalive_interval?;
        let now = Instant::now();
        Some(Self {
            interval,
            timeout: options.keepalive_timeout.unwrap_or(PING_TIMEOUT),
            pings: pings()?,
            timer: Box::pin(tokio::time::sleep_until(now + interval)),
            waiting: false,
            heard: (0, now),
        })
    }

    /// To be polled after the connection was read: what came while nobody had time to look counts. `received`: bytes so
    /// far. Ready: there is nobody.
    pub fn poll(&mut self, cx: &mut Context<'_>, received: u64) -> Poll<()> {
        if self.heard.0 != received {
            self.heard = (received, Instant::now());
        }
        loop {
            if self.waiting && self.pings.poll_pong(cx).is_ready() {
                self.waiting = false;
                self.timer.as_mut().reset(Instant::now() + self.interval);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.waiting {
                return Poll::Ready(());
            }
            let (now, due) = (Instant::now(), self.heard.1 + self.interval);
            if now < due {
                self.timer.as_mut().reset(due);
            } else {
                // It fails only while another one is under way.
                self.waiting = self.pings.send_ping(Ping::opaque()).is_ok();
                self.timer.as_mut().reset(now + self.timeout);
            }
        }
    }
}
