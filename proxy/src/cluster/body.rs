//! The body of an answer. It holds the connection until its end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::endpoint::Endpoint;
use super::learn;
use super::pool::{Connection, Content, Lease};
use super::stats::ClusterStats;
use crate::http::body::BodyError;
use crate::http::presence::Presence;
use crate::http::straight::Straight;
use crate::net::splice::Pipe;

/// What an endpoint answers. When it has been read to its end the connection serves others; when
/// it is dropped before, an HTTP/1.1 connection is closed and an HTTP/2 stream is reset.
pub struct ResponseBody {
    content: Content,
    /// None: the end was reached, or there was nothing.
    lease: Option<Lease>,
    active: Option<ActiveRequest>,
    connection: Arc<Connection>,
    received: u64,
    /// Headers that the answer came with.
    present: Presence,
}

/// Counts a request as under way, at its endpoint and in its cluster.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    endpoint: Arc<Endpoint>,
    stats: Arc<ClusterStats>,
}

impl ResponseBody {
    /// `stays`: the connection goes on as a byte stream, and is held until [`Self::release`].
    pub(super) fn new(
        (content, present): (Content, Presence),
        lease: Lease,
        active: ActiveRequest,
        stays: bool,
    ) -> Self {
        let connection = Arc::clone(lease.connection());
        let (lease, active) = (Some(lease), Some(active));
        let mut body = Self { content, lease, active, connection, received: 0, present };
        if !stays {
            body.release_at_end();
        }
        body
    }

    /// Bytes of the body so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Headers that the answer came with.
    pub(crate) fn present(&self) -> Presence {
        self.present
    }

    /// The connection that it comes from.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    fn release_at_end(&mut self) {
        if self.is_end_stream() {
            self.release();
        }
    }

    /// Give the connection, or the place on it, back.
    pub(crate) fn release(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.complete(match &mut self.content {
                Content::Http2(arriving) => arriving.take_ended(),
                Content::Http1 | Content::Carried(_) => None,
            });
        }
        self.active = None;
    }

    fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.content {
            Content::Http1 => match &mut self.lease {
                Some(lease) => lease.poll_frame(cx),
                None => Poll::Ready(None),
            },
            Content::Carried(carried) => carried.poll_frame(cx),
            Content::Http2(arriving) => Pin::new(arriving).poll_frame(cx),
        }
    }

    fn learn(&self, trailers: &HeaderMap) {
        if let Some(active) = &self.active {
            let balancer = &self.connection.connector.config.balancer;
            learn::reported(balancer, &active.endpoint, trailers);
        }
    }

    fn fail(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            self.connection.connector.stats.upstream_rq_rx_reset.inc();
            lease.failed();
        }
        self.active = None;
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("connection", &self.connection.id())
            .field("received", &self.received)
            .field("complete", &self.lease.is_none())
            .finish()
    }
}

impl Straight for ResponseBody {
    fn straight(&self) -> u64 {
        match (&self.content, &self.lease) {
            (Content::Http1, Some(lease)) => lease.straight(),
            _ => 0,
        }
    }

    fn poll_straight(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Result<usize, BodyError>> {
        let Some(lease) = &mut self.lease else { return Poll::Ready(Ok(0)) };
        let passed = ready!(lease.poll_straight(cx, pipe));
        match &passed {
            Ok(bytes) => {
                self.received += *bytes as u64;
                self.release_at_end();
            }
            Err(_) => self.fail(),
        }
        Poll::Ready(passed.map_err(BodyError::from))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        Poll::Ready(match ready!(this.poll_content(cx)) {
            Some(Ok(frame)) => {
                this.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                if let Some(trailers) = frame.trailers_ref() {
                    this.learn(trailers);
                    this.release();
                } else {
                    // Whoever reads may stop as soon as it knows that nothing follows.
                    this.release_at_end();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                this.fail();
                Some(Err(error))
            }
            None => {
                this.release();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Http1 => self.lease.as_ref().is_none_or(Lease::is_over),
            Content::Carried(carried) => carried.is_over(),
            Content::Http2(arriving) => arriving.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let left = match &self.content {
            Content::Http1 => self.lease.as_ref().map_or(Some(0), Lease::left),
            Content::Carried(carried) => carried.left(),
            Content::Http2(arriving) => return arriving.size_hint(),
        };
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl ActiveRequest {
    pub(super) fn new(endpoint: &Arc<Endpoint>, stats: &Arc<ClusterStats>) -> Self {
        stats.upstream_rq_active.add(1);
        endpoint.counters().rq_active.fetch_add(1, Ordering::Relaxed);
        Self { endpoint: Arc::clone(endpoint), stats: Arc::clone(stats) }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.stats.upstream_rq_active.add(-1);
        self.endpoint.counters().rq_active.fetch_sub(1, Ordering::Relaxed);
    }
}
