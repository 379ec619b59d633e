//! Lines: files and standard streams, each with a thread of its own.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use crate::model::access_log::LogSink;
use crate::telemetry::stats::{Counter, metrics};

/// Lines that wait for a slow disk; more are dropped and counted.
pub(super) const QUEUE: usize = 16 * 1024;
/// Bytes that are written at once.
const BATCH: usize = 64 * 1024;
/// A file that could not be opened is tried again after so long.
const TRY_AGAIN: Duration = Duration::from_secs(1);

metrics! {
    /// `filesystem.`: files of access logs.
    pub(super) struct FileStats {
        counters {
            /// Lines that were put together with others.
            buffered = "write_buffered",
            /// Writes that were done.
            completed = "write_completed",
            /// Writes that were not.
            failed = "write_failed",
            /// Files that could not be opened anew.
            reopen_failed = "reopen_failed",
        }
        gauges {
            /// Bytes that are not written yet.
            total_buffered = "write_total_buffered",
        }
        histograms {}
        // Nothing waits for a timer: whoever writes is woken by the first line.
        never { counters ["flushed_by_timer"] gauges [] }
    }
}

/// What the thread of a file is told.
pub(super) enum Message {
    Line(String),
    Reopen,
    Flush(SyncSender<()>),
}

/// Write lines until nobody is left who could send one.
pub(super) fn write_lines(
    place: &LogSink,
    receiver: &Receiver<Message>,
    (written, lost): (&Counter, &Counter),
    stats: &FileStats,
) {
    let mut out = Writer { place, file: open(place), tried: Instant::now(), told: false };
    let mut batch = Batch::default();
    let settle = |out: &mut Writer<'_>, batch: &mut Batch| {
        if batch.lines > 0 {
            let done = out.write(&batch.bytes);
            if done { written } else { lost }.add(batch.lines);
            if done { &stats.completed } else { &stats.failed }.inc();
            stats.total_buffered.add(-(batch.bytes.len() as i64));
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
                    stats.buffered.inc();
                    stats.total_buffered.add(line.len() as i64);
                    if batch.bytes.len() >= BATCH {
                        settle(&mut out, &mut batch);
                    }
                }
                Message::Reopen => {
                    settle(&mut out, &mut batch);
                    out.file = open(place);
                    if out.file.is_err() {
                        stats.reopen_failed.inc();
                    }
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
