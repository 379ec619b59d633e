//! Access logs: filters, text and JSON lines, batches for services, and writers that never hold up a
//! request.

mod file;
mod filter;
mod json;
mod otlp;
pub mod remote;

use std::collections::HashMap;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use file::{FileStats, Message, QUEUE};
use remote::{Encode, Remote, Waiting};

use super::format::{self, Record};
use super::stats::{Counter, Fresh as _, Registry};
use crate::model::access_log::{AccessLog, LogFilter, LogFormat, LogOutput, LogService, LogSink};

/// All places that lines and entries are written to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sinks {
    open: Arc<Mutex<HashMap<LogSink, Sink>>>,
    dropped: Counter,
    written: Counter,
    files: Arc<FileStats>,
    remote: Remote,
}

#[derive(Clone, Debug)]
struct Sink(SyncSender<Message>);

impl Sinks {
    /// None open yet. What services are to be sent comes out of the second; nothing is lost only if
    /// [`remote::run`] takes it.
    pub fn new(registry: &Registry, encode: Arc<dyn Encode>) -> (Self, Waiting) {
        let scope = registry.scope("access_logs", None);
        let (remote, waiting) = Remote::new(registry, encode);
        let sinks = Self {
            open: Arc::default(),
            dropped: scope.counter("lines_dropped"),
            written: scope.counter("lines_written"),
            files: registry.scope("filesystem", None).group(FileStats::fresh),
            remote,
        };
        (sinks, waiting)
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

    /// The same for services, for two seconds at most.
    pub async fn flush_services(&self) {
        self.remote.flush(Duration::from_secs(2)).await;
    }

    fn get(&self, wanted: &LogSink) -> Sink {
        let mut open = self.lock();
        if let Some(sink) = open.get(wanted) {
            return sink.clone();
        }
        let (sender, receiver) = sync_channel(QUEUE);
        let place = wanted.clone();
        let (written, lost) = (self.written.clone(), self.dropped.clone());
        let files = Arc::clone(&self.files);
        let started = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || file::write_lines(&place, &receiver, (&written, &lost), &files));
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

/// The access logs of a listener, connection manager or TCP proxy.
#[derive(Debug, Default)]
pub struct Logger(Vec<(AccessLog, Output)>);

#[derive(Debug)]
enum Output {
    Lines { sink: Sink, dropped: Counter },
    Service(Remote),
}

impl Logger {
    /// Loggers for these logs.
    pub fn new(logs: &[AccessLog], sinks: &Sinks) -> Self {
        let open = |log: &AccessLog| {
            let output = match &log.output {
                LogOutput::Lines(sink, _) => {
                    Output::Lines { sink: sinks.get(sink), dropped: sinks.dropped.clone() }
                }
                LogOutput::Service(_) => Output::Service(sinks.remote.clone()),
            };
            (log.clone(), output)
        };
        Self(logs.iter().map(open).collect())
    }

    /// Whether there is any log to write.
    pub fn is_enabled(&self) -> bool {
        !self.0.is_empty()
    }

    /// Tell each log whose filter lets it. Never waits: a full queue drops the line.
    pub fn log(&self, record: &Record<'_>) {
        for (log, output) in &self.0 {
            if log.filter.as_ref().is_some_and(|filter| !filter::passes(filter, record)) {
                continue;
            }
            match (&log.output, output) {
                (LogOutput::Lines(_, format), Output::Lines { sink, dropped }) => {
                    let message = Message::Line(line(format, record));
                    if let Err(TrySendError::Full(_)) = sink.0.try_send(message) {
                        dropped.inc();
                    }
                }
                (LogOutput::Service(service), Output::Service(remote)) => {
                    remote.put(service, record);
                }
                // Made of the same log.
                (LogOutput::Lines(..), Output::Service(_))
                | (LogOutput::Service(_), Output::Lines { .. }) => {}
            }
        }
    }
}

/// A line, or the body of an answer: a format filled in.
pub fn line(format: &LogFormat, record: &Record<'_>) -> String {
    let mut line = String::with_capacity(256);
    match format {
        LogFormat::Text(template) => format::write(template, record, &mut line),
        LogFormat::Json(tree) => {
            line.push_str(&json::json(tree, record).unwrap_or_default().to_string());
            line.push('\n');
        }
    }
    line
}

/// Whether a filter lets something through.
pub fn passes(filter: &LogFilter, record: &Record<'_>) -> bool {
    filter::passes(filter, record)
}

/// Tags of an entry that have a value.
pub fn tags(service: &LogService, record: &Record<'_>) -> Vec<(String, String)> {
    let tags = service.tags.iter().map(|(name, template)| {
        let mut text = String::new();
        format::write(template, record, &mut text);
        (name.to_string(), text)
    });
    tags.filter(|(_, text)| !text.is_empty() && text != "-").collect()
}

#[cfg(test)]
mod tests;
