//! A connection in the hands of one request. It goes back to its pool when the answer is complete,
//! and is closed when it is not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;

use super::connection::Connection;
use super::http1::Idle;
use super::streams::Streams;
use super::{Fit, Job, Pool};
use crate::cluster::endpoint::{Endpoint, Host};
use crate::http::body::RequestBody;

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
    Http1(SendRequest<RequestBody>),
    Http2(Arc<Streams>),
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

/// A request that was not answered.
#[derive(Debug)]
pub(crate) struct SendFailure {
    pub(crate) error: hyper::Error,
    /// The request itself, if not a byte of it was sent.
    pub(crate) unsent: Option<Request<RequestBody>>,
    /// The connection had served before.
    pub(crate) reused: bool,
    /// The endpoint sent nothing since this request.
    pub(crate) silent: bool,
    /// The endpoint ended TLS with this, in words, before it sent anything else.
    pub(crate) alert: Option<String>,
}

impl Lease {
    pub(super) fn http1(
        job: &Job,
        sender: SendRequest<RequestBody>,
        connection: Arc<Connection>,
    ) -> Self {
        connection.active.store(1, Ordering::Relaxed);
        connection.begin_request();
        Self::new(job, connection, Hold::Http1(sender))
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

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.hold, Some(Hold::Http2(_)))
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(super) fn fit(&self) -> &Fit {
        &self.connection.fit
    }

    /// Sends a request, and waits for the head of the answer.
    ///
    /// # Errors
    /// The connection or the stream ended before that.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, SendFailure> {
        self.state = State::Busy;
        let heard = self.connection.received.load(Ordering::Relaxed);
        let hold = self.hold.as_mut().expect("a lease holds its connection until it is dropped");
        let sent = match hold {
            Hold::Http1(sender) => sender.try_send_request(request).await,
            Hold::Http2(streams) => streams.sender().try_send_request(request).await,
        };
        sent.map_err(|mut error| {
            self.state = State::Failed;
            let now = self.connection.received.load(Ordering::Relaxed);
            SendFailure {
                unsent: error.take_message(),
                error: error.into_error(),
                reused: self.reused,
                silent: now == heard,
                alert: self.connection.alert().filter(|_| now == 0).map(str::to_owned),
            }
        })
    }

    /// The answer broke off; whoever saw it has counted it.
    pub(crate) fn failed(&mut self) {
        self.state = State::Failed;
    }

    /// The answer is complete: the connection is free for the next one.
    pub(crate) fn complete(mut self) {
        self.state = State::Complete;
    }

    /// To be kept for later; None if it cannot be.
    pub(super) fn into_idle(mut self) -> Option<(Idle, Arc<Host>, usize)> {
        let Some(Hold::Http1(sender)) = self.hold.take() else { return None };
        let connection = Arc::clone(&self.connection);
        connection.active.store(0, Ordering::Relaxed);
        let idle = Idle { sender, connection, since: Instant::now() };
        Some((idle, Arc::clone(&self.endpoint.host), self.at))
    }

    fn pool(&self) -> Option<&Pool> {
        self.endpoint.host.pool(self.at)
    }

    fn return_http1(&self, sender: SendRequest<RequestBody>) {
        let keep = matches!(self.state, State::Unused | State::Complete)
            && !sender.is_closed()
            && !self.connection.is_used_up();
        let Some(pool) = self.pool() else { return };
        if !keep {
            drop(sender);
            self.connection.active.store(0, Ordering::Relaxed);
            return pool.lost_busy();
        }
        let returned = Self {
            endpoint: Arc::clone(&self.endpoint),
            at: self.at,
            connection: Arc::clone(&self.connection),
            hold: None,
            state: State::Unused,
            // Whoever gets it from here gets it second-hand.
            reused: true,
        };
        if sender.is_ready() {
            pool.deliver(returned.with(sender));
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The answer came before the request was sent to its end, or the connection's task
            // has not noticed yet that it is free.
            runtime.spawn(wait_until_ready(returned, sender));
        } else {
            pool.lost_busy();
        }
    }

    fn with(mut self, sender: SendRequest<RequestBody>) -> Self {
        self.hold = Some(Hold::Http1(sender));
        self
    }
}

async fn wait_until_ready(lease: Lease, mut sender: SendRequest<RequestBody>) {
    let ready = sender.ready().await.is_ok();
    let endpoint = Arc::clone(&lease.endpoint);
    let Some(pool) = endpoint.host.pool(lease.at) else { return };
    if ready {
        pool.deliver(lease.with(sender));
    } else {
        pool.lost_busy();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.state == State::Busy {
            self.connection.connector.stats.upstream_rq_tx_reset.inc();
        }
        match self.hold.take() {
            Some(Hold::Http1(sender)) => self.return_http1(sender),
            Some(Hold::Http2(streams)) => {
                streams.release();
                if let Some(pool) = self.pool() {
                    pool.stream_freed();
                }
            }
            None => {}
        }
    }
}
