//! Access logs: filters, text and JSON lines, and writers that never hold up a request.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::format::{self, Record};
use super::stats::{Counter, Registry};
use crate::model::access_log::{AccessLog, JsonFormat, LogFilter, LogFormat, LogSink};
use crate::model::duration::millis;
use crate::model::format::{Piece, Template};
use crate::model::matcher::RequestView;

/// Lines that wait for a slow disk; more are dropped and counted.
const QUEUE: usize = 16 * 1024;
/// Bytes that are written at once.
const BATCH: usize = 64 * 1024;
/// A file that could not be opened is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// All places that lines are written to, each with a thread of its own. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sinks {
    open: Arc<Mutex<HashMap<LogSink, Sink>>>,
    dropped: Counter,
    written: Counter,
}

#[derive(Clone, Debug)]
struct Sink(SyncSender<Message>);

enum Message {
    Line(String),
    Reopen,
    Flush(SyncSender<()>),
}

impl Sinks {
    /// None open yet.
    pub fn new(registry: &Registry) -> Self {
        let scope = registry.scope("access_logs", None);
        Self {
            open: Arc::default(),
            dropped: scope.counter("lines_dropped"),
            written: scope.counter("lines_written"),
        }
    }

    /// Open every file anew, after it was moved away by a log rotation.
    pub fn reopen(&self) {
        for sink in self.lock().values() {
            let _ = sink.0.try_send(Message::Reopen);
        }
    }

    /// Wait until everything that was logged so far has been written.
    pub fn flush(&self) {
        let sinks: Vec<Sink> = self.lock().values().cloned().collect();
        for sink in sinks {
            let (done, wait) = sync_channel(1);
            if sink.0.send(Message::Flush(done)).is_ok() {
                let _ = wait.recv_timeout(Duration::from_secs(2));
            }
        }
    }

    fn get(&self, wanted: &LogSink) -> Sink {
        let mut open = self.lock();
        if let Some(sink) = open.get(wanted) {
            return sink.clone();
        }
        let (sender, receiver) = sync_channel(QUEUE);
        let place = wanted.clone();
        let (written, lost) = (self.written.clone(), self.dropped.clone());
        let started = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_lines(&place, &receiver, &written, &lost));
        if let Err(error) = started {
            tracing::error!(%error, "cannot start an access log writer");
        }
        let sink = Sink(sender);
        open.insert(wanted.clone(), sink.clone());
        sink
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LogSink, Sink>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_lines(place: &LogSink, receiver: &Receiver<Message>, written: &Counter, lost: &Counter) {
    let mut out = Writer { place, file: open(place), tried: Instant::now(), told: false };
    let mut batch = Batch::default();
    let settle = |out: &mut Writer<'_>, batch: &mut Batch| {
        if batch.lines > 0 {
            if out.write(&batch.bytes) { written } else { lost }.add(batch.lines);
            batch.clear();
        }
    };
    while let Ok(first) = receiver.recv() {
        // Whatever came meanwhile goes out in the same write.
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    batch.push(&line);
                    if batch.bytes.len() >= BATCH {
                        settle(&mut out, &mut batch);
                    }
                }
                Message::Reopen => {
                    settle(&mut out, &mut batch);
                    out.file = open(place);
                }
                Message::Flush(done) => {
                    settle(&mut out, &mut batch);
                    let _ = done.send(());
                }
            }
            next = receiver.try_recv().ok();
        }
        settle(&mut out, &mut batch);
    }
}

/// Lines that go out together.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

impl Batch {
    fn push(&mut self, line: &str) {
        self.bytes.extend_from_slice(line.as_bytes());
        self.lines += 1;
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.lines = 0;
    }
}

/// A place that may be away for a while.
struct Writer<'a> {
    place: &'a LogSink,
    file: io::Result<Box<dyn Write>>,
    tried: Instant,
    told: bool,
}

impl Writer<'_> {
    /// False: the lines are lost. Trouble is told once, until it is over.
    fn write(&mut self, bytes: &[u8]) -> bool {
        if self.file.is_err() && self.tried.elapsed() >= TRY_AGAIN {
            self.tried = Instant::now();
            self.file = open(self.place);
        }
        let done = match &mut self.file {
            Ok(file) => file.write_all(bytes).and_then(|()| file.flush()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        match done {
            Ok(()) => self.told = false,
            Err(error) if !self.told => {
                self.told = true;
                let place = self.place;
                tracing::error!(?place, %error, "the access log cannot be written; lines are lost");
            }
            Err(_) => {}
        }
        !self.told
    }
}

fn open(place: &LogSink) -> io::Result<Box<dyn Write>> {
    Ok(match place {
        LogSink::Stdout => Box::new(io::stdout()),
        LogSink::Stderr => Box::new(io::stderr()),
        LogSink::File(path) => Box::new(append(path)?),
    })
}

fn append(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// The access logs of a listener, connection manager or TCP proxy.
#[derive(Debug, Default)]
pub struct Logger(Vec<(AccessLog, Output)>);

#[derive(Debug)]
struct Output {
    sink: Sink,
    dropped: Counter,
}

impl Logger {
    /// Loggers for these logs.
    pub fn new(logs: &[AccessLog], sinks: &Sinks) -> Self {
        let open = |log: &AccessLog| {
            let output = Output { sink: sinks.get(&log.sink), dropped: sinks.dropped.clone() };
            (log.clone(), output)
        };
        Self(logs.iter().map(open).collect())
    }

    /// Whether there is any log to write.
    pub fn is_enabled(&self) -> bool {
        !self.0.is_empty()
    }

    /// Write a line to each log whose filter lets it. Never waits: a full queue drops the line.
    pub fn log(&self, record: &Record<'_>) {
        for (log, output) in &self.0 {
            if log.filter.as_ref().is_some_and(|filter| !passes(filter, record)) {
                continue;
            }
            let mut line = String::with_capacity(256);
            match &log.format {
                LogFormat::Text(template) => format::write(template, record, &mut line),
                LogFormat::Json(tree) => {
                    line.push_str(&json(tree, record).to_string());
                    line.push('\n');
                }
            }
            if let Err(TrySendError::Full(_)) = output.sink.0.try_send(Message::Line(line)) {
                output.dropped.inc();
            }
        }
    }
}

fn json(tree: &JsonFormat, record: &Record<'_>) -> serde_json::Value {
    use serde_json::Value;
    match tree {
        JsonFormat::Null => Value::Null,
        JsonFormat::Bool(yes) => Value::Bool(*yes),
        JsonFormat::Number(number) => Value::from(*number),
        JsonFormat::Array(items) => items.iter().map(|item| json(item, record)).collect(),
        JsonFormat::Object(fields) => Value::Object(
            fields.iter().map(|(key, item)| (key.clone(), json(item, record))).collect(),
        ),
        JsonFormat::Text(template) => leaf(template, record),
    }
}

/// One operator by itself keeps its type; without a value it is null (Envoy: JSON formats).
fn leaf(template: &Template, record: &Record<'_>) -> serde_json::Value {
    let mut text = String::new();
    if let [Piece::Operator(operator, None)] = template.pieces.as_slice() {
        return match format::value(operator, record, &mut text) {
            None => serde_json::Value::Null,
            Some(()) if text.is_empty() => serde_json::Value::Null,
            Some(()) if format::is_number(operator) => {
                text.parse::<u64>().map_or(serde_json::Value::Null, Into::into)
            }
            Some(()) => text.into(),
        };
    }
    format::write(template, record, &mut text);
    text.into()
}

fn passes(filter: &LogFilter, record: &Record<'_>) -> bool {
    match filter {
        LogFilter::Status(op, want) => op.holds(&u32::from(record.status.unwrap_or(0)), want),
        LogFilter::Duration(op, want) => {
            op.holds(&millis(record.duration.unwrap_or_default()), want)
        }
        // Health checks are answered by a filter that says so; there is none here yet.
        LogFilter::NotHealthCheck => true,
        LogFilter::Traceable => record.span.is_some_and(super::trace::Span::is_sampled),
        LogFilter::Fraction(share) => fastrand::u32(..1_000_000) < *share,
        LogFilter::And(filters) => filters.iter().all(|filter| passes(filter, record)),
        LogFilter::Or(filters) => filters.iter().any(|filter| passes(filter, record)),
        LogFilter::Header(header) => record.request_headers.is_some_and(|headers| {
            header.matches(&RequestView {
                method: record.method.unwrap_or(""),
                path: record.path.unwrap_or(""),
                authority: record.authority.unwrap_or(""),
                scheme: record.scheme.unwrap_or(""),
                headers,
            })
        }),
        LogFilter::ResponseFlags(wanted) if wanted.is_empty() => !record.flags.is_empty(),
        LogFilter::ResponseFlags(wanted) => {
            wanted.iter().any(|flag| record.flags.contains(&&**flag))
        }
        LogFilter::GrpcStatus { codes, exclude } => {
            let code = format::grpc_status(record);
            code.is_some_and(|code| codes.contains(&code)) != *exclude
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::access_log::Compare;

    #[test]
    fn lines_pass_their_filter_and_reach_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let sinks = Sinks::new(&Registry::new());
        let json = JsonFormat::Object(vec![
            ("code".into(), JsonFormat::Text(Template::parse("%RESPONSE_CODE%").unwrap())),
            ("route".into(), JsonFormat::Text(Template::parse("%ROUTE_NAME%").unwrap())),
            ("mixed".into(), JsonFormat::Text(Template::parse("c=%RESPONSE_CODE%").unwrap())),
        ]);
        let logger = Logger::new(
            &[AccessLog {
                filter: Some(LogFilter::Status(Compare::AtLeast, 500)),
                sink: LogSink::File(path.clone()),
                format: LogFormat::Json(json),
            }],
            &sinks,
        );
        for status in [200, 503] {
            logger.log(&Record { status: Some(status), ..Record::default() });
        }
        sinks.flush();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written, "{\"code\":503,\"mixed\":\"c=503\",\"route\":null}\n");
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        sinks.reopen();
        logger.log(&Record { status: Some(500), ..Record::default() });
        sinks.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no-folder").join("access.log");
        let registry = Registry::new();
        let sinks = Sinks::new(&registry);
        let format = LogFormat::Text(Template::parse("%RESPONSE_CODE%\n").unwrap());
        let log = AccessLog { filter: None, sink: LogSink::File(path.clone()), format };
        let logger = Logger::new(&[log], &sinks);
        logger.log(&Record { status: Some(200), ..Record::default() });
        sinks.flush();
        assert_eq!((sinks.written.get(), sinks.dropped.get()), (0, 1));
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        sinks.reopen();
        logger.log(&Record { status: Some(200), ..Record::default() });
        sinks.flush();
        assert_eq!((sinks.written.get(), sinks.dropped.get()), (1, 1));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "200\n");
    }
}
