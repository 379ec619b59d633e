//! What reads and writes an HTTP/2 connection, until it is closed.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use bytes::Bytes;
use h2::client::{Builder, Connection};

use super::{ASSUMED, Streams};
use crate::cluster::pool::connection::Counted;
use crate::cluster::pool::{Home, Job};
use crate::http::gather::{Gather, Sender};
use crate::http::h2::{CONNECTION_WINDOW, KeepAlive, STREAM_WINDOW};
use crate::model::cluster::Http2Options;

/// Bytes of a header block: as much as HTTP/1 heads may have here.
const MAX_HEADER_LIST: u32 = 256 << 10;
/// Bytes of a request's body that wait for the connection to take them.
const SEND_BUFFER: usize = 1 << 20;

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
    let mut alive = KeepAlive::new(&job.connector.config.http2, || connection.ping_pong());
    let about = Arc::clone(&known);
    let mut received = 0;
    let work = poll_fn(move |cx| {
        if let Some(streams) = weak.upgrade() {
            streams.drop_ended();
        }
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
