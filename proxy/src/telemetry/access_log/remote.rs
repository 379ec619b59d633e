//! Services that take entries in batches: Envoy's access log service, and OTLP collectors.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::otlp;
use crate::model::access_log::{LogEntries, LogService};
use crate::telemetry::export::{Call, Deliver};
use crate::telemetry::format::Record;
use crate::telemetry::stats::{Counter, Registry};

/// Entries that wait for a slow service; more are dropped and counted.
const QUEUE: usize = 16 * 1024;

/// Writes entries of Envoy's access log service; their messages are known elsewhere.
pub trait Encode: Debug + Send + Sync {
    /// An `HTTPAccessLogEntry` or a `TCPAccessLogEntry`.
    fn entry(&self, service: &LogService, record: &Record<'_>) -> Vec<u8>;
    /// A `StreamAccessLogsMessage` of such entries.
    fn message(&self, service: &LogService, entries: &[Vec<u8>]) -> Vec<u8>;
}

/// What is to be sent.
#[derive(Debug)]
pub struct Waiting(mpsc::Receiver<Message>);

/// Where entries are put. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    sender: mpsc::Sender<Message>,
    encode: Arc<dyn Encode>,
    grpc: Outcome,
    otlp: Outcome,
}

/// What became of entries: `access_logs.grpc_access_log.` and `open_telemetry_access_log.`.
#[derive(Clone, Debug)]
struct Outcome {
    written: Counter,
    dropped: Counter,
}

enum Message {
    Entry(Arc<LogService>, Entry, Outcome),
    Flush(oneshot::Sender<()>),
}

enum Entry {
    Service(Vec<u8>),
    Otlp(Box<LogRecord>),
}

impl Remote {
    pub(super) fn new(registry: &Registry, encode: Arc<dyn Encode>) -> (Self, Waiting) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let outcome = |kind: &str| {
            let scope = registry.scope("access_logs", None).scope(kind, None);
            Outcome {
                written: scope.counter("logs_written"),
                dropped: scope.counter("logs_dropped"),
            }
        };
        let (grpc, otlp) = (outcome("grpc_access_log"), outcome("open_telemetry_access_log"));
        (Self { sender, encode, grpc, otlp }, Waiting(receiver))
    }

    /// Queue an entry. Never waits.
    pub(super) fn put(&self, service: &Arc<LogService>, record: &Record<'_>) {
        let (entry, outcome) = match &service.entries {
            LogEntries::OpenTelemetry { body, attributes, .. } => {
                let made = otlp::record(service, (body.as_ref(), attributes), record);
                (Entry::Otlp(Box::new(made)), &self.otlp)
            }
            LogEntries::Http { .. } if record.kind.is_tcp() => return,
            LogEntries::Tcp if !record.kind.is_tcp() => return,
            LogEntries::Http { .. } | LogEntries::Tcp => {
                (Entry::Service(self.encode.entry(service, record)), &self.grpc)
            }
        };
        let message = Message::Entry(Arc::clone(service), entry, outcome.clone());
        if self.sender.try_send(message).is_err() {
            outcome.dropped.inc();
        }
    }

    pub(super) async fn flush(&self, limit: Duration) {
        let (done, wait) = oneshot::channel();
        if self.sender.try_send(Message::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(limit, wait).await;
        }
    }
}

/// Entries of one log that go out together.
struct Batch {
    service: Arc<LogService>,
    entries: Vec<Vec<u8>>,
    records: Vec<LogRecord>,
    bytes: usize,
    due: Instant,
    outcome: Outcome,
}

impl Batch {
    fn count(&self) -> u64 {
        (self.entries.len() + self.records.len()) as u64
    }
}

/// Send what is queued until nobody is left who could queue anything.
pub async fn run(mut waiting: Waiting, encode: Arc<dyn Encode>, to: impl Deliver) {
    let mut batches: HashMap<usize, Batch> = HashMap::new();
    let mut told = false;
    loop {
        let due = batches.values().map(|batch| batch.due).min();
        let next = tokio::select! {
            message = waiting.0.recv() => message,
            () = until(due) => {
                let now = Instant::now();
                for (_, batch) in batches.extract_if(|_, batch| batch.due <= now) {
                    send(batch, &*encode, &to, &mut told).await;
                }
                continue;
            }
        };
        match next {
            Some(Message::Entry(service, entry, outcome)) => {
                let key = Arc::as_ptr(&service) as usize;
                let batch = batches.entry(key).or_insert_with(|| begin(service, outcome));
                add(batch, entry);
                if batch.bytes >= batch.service.buffer_bytes
                    && let Some(batch) = batches.remove(&key)
                {
                    send(batch, &*encode, &to, &mut told).await;
                }
            }
            Some(Message::Flush(done)) => {
                for (_, batch) in batches.drain() {
                    send(batch, &*encode, &to, &mut told).await;
                }
                let _ = done.send(());
            }
            None => break,
        }
    }
    for (_, batch) in batches {
        send(batch, &*encode, &to, &mut told).await;
    }
}

fn begin(service: Arc<LogService>, outcome: Outcome) -> Batch {
    let due = Instant::now() + service.flush_interval;
    Batch { service, entries: Vec::new(), records: Vec::new(), bytes: 0, due, outcome }
}

fn add(batch: &mut Batch, entry: Entry) {
    match entry {
        Entry::Service(bytes) => {
            batch.bytes += bytes.len();
            batch.entries.push(bytes);
        }
        Entry::Otlp(record) => {
            batch.bytes += record.encoded_len();
            batch.records.push(*record);
        }
    }
}

/// Trouble is told once, until it is over.
async fn send(batch: Batch, encode: &dyn Encode, to: &impl Deliver, told: &mut bool) {
    let service = &batch.service;
    let count = batch.count();
    let (call, payload) = match &service.entries {
        LogEntries::OpenTelemetry { resource, .. } => {
            (Call::OtlpLogs, otlp::request(service, resource, batch.records).encode_to_vec())
        }
        LogEntries::Http { .. } | LogEntries::Tcp => {
            (Call::AccessLogs, encode.message(service, &batch.entries))
        }
    };
    match to.deliver(&service.collector, call, Bytes::from(payload)).await {
        Ok(()) => {
            *told = false;
            batch.outcome.written.add(count);
        }
        Err(error) => {
            batch.outcome.dropped.add(count);
            if !std::mem::replace(told, true) {
                tracing::warn!(log = %service.name, %error, entries = count, "access log entries are lost");
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Entries are the status.
    #[derive(Debug)]
    pub(in crate::telemetry) struct Plain;

    impl Encode for Plain {
        fn entry(&self, _: &LogService, record: &Record<'_>) -> Vec<u8> {
            record.status.unwrap_or(0).to_string().into_bytes()
        }

        fn message(&self, _: &LogService, entries: &[Vec<u8>]) -> Vec<u8> {
            entries.join(&b' ')
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::testing::Plain;
    use super::*;
    use crate::model::access_log::{AccessLog, LogOutput};
    use crate::model::collector::{Collector, CollectorProtocol};
    use crate::telemetry::access_log::{Logger, Sinks};

    #[derive(Clone, Default)]
    struct Desk(Arc<Mutex<Vec<String>>>);

    impl Deliver for Desk {
        async fn deliver(&self, to: &Collector, _: Call, payload: Bytes) -> Result<(), String> {
            if &*to.cluster == "away" {
                return Err("nobody is there".to_owned());
            }
            self.0.lock().unwrap().push(String::from_utf8_lossy(&payload).into_owned());
            Ok(())
        }
    }

    fn service(cluster: &str, buffer_bytes: usize) -> AccessLog {
        let service = LogService {
            collector: Collector {
                cluster: cluster.into(),
                authority: cluster.into(),
                protocol: CollectorProtocol::Grpc,
                headers: Vec::new(),
            },
            name: "log".into(),
            flush_interval: Duration::from_secs(1),
            buffer_bytes,
            entries: LogEntries::Http {
                request_headers: Vec::new(),
                response_headers: Vec::new(),
                response_trailers: Vec::new(),
            },
            tags: Vec::new(),
        };
        AccessLog { filter: None, output: LogOutput::Service(Arc::new(service)) }
    }

    #[tokio::test(start_paused = true)]
    async fn entries_go_out_by_size_by_age_and_when_asked() {
        let registry = Registry::new();
        let (sinks, waiting) = Sinks::new(&registry, Arc::new(Plain));
        let desk = Desk::default();
        tokio::spawn(run(waiting, Arc::new(Plain), desk.clone()));
        let logger = Logger::new(&[service("here", 6)], &sinks);
        let log = |status| logger.log(&Record { status: Some(status), ..Record::default() });
        log(200);
        log(404);
        log(503);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        log(500);
        sinks.flush_services().await;
        assert_eq!(*desk.0.lock().unwrap(), ["200 404", "503", "500"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_away_costs_its_entries_and_nothing_else() {
        let registry = Registry::new();
        let (sinks, waiting) = Sinks::new(&registry, Arc::new(Plain));
        let desk = Desk::default();
        tokio::spawn(run(waiting, Arc::new(Plain), desk.clone()));
        let logger = Logger::new(&[service("away", 1), service("here", 1)], &sinks);
        logger.log(&Record { status: Some(200), ..Record::default() });
        sinks.flush_services().await;
        assert_eq!(*desk.0.lock().unwrap(), ["200"]);
        let outcome = (sinks.remote.grpc.written.get(), sinks.remote.grpc.dropped.get());
        assert_eq!(outcome, (1, 1));
    }
}
