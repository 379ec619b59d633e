//! What the processes write, as one coloured stream.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
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
const COLOURS: [&str; 11] = ["36", "33", "35", "32", "34", "96", "93", "95", "92", "94", "31"];
/// The level of a line stands within so many bytes, behind the time.
const LEVEL_WITHIN: usize = 48;

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
    let mut columns = Columns::new(colour);
    while let Some(line) = lines.recv().await {
        if quiet && !line.own {
            continue;
        }
        // A closed pipe is no reason to stop the processes.
        let _ = writeln!(std::io::stdout(), "{}", columns.show(&line));
    }
}

/// The column of names, and their colours: each has the next one that is free when it comes.
#[derive(Debug, Default)]
pub(super) struct Columns {
    colour: bool,
    width: usize,
    colours: BTreeMap<String, &'static str>,
}

impl Columns {
    pub(super) fn new(colour: bool) -> Self {
        Self { colour, ..Self::default() }
    }

    /// A line of one of the processes.
    pub(super) fn line(&mut self, name: &str, text: &str) -> String {
        self.show(&Line { name: name.to_owned(), text: text.to_owned(), own: false })
    }

    fn show(&mut self, Line { name, text, own }: &Line) -> String {
        let colour = if *own { "1" } else { self.colour_of(name) };
        self.width = self.width.max(name.len());
        let width = self.width;
        if !self.colour {
            return format!("{name:<width$} | {text}");
        }
        let short = request(text);
        let text = short.as_deref().unwrap_or(text);
        let text = match trace_id(text) {
            // Lines of one trace have one colour, whoever wrote them.
            Some(id) => {
                let (before, id, after) = (&text[..id.start], &text[id.clone()], &text[id.end..]);
                format!("{before}\x1b[4;{}m{id}\x1b[0m{after}", colour_of_id(id))
            }
            None => level(text).unwrap_or_else(|| text.to_owned()),
        };
        format!("\x1b[{colour}m{name:<width$} |\x1b[0m {text}")
    }

    fn colour_of(&mut self, name: &str) -> &'static str {
        // The mesh's own stays in the background; a sidecar has the colour of its instance.
        if name == "control-plane" {
            return "90";
        }
        let instance = name.strip_suffix("-sidecar").unwrap_or(name);
        let next = COLOURS[self.colours.len() % COLOURS.len()];
        self.colours.entry(instance.to_owned()).or_insert(next)
    }
}

fn colour_of_id(id: &str) -> &'static str {
    let sum: usize = id.bytes().map(usize::from).sum();
    COLOURS[sum % COLOURS.len()]
}

/// A line of our own programs about a warning or an error, with that word in its colour.
fn level(text: &str) -> Option<String> {
    let head = text.get(..text.len().min(LEVEL_WITHIN)).unwrap_or_default();
    [(" WARN ", "33"), ("ERROR ", "31")].into_iter().find_map(|(word, colour)| {
        let at = head.find(word)?;
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        Some(format!("{before}\x1b[1;{colour}m{word}\x1b[0m{after}"))
    })
}

/// A line of an access log as people read it: `GET catalog/products 200 3 ms`, then where it went, who asked, and the
/// ids. `None`: it is none.
fn request(text: &str) -> Option<String> {
    let line: Value = text.starts_with('{').then(|| serde_json::from_str(text).ok())??;
    let field = |name: &str| match &line[name] {
        Value::String(text) if !text.is_empty() && text != "-" => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let code = line["response_code"].as_u64()?;
    let colour = match code {
        0 | 500.. => "31",
        400.. => "33",
        _ => "32",
    };
    let (host, path) = (field("authority").unwrap_or_default(), field("path").unwrap_or_default());
    let mut shown = format!("{} {host}{path} \x1b[{colour}m{code}\x1b[0m", field("method")?);
    if let Some(flags) = field("response_flags") {
        let _ = write!(shown, " \x1b[31m{flags}\x1b[0m");
    }
    let parts =
        [("", "duration", " ms"), ("-> ", "upstream_host", ""), ("by ", "downstream_peer", "")];
    for (before, name, after) in parts {
        if let Some(value) = field(name) {
            let _ = write!(shown, " {before}{value}{after}");
        }
    }
    match (field("traceparent"), field("request_id")) {
        (Some(trace), _) => drop(write!(shown, " trace={trace}")),
        (None, Some(id)) => drop(write!(shown, " request={id}")),
        (None, None) => {}
    }
    Some(shown)
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
        let shown = |name: &str, text: &str| Columns::new(true).line(name, text);
        let coloured = format!("\x1b[4;{}m{id}\x1b[0m", colour_of_id(id));
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
    fn names_stand_in_a_column_each_in_its_colour() {
        let mut plain = Columns { width: 8, ..Columns::default() };
        assert_eq!(plain.line("web-1", "hello"), "web-1    | hello");
        let mut columns = Columns::new(true);
        let mut start = |name: &str| {
            let shown = columns.line(name, "hello");
            shown[..shown.find('m').unwrap()].to_owned()
        };
        let (web, cart) = (start("web-1"), start("cart-1"));
        assert_ne!(web, cart);
        assert_eq!(start("web-1-sidecar"), web);
        assert_eq!(start("web-1"), web);
        assert_eq!(start("control-plane"), "\x1b[90");
    }

    #[test]
    fn a_request_is_shown_short_to_people_only() {
        let text = r#"{"method":"GET","authority":"web","path":"/a","response_code":503,"response_flags":"UH","duration":3,"upstream_host":null,"request_id":"32f0a36a-77de-4e63-8fc0-6bc9b258cf07"}"#;
        let shown = Columns::new(true).line("web-1-sidecar", text);
        for part in ["GET web/a ", "503", "UH", " 3 ms", "32f0a36a-77de-4e63-8fc0-6bc9b258cf07"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains('{'), "{shown}");
        assert!(Columns::new(false).line("web-1-sidecar", text).ends_with(text));
        assert_eq!(request(r#"{"message":"of the application"}"#), None);
    }

    #[test]
    fn warnings_and_errors_stand_out() {
        let line = "2026-11-21T14:27:41.8Z  WARN pillion: odd";
        assert!(level(line).unwrap().contains("\x1b[1;33m WARN \x1b[0m"));
        assert_eq!(level("all is well"), None);
    }
}
