//! What the processes write, as one coloured stream.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::look::Columns;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A line without an end is shown once it is this long.
const LONGEST_LINE: usize = 64 * 1024;

/// A line and who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Who wrote it.
    pub(super) name: String,
    /// Without its end.
    pub(super) text: String,
    /// It is of `pillion up` itself.
    pub(super) own: bool,
}

impl Line {
    /// One of `pillion up` itself.
    pub(super) fn own(text: &str) -> Self {
        Self { name: "pillion".to_owned(), text: text.to_owned(), own: true }
    }
}

/// Which lines of a log are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// Every one.
    All,
    /// Objects in JSON, which is what access logs have.
    Json,
}

/// Sends what is written to `log` from now on, until nobody listens any more.
pub(super) fn follow(name: &str, log: &Path, lines: &mpsc::UnboundedSender<Line>, shown: Shown) {
    let (name, log, lines) = (name.to_owned(), log.to_owned(), lines.downgrade());
    let from = std::fs::metadata(&log).map_or(0, |meta| meta.len());
    tokio::spawn(async move {
        let mut reader = Reader { log, at: from, rest: String::new() };
        while let Some(sender) = lines.upgrade() {
            let new = reader.read().await.into_iter();
            for text in new.filter(|text| shown == Shown::All || text.starts_with('{')) {
                let _ = sender.send(Line { name: name.clone(), text, own: false });
            }
            drop(sender);
            sleep(LOOK_EVERY).await;
        }
    });
}

/// Reads a file that grows.
pub(super) struct Reader {
    log: PathBuf,
    at: u64,
    rest: String,
}

impl Reader {
    /// From the beginning.
    pub(super) fn new(log: PathBuf) -> Self {
        Self { log, at: 0, rest: String::new() }
    }

    /// The whole lines that came since the last time.
    pub(super) async fn read(&mut self) -> Vec<String> {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.log).await
            && file.seek(SeekFrom::Start(self.at)).await.is_ok()
        {
            let _ = file.read_to_end(&mut bytes).await;
        }
        self.at += bytes.len() as u64;
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        let mut lines = Vec::new();
        while let Some(end) = self.rest.find('\n') {
            let line: String = self.rest.drain(..=end).collect();
            lines.push(line.trim_end().to_owned());
        }
        if self.rest.len() > LONGEST_LINE {
            lines.push(std::mem::take(&mut self.rest));
        }
        lines
    }
}

/// Prints lines until there can be no more.
pub(super) async fn print(
    mut lines: mpsc::UnboundedReceiver<Line>,
    mut columns: Columns,
    quiet: bool,
) {
    while let Some(line) = lines.recv().await {
        if (quiet && !line.own) || columns.leaves_out(&line) {
            continue;
        }
        // A closed pipe is no reason to stop the processes.
        let _ = writeln!(std::io::stdout(), "{}", columns.show(&line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_whole_lines_are_read_and_none_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut reader = Reader::new(path.clone());
        assert!(reader.read().await.is_empty());
        std::fs::write(&path, "one\ntw").unwrap();
        assert_eq!(reader.read().await, ["one"]);
        std::fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(reader.read().await, ["two"]);
    }
}
