//! What reads and writes an HTTP/2 connection, until it is closed.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection};
use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

use super::{ASSUMED, Streams};
use crate::cluster::pool::connection::Counted;
use crate::cluster::pool::{Home, Job};
use crate::http::gather::{Gather, Sender};
use crate::model::cluster::Http2Options;

/// Bytes that an endpoint may send ahead on a stream, where the configuration says nothing.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for a connection.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of a header block: as much as HTTP/1 heads may have here.
const MAX_HEADER_LIST: u32 = 256 << 10;
/// Bytes of a request's body that wait for the connection to take them.
const SEND_BUFFER: usize = 1 << 20;
/// How long a PING may stay unanswered where the configuration says nothing.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections by a cluster's options.
pub(in super::super) fn builder(options: &Http2Options) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(ASSUMED as usize)
        .initial_window_size(options.initial_stream_window.unwrap_or(STREAM_WINDOW))
        .initial_connection_window_size(
            options.initial_connection_window.unwrap_or(CONNECTION_WINDOW),
        )
        .max_header_list_size(MAX_HEADER_LIST)
        .max_send_buffer_size(SEND_BUFFER);
    builder
}

/// Runs a connection until it is closed.
pub(in super::super) fn drive(
    job: &Job,
    streams: &Arc<Streams>,
    sender: Sender<Counted>,
    mut connection: Connection<Gather<Counted>, Bytes>,
) {
    let home = Home::of(job);
    let known = Arc::clone(streams.connection());
    let weak = Arc::downgrade(streams);
    let mut alive = KeepAlive::new(&job.connector.config.http2, &mut connection);
    let about = Arc::clone(&known);
    let mut received = 0;
    let work = poll_fn(move |cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        let so_far = about.received.load(Ordering::Relaxed);
        if so_far != received || polled.is_ready() {
            received = so_far;
            // There is no other way to hear of what concerns the connection as a whole.
            if let Some(streams) = weak.upgrade() {
                streams.look();
            }
        }
        // After reading: what came while nobody had time to look counts.
        if polled.is_pending()
            && let Some(alive) = &mut alive
            && alive.poll(cx, received).is_ready()
        {
            if let Some(streams) = weak.upgrade() {
                streams.time_out();
            }
            return Poll::Ready(());
        }
        polled.map(drop)
    });
    let task = tokio::spawn(async move {
        sender.by(work).await;
        home.closed(&known);
    });
    drop(streams.connection().driver.set(task.abort_handle()));
}

/// Asks an endpoint that has been silent whether it is still there (`connection_keepalive`).
struct KeepAlive {
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
    /// None: nobody is asked.
    fn new(options: &Http2Options, of: &mut Connection<Gather<Counted>, Bytes>) -> Option<Self> {
        let interval = options.keepalive_interval?;
        let now = Instant::now();
        Some(Self {
            interval,
            timeout: options.keepalive_timeout.unwrap_or(PING_TIMEOUT),
            pings: of.ping_pong()?,
            timer: Box::pin(tokio::time::sleep_until(now + interval)),
            waiting: false,
            heard: (0, now),
        })
    }

    /// `received`: bytes so far. Ready: there is nobody.
    fn poll(&mut self, cx: &mut Context<'_>, received: u64) -> Poll<()> {
        if self.heard.0 != received {
            self.heard = (received, Instant::now());
        }
        loop {
            if self.waiting && self.pings.poll_pong(cx).is_ready() {
                self.waiting = false;
                self.timer.as_mut().reset(Instant::now() + self.interval);
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
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
