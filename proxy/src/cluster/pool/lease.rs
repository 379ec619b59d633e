//! A connection in the hands of one request. It goes back to its pool when the answer is complete,
//! and is closed when it is not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use http::{Request, Response};
use http_body::Frame;

use super::connection::Connection;
use super::http1::{self, Carried, Http1};
use super::http2::{self, Streams, TakeHead};
use super::{Fit, Job, Pool};
use crate::cluster::endpoint::{Endpoint, Host};
use crate::http::body::{BodyError, RequestBody};
use crate::http::h2::Arriving;
use crate::http::presence::Presence;
use crate::http::upgraded;
use crate::net::splice::Pipe;

/// A connection, or a stream of one, held by a request.
#[derive(Debug)]
pub(crate) struct Lease {
    endpoint: Arc<Endpoint>,
    at: usize,
    connection: Arc<Connection>,
    /// Taken out when it is given back.
    hold: Option<Hold>,
    state: State,
    /// It served a request before this one.
    reused: bool,
}

#[derive(Debug)]
enum Hold {
    Http1(Box<Http1>),
    Http2(Arc<Streams>),
    /// A task has the HTTP/1.1 connection, and will give it back.
    Carried,
    /// It is no HTTP any more.
    Switched,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing of a request is on it.
    Unused,
    /// A request is, and its answer is not complete.
    Busy,
    /// The answer is complete.
    Complete,
    /// It failed: counted by whoever saw that.
    Failed,
}

/// Where the body of an answer is read from.
#[derive(Debug)]
pub(crate) enum Content {
    /// The connection of the lease.
    Http1,
    /// The task that has this connection.
    Carried(Carried),
    Http2(Arriving),
}

/// Why a request was not answered.
#[derive(Debug)]
pub(crate) enum Cause {
    Http1(http1::Error),
    Http2(http2::Error),
}

/// A request that was not answered.
#[derive(Debug)]
pub(crate) struct SendFailure {
    pub(crate) cause: Cause,
    /// Not a byte of it was sent: the request is as it was.
    pub(crate) unsent: bool,
    /// The connection had served before.
    pub(crate) reused: bool,
    /// The endpoint sent nothing since this request.
    pub(crate) silent: bool,
    /// The endpoint ended TLS with this, in words, before it sent anything else.
    pub(crate) alert: Option<String>,
}

impl Lease {
    pub(super) fn http1(job: &Job, http1: Box<Http1>) -> Self {
        let connection = Arc::clone(http1.connection());
        connection.active.store(1, Ordering::Relaxed);
        connection.begin_request();
        Self::new(job, connection, Hold::Http1(http1))
    }

    pub(super) fn http2(job: &Job, streams: Arc<Streams>) -> Self {
        Self::new(job, Arc::clone(streams.connection()), Hold::Http2(streams))
    }

    fn new(job: &Job, connection: Arc<Connection>, hold: Hold) -> Self {
        let reused = connection.served.fetch_add(1, Ordering::Relaxed) > 0;
        Self {
            endpoint: Arc::clone(&job.endpoint),
            at: job.at,
            connection,
            hold: Some(hold),
            state: State::Unused,
            reused,
        }
    }

    /// The same place for another one, second-hand.
    fn empty(&self) -> Self {
        Self {
            endpoint: Arc::clone(&self.endpoint),
            at: self.at,
            connection: Arc::clone(&self.connection),
            hold: None,
            state: State::Unused,
            reused: true,
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.hold, Some(Hold::Http2(_)))
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(super) fn fit(&self) -> &Fit {
        &self.connection.fit
    }

    pub(super) fn host(&self) -> &Arc<Host> {
        &self.endpoint.host
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Sends a request, and waits for the head of the answer, with the headers that it has. HTTP/1.1 leaves the head of the
    /// request where it is; HTTP/2 takes it as `how` says, unless it could not be sent.
    ///
    /// # Errors
    /// The connection or the stream ended before that.
    pub(crate) async fn send(
        &mut self,
        request: &mut Request<RequestBody>,
        how: TakeHead,
    ) -> Result<(Response<Content>, Presence), SendFailure> {
        self.state = State::Busy;
        let heard = self.connection.received.load(Ordering::Relaxed);
        let sent = match &self.hold {
            Some(Hold::Http2(streams)) => match http2::send(streams, request, how).await {
                Ok(answer) => {
                    let present = Presence::of(answer.headers());
                    Ok((answer.map(Content::Http2), present))
                }
                Err((error, unsent)) => Err((Cause::Http2(error), unsent)),
            },
            _ => self.send_http1(request).await,
        };
        sent.map_err(|(cause, unsent)| {
            self.state = State::Failed;
            let now = self.connection.received.load(Ordering::Relaxed);
            SendFailure {
                cause,
                unsent,
                reused: self.reused,
                silent: now == heard,
                alert: self.connection.alert().filter(|_| now == 0).map(str::to_owned),
            }
        })
    }

    async fn send_http1(
        &mut self,
        request: &mut Request<RequestBody>,
    ) -> Result<(Response<Content>, Presence), (Cause, bool)> {
        let Some(Hold::Http1(http1)) = &mut self.hold else {
            return Err((Cause::Http1(http1::Error::Closed), true));
        };
        let answer = http1.send(request).await.map_err(|error| {
            let closed = matches!(error, http1::Error::Closed | http1::Error::Io(_));
            let unsent = closed && !http1.touched && !self.connection.has_sent();
            (Cause::Http1(error), unsent)
        })?;
        let mut head = answer.head;
        let content = if answer.switches {
            let (granting, on) = upgraded::pending();
            head.extensions.insert(on);
            if let Some(Hold::Http1(http1)) = self.hold.replace(Hold::Switched) {
                http1.switch(granting);
            }
            Content::Http1
        } else if http1.is_sending() {
            self.carry(std::mem::replace(request.body_mut(), RequestBody::Empty))
        } else {
            Content::Http1
        };
        Ok((Response::from_parts(head, content), answer.present))
    }

    /// The answer has begun, and the request is not sent.
    fn carry(&mut self, body: RequestBody) -> Content {
        let lease = self.empty();
        match self.hold.replace(Hold::Carried) {
            Some(Hold::Http1(http1)) => {
                let done = move |http1, whole| lease.end(http1, whole);
                Content::Carried(http1::carry(http1, body, done))
            }
            other => {
                self.hold = other;
                Content::Http1
            }
        }
    }

    /// The task has done what it could.
    fn end(mut self, http1: Box<Http1>, whole: bool) {
        self.state = if whole { State::Complete } else { State::Failed };
        self.hold = Some(Hold::Http1(http1));
    }

    /// The next piece of the answer, where the connection itself has it.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.hold {
            Some(Hold::Http1(http1)) => http1.poll_frame(cx),
            _ => Poll::Ready(None),
        }
    }

    /// Bytes of the answer, all that is left of it, that can go past this program's memory.
    pub(crate) fn straight(&self) -> u64 {
        self.own().map_or(0, Http1::straight)
    }

    /// The next of them. 0: they have to be read.
    pub(crate) fn poll_straight(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<io::Result<usize>> {
        match &mut self.hold {
            Some(Hold::Http1(http1)) => http1.poll_straight(cx, pipe),
            _ => Poll::Ready(Ok(0)),
        }
    }

    /// All of the answer has been read, where the connection itself has it.
    pub(crate) fn is_over(&self) -> bool {
        self.own().is_none_or(Http1::is_over)
    }

    /// Bytes of the answer that are still to come, where that is known and the connection itself has it.
    pub(crate) fn left(&self) -> Option<u64> {
        self.own().map_or(Some(0), Http1::left)
    }

    fn own(&self) -> Option<&Http1> {
        match &self.hold {
            Some(Hold::Http1(http1)) => Some(http1),
            _ => None,
        }
    }

    /// The answer broke off; whoever saw it has counted it.
    pub(crate) fn failed(&mut self) {
        self.state = State::Failed;
    }

    /// The answer is complete: the connection is free for the next one. `stream`: the answer's own, if it has ended.
    pub(crate) fn complete(mut self, stream: Option<RecvStream>) {
        self.state = State::Complete;
        if let (Some(Hold::Http2(streams)), Some(stream)) = (&self.hold, stream) {
            streams.ended(stream);
        }
    }

    /// To be kept for later; None if it cannot be.
    pub(super) fn into_http1(mut self) -> Option<Box<Http1>> {
        let Some(Hold::Http1(http1)) = self.hold.take() else { return None };
        self.connection.active.store(0, Ordering::Relaxed);
        Some(http1)
    }

    fn pool(&self) -> Option<&Pool> {
        self.endpoint.host.pool(self.at)
    }

    fn return_http1(&self, http1: Box<Http1>) {
        let fits = matches!(self.state, State::Unused | State::Complete)
            && http1.is_reusable()
            && !self.connection.is_used_up();
        if self.state != State::Failed {
            self.connection.active.store(0, Ordering::Relaxed);
        }
        let Some(pool) = self.pool() else { return };
        if !fits {
            drop(http1);
            return pool.lost_busy();
        }
        if let Some(http1) = pool.put_back(http1, self.host(), self.at) {
            self.connection.active.store(1, Ordering::Relaxed);
            let mut lease = self.empty();
            lease.hold = Some(Hold::Http1(http1));
            pool.deliver(lease);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.state == State::Busy {
            self.connection.connector.stats.upstream_rq_tx_reset.inc();
        }
        match self.hold.take() {
            Some(Hold::Http1(http1)) => self.return_http1(http1),
            Some(Hold::Http2(streams)) => {
                streams.release();
                if let Some(pool) = self.pool() {
                    pool.stream_freed();
                }
            }
            Some(Hold::Switched) => {
                self.connection.active.store(0, Ordering::Relaxed);
                if let Some(pool) = self.pool() {
                    pool.lost_busy();
                }
            }
            Some(Hold::Carried) | None => {}
        }
    }
}
