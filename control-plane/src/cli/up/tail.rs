//! What the processes write, as one coloured stream.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};
use tokio::sync::mpsc;
use tokio::time::sleep;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A line without an end is shown once it is this long.
const LONGEST_LINE: usize = 64 * 1024;
/// Length of a trace id, in hexadecimal digits (W3C Trace Context).
const TRACE_ID: usize = 32;
/// Length of a request id.
const UUID: usize = 36;
/// How far before it the word trace may begin, as in `"trace_id": "`.
const TRACE_WORD: usize = 16;
const COLOURS: [&str; 6] = ["36", "33", "35", "32", "34", "96"];

/// A line and who wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    name: String,
    text: String,
    own: bool,
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
pub(super) async fn print(mut lines: mpsc::UnboundedReceiver<Line>, colour: bool, quiet: bool) {
    let mut width = 0;
    while let Some(line) = lines.recv().await {
        if quiet && !line.own {
            continue;
        }
        width = width.max(line.name.len());
        // A closed pipe is no reason to stop the processes.
        let _ = writeln!(std::io::stdout(), "{}", show(&line, width, colour));
    }
}

fn show(line: &Line, width: usize, colour: bool) -> String {
    let Line { name, text, own } = line;
    if !colour {
        return format!("{name:<width$} | {text}");
    }
    let code = if *own { "1" } else { colour_of(name) };
    let text = match trace_id(text) {
        // Lines of one trace have one colour, whoever wrote them.
        Some(id) => {
            let (before, id, after) = (&text[..id.start], &text[id.clone()], &text[id.end..]);
            format!("{before}\x1b[4;{}m{id}\x1b[0m{after}", colour_of(id))
        }
        None => text.clone(),
    };
    format!("\x1b[{code}m{name:<width$} |\x1b[0m {text}")
}

fn colour_of(name: &str) -> &'static str {
    let sum: usize = name.bytes().map(usize::from).sum();
    COLOURS[sum % COLOURS.len()]
}

/// Where a line has the id of a trace (in a `traceparent`, or behind the word trace) or of a request (a UUID behind the
/// word request).
fn trace_id(text: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes[at..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let before = &bytes[at.saturating_sub(TRACE_WORD)..at];
        let behind = |word: &[u8]| {
            before.to_ascii_lowercase().windows(word.len()).any(|window| window == word)
        };
        if hex == TRACE_ID {
            let parent = before.ends_with(b"00-") && bytes.get(at + hex) == Some(&b'-');
            if parent || behind(b"trace") {
                return Some(at..at + hex);
            }
        }
        if hex == 8 && behind(b"request") && bytes.get(at..at + UUID).is_some_and(is_uuid) {
            return Some(at..at + UUID);
        }
        at += hex.max(1);
    }
    None
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
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

    #[test]
    fn a_trace_has_one_colour_whoever_writes() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("GET / traceparent=00-{id}-00f067aa0ba902b7-01 200");
        let json = format!("{{\"traceId\": \"{id}\", \"message\": \"ok\"}}");
        for text in [&parent, &json] {
            assert_eq!(&text[trace_id(text).unwrap()], id);
        }
        let shown = |name: &str, text: &str| {
            show(&Line { name: name.into(), text: text.into(), own: false }, 4, true)
        };
        let coloured = format!("\x1b[4;{}m{id}\x1b[0m", colour_of(id));
        assert!(
            shown("web", &parent).contains(&coloured) && shown("cart", &json).contains(&coloured)
        );
        let request = r#"{"request_id":"32f0a36a-77de-4e63-8fc0-6bc9b258cf07","route":"x"}"#;
        assert_eq!(&request[trace_id(request).unwrap()], "32f0a36a-77de-4e63-8fc0-6bc9b258cf07");
        for other in [format!("sha256 {id}{id}"), format!("md5 {id}"), "é trace".to_owned()] {
            assert_eq!(trace_id(&other), None, "{other}");
        }
    }

    #[test]
    fn names_stand_in_a_column() {
        let line = Line { name: "web-1".into(), text: "hello".into(), own: false };
        assert_eq!(show(&line, 8, false), "web-1    | hello");
        assert!(show(&line, 8, true).starts_with("\x1b["));
    }
}
