//! Traffic at the front of the mesh, and what came back.
//!
//! With a rate the load is open: request `n` is due at `start + n / rate`, whether or not the ones before it are
//! answered, and its latency counts from when it was due, so that a stall is seen as what it is to the people who
//! wait. Without a rate it is closed: each of the connections sends its next request when the last one is answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// A request that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(15);
const LONGEST_MICROS: u64 = 60_000_000;
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Different reasons that are kept apart; what comes after them is counted as "other".
const MAX_REASONS: usize = 20;
const MAX_REASON_CHARS: usize = 160;

/// What to send.
#[derive(Debug, Clone)]
pub(crate) struct LoadPlan {
    /// Where to connect: the outbound listener of a sidecar.
    pub(crate) target: SocketAddr,
    /// The `Host` to ask for.
    pub(crate) host: String,
    pub(crate) path: String,
    /// How many connections, each with one request at a time.
    pub(crate) concurrency: usize,
    /// Requests a second, for an open load.
    pub(crate) rate: Option<f64>,
    /// Ends after that many.
    pub(crate) requests: Option<u64>,
}

/// What came back, from the start until now.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Answered or failed.
    pub(crate) done: u64,
    /// Those without a 2xx answer.
    pub(crate) failed: u64,
    /// How often each reason was met.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Answers by their `x-shop-version`.
    pub(crate) versions: BTreeMap<String, u64>,
    /// Of all requests, failed ones too, in microseconds.
    pub(crate) latency: Histogram<u64>,
}

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Load {
    pub(crate) fn start(plan: LoadPlan) -> Self {
        let (stop, stopped) = watch::channel(false);
        let concurrency = plan.concurrency;
        let shared = Arc::new(Shared {
            plan,
            start: Instant::now(),
            next: AtomicU64::new(0),
            total: Mutex::new(Tally::default()),
            window: Mutex::new(Tally::default()),
        });
        let mut workers = JoinSet::new();
        for _ in 0..concurrency {
            workers.spawn(work(Arc::clone(&shared), stopped.clone()));
        }
        Self { shared, workers, stop }
    }

    /// All from the start until now.
    pub(crate) fn total(&self) -> Tally {
        lock(&self.shared.total).clone()
    }

    /// What was counted since the last call.
    pub(crate) fn take_window(&self) -> Tally {
        std::mem::take(&mut *lock(&self.shared.window))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.shared.start.elapsed()
    }

    /// Begins no new request; [`Self::finished`] waits for those in flight.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until all requests of the plan are done.
    pub(crate) async fn finished(&mut self) {
        while let Some(end) = self.workers.join_next().await {
            if let Err(error) = end {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }
}

/// Sends one request on a connection of its own: whether the front answers yet.
pub(crate) async fn probe(plan: &LoadPlan) -> Result<(), String> {
    Client::new(plan).send().await.map(|_| ())
}

impl Default for Tally {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST_MICROS, 3)
            .expect("1 µs to 60 s with three digits are valid bounds");
        Self { done: 0, failed: 0, reasons: BTreeMap::new(), versions: BTreeMap::new(), latency }
    }
}

impl Tally {
    /// The latency in milliseconds that `percent` of the requests did not exceed; `None` before the first one.
    pub(crate) fn latency_ms(&self, percent: f64) -> Option<f64> {
        let micros = self.latency.value_at_quantile(percent / 100.0);
        (!self.latency.is_empty()).then_some(micros as f64 / 1000.0)
    }

    /// Adds what `other` counted.
    pub(crate) fn add(&mut self, other: &Self) {
        self.done += other.done;
        self.failed += other.failed;
        for (mine, theirs) in
            [(&mut self.reasons, &other.reasons), (&mut self.versions, &other.versions)]
        {
            for (name, count) in theirs {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
        self.latency.add(&other.latency).expect("all tallies have the same bounds");
    }

    fn record(&mut self, outcome: &Result<Option<String>, String>, latency: Duration) {
        self.done += 1;
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency.saturating_record(micros.max(1));
        match outcome {
            Ok(Some(version)) => *self.versions.entry(version.clone()).or_default() += 1,
            Ok(None) => {}
            Err(reason) => {
                self.failed += 1;
                let known = self.reasons.len() < MAX_REASONS || self.reasons.contains_key(reason);
                let reason = if known { reason.as_str() } else { "other" };
                *self.reasons.entry(reason.to_owned()).or_default() += 1;
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    plan: LoadPlan,
    start: Instant,
    next: AtomicU64,
    total: Mutex<Tally>,
    window: Mutex<Tally>,
}

async fn work(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut client = Client::new(&shared.plan);
    while !*stop.borrow() {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if shared.plan.requests.is_some_and(|requests| number >= requests) {
            return;
        }
        let mut begin = Instant::now();
        if let Some(rate) = shared.plan.rate {
            begin = shared.start + Duration::from_secs_f64(number as f64 / rate);
            tokio::select! {
                () = sleep_until(begin) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
        let outcome = client.send().await;
        let latency = begin.elapsed();
        lock(&shared.total).record(&outcome, latency);
        lock(&shared.window).record(&outcome, latency);
    }
}

/// One keep-alive connection.
struct Client {
    plan: LoadPlan,
    connection: Option<SendRequest<Empty<Bytes>>>,
}

impl Client {
    fn new(plan: &LoadPlan) -> Self {
        Self { plan: plan.clone(), connection: None }
    }

    /// The `x-shop-version` of a 2xx answer, or why there was none.
    async fn send(&mut self) -> Result<Option<String>, String> {
        match timeout(LIMIT, self.exchange()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                self.connection = None;
                Err(format!("no answer within {} s", LIMIT.as_secs()))
            }
        }
    }

    async fn exchange(&mut self) -> Result<Option<String>, String> {
        let reply = loop {
            let (mut connection, reused) = self.connected().await?;
            let request = Request::get(&self.plan.path)
                .header(header::HOST, &self.plan.host)
                .header(header::USER_AGENT, concat!("pillion-demo/", env!("CARGO_PKG_VERSION")))
                .body(Empty::new())
                .map_err(|error| error.to_string())?;
            match connection.try_send_request(request).await {
                Ok(reply) => {
                    self.connection = Some(connection);
                    break reply;
                }
                Err(mut error) => {
                    // The server had closed the idle connection, and not a byte of the request went out.
                    let unsent = error.take_message().is_some();
                    if !(reused && unsent) {
                        return Err(format!("no answer: {}", shown(&error.into_error())));
                    }
                }
            }
        };
        let (head, body) = reply.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| {
            self.connection = None;
            format!("the answer broke off: {error}")
        })?;
        if head.status.is_success() {
            return Ok(version(&head.headers));
        }
        let text = String::from_utf8_lossy(&body.to_bytes()).trim().to_owned();
        let reason = format!("HTTP {}: {text}", head.status.as_u16());
        Err(reason.chars().take(MAX_REASON_CHARS).collect())
    }

    /// The open connection, if it can still be used, else a new one; and which of the two it is.
    async fn connected(&mut self) -> Result<(SendRequest<Empty<Bytes>>, bool), String> {
        if let Some(mut connection) = self.connection.take()
            && connection.ready().await.is_ok()
        {
            return Ok((connection, true));
        }
        let stream = TcpStream::connect(self.plan.target)
            .await
            .map_err(|error| format!("cannot connect: {error}"))?;
        // Latency is what we measure here; an error is a connection already gone, and is met below.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("cannot connect: {error}"))?;
        tokio::spawn(async move {
            // Its errors are those of the requests on it.
            let _ = connection.await;
        });
        Ok((sender, false))
    }
}

fn version(headers: &HeaderMap) -> Option<String> {
    Some(headers.get("x-shop-version")?.to_str().ok()?.to_owned())
}

/// hyper keeps the reason in the sources of its errors.
fn shown(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}"));
    format!("{error}{}", cause.unwrap_or_default())
}

/// The counters are whole after every step, so a panic elsewhere does not spoil them.
fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
