//! How a line looks: names in a column, each in its colour; requests and ids so that people see what belongs together.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::ops::Range;

use serde_json::Value;

use super::tail::Line;

/// Length of a trace id, in hexadecimal digits (W3C Trace Context).
const TRACE_ID: usize = 32;
/// Length of a request id.
const UUID: usize = 36;
/// How far before it the word trace may begin, as in `"trace_id": "`.
const TRACE_WORD: usize = 16;
/// Those that can be read on black and on white, but for red, which is for errors.
const COLOURS: [&str; 9] = ["36", "33", "35", "32", "94", "96", "93", "95", "92"];
/// The level of a line stands within so many bytes, behind the time.
const LEVEL_WITHIN: usize = 48;
/// Lines are not folded into less than this, behind the names.
const LEAST_FOLD: usize = 24;
/// Who has the mesh's own log.
const CONTROL_PLANE: &str = "control-plane";

/// What the lines are for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// People read them, not scripts.
    pub(super) terminal: bool,
    /// In colours.
    pub(super) colour: bool,
}

impl Look {
    /// Of standard output. Colours are for people at a terminal who did not say no to them (<https://no-color.org>).
    pub(super) fn of_stdout() -> Self {
        let no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, colour: terminal && !no }
    }
}

/// The column of names, and their colours: each has the next one that is free when it comes.
#[derive(Debug, Default)]
pub(super) struct Columns {
    look: Look,
    width: usize,
    colours: BTreeMap<String, &'static str>,
}

impl Columns {
    /// Wide enough for these names, and for longer ones when they come.
    pub(super) fn new<'a>(look: Look, names: impl Iterator<Item = &'a str>) -> Self {
        let width = names.map(str::len).max().unwrap_or(0);
        Self { look, width, ..Self::default() }
    }

    /// People are not told of everything that the control plane does: its log has it.
    pub(super) fn leaves_out(&self, line: &Line) -> bool {
        self.look.terminal && line.name == CONTROL_PLANE && level_of(&line.text).is_none()
    }

    /// A line of one of the processes.
    pub(super) fn line(&mut self, name: &str, text: &str) -> String {
        self.show(&Line { name: name.to_owned(), text: text.to_owned(), own: false })
    }

    /// The line as it is printed.
    pub(super) fn show(&mut self, line: &Line) -> String {
        let at_most = match self.look.terminal {
            true => crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns)),
            false => None,
        };
        self.within(line, at_most)
    }

    /// The same for a terminal of so many columns.
    fn within(&mut self, Line { name, text, own }: &Line, at_most: Option<usize>) -> String {
        self.width = self.width.max(name.len());
        let width = self.width;
        if !self.look.terminal {
            return format!("{name:<width$} | {text}");
        }
        let colour = if *own { "1" } else { self.colour_of(name) };
        let paint = Paint(self.look.colour);
        let head = |name: &str| paint.with(colour, &format!("{name:<width$} |"));
        let request = request(text, paint);
        let foldable = *own || request.is_some();
        let text = request.as_deref().unwrap_or(text);
        let text = match trace_id(text) {
            // Lines of one trace have one colour, whoever wrote them.
            Some(id) => {
                let (before, id, after) = (&text[..id.start], &text[id.clone()], &text[id.end..]);
                let colour = format!("4;{}", colour_of_id(id));
                format!("{before}{}{after}", paint.with(&colour, id))
            }
            None => level(text, paint).unwrap_or_else(|| text.to_owned()),
        };
        let room = at_most.map_or(0, |at_most| at_most.saturating_sub(width + 3));
        // What programs write stays as they wrote it.
        if !foldable || room < LEAST_FOLD {
            return format!("{} {text}", head(name));
        }
        let folded = fold(&text, room).into_iter().enumerate();
        let lines = folded.map(|(at, part)| match at {
            0 => format!("{} {part}", head(name)),
            _ => format!("{}   {part}", head("")),
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn colour_of(&mut self, name: &str) -> &'static str {
        // The mesh's own stays in the background; a sidecar has the colour of its instance.
        if name == CONTROL_PLANE {
            return "90";
        }
        let instance = name.strip_suffix("-sidecar").unwrap_or(name);
        let next = COLOURS[self.colours.len() % COLOURS.len()];
        self.colours.entry(instance.to_owned()).or_insert(next)
    }
}

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, colour: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// At spaces, so that no part is longer than `room`, where its words are not; the later ones have two less, for
/// indentation. Colours begin and end within a word.
fn fold(text: &str, room: usize) -> Vec<String> {
    let mut parts: Vec<String> = vec![String::new()];
    let mut left = room;
    for word in text.split(' ') {
        let length = seen(word);
        let part = parts.last_mut().filter(|part| part.is_empty() || length < left);
        match part {
            Some(part) => {
                if !part.is_empty() {
                    part.push(' ');
                    left -= 1;
                }
                part.push_str(word);
            }
            None => {
                parts.push(word.to_owned());
                left = room - 2;
            }
        }
        left = left.saturating_sub(length);
    }
    parts
}

/// How many columns it takes, without its colours.
fn seen(word: &str) -> usize {
    let mut parts = word.split('\x1b');
    let first = parts.next().map_or(0, |part| part.chars().count());
    let rest = parts.map(|part| part.split_once('m').map_or(0, |(_, text)| text.chars().count()));
    first + rest.sum::<usize>()
}

fn colour_of_id(id: &str) -> &'static str {
    let sum: usize = id.bytes().map(usize::from).sum();
    COLOURS[sum % COLOURS.len()]
}

/// Where a line of our own programs says that it is about a warning or an error, and the colour for that.
fn level_of(text: &str) -> Option<(Range<usize>, &'static str)> {
    let head = text.get(..text.len().min(LEVEL_WITHIN)).unwrap_or_default();
    [(" WARN ", "1;33"), ("ERROR ", "1;31")].into_iter().find_map(|(word, colour)| {
        let at = head.find(word)?;
        Some((at..at + word.len(), colour))
    })
}

fn level(text: &str, paint: Paint) -> Option<String> {
    let (word, colour) = level_of(text)?;
    let (before, after) = (&text[..word.start], &text[word.end..]);
    Some(format!("{before}{}{after}", paint.with(colour, &text[word])))
}

/// A line of an access log as people read it: `GET catalog/products 200 3 ms`, then where it went, who asked, and the
/// ids. `None`: it is none.
fn request(text: &str, paint: Paint) -> Option<String> {
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
    let code = paint.with(colour, &code.to_string());
    let mut shown = format!("{} {host}{path} {code}", field("method")?);
    if let Some(flags) = field("response_flags") {
        let _ = write!(shown, " {}", paint.with("31", &flags));
    }
    if let Some(duration) = field("duration") {
        let _ = write!(shown, " {duration} ms");
    }
    if let Some(upstream) = field("upstream_host") {
        let _ = write!(shown, " -> {upstream}");
    }
    if let Some(peer) = field("downstream_peer") {
        let _ = write!(shown, " by {}", short_peer(&peer));
    }
    match (field("traceparent"), field("request_id")) {
        (Some(parent), _) => {
            let id = parent.split('-').nth(1).unwrap_or(&parent);
            let _ = write!(shown, " trace={id}");
        }
        (None, Some(id)) => drop(write!(shown, " request={id}")),
        (None, None) => {}
    }
    Some(shown)
}

/// `spiffe://shop.local/ns/default/sa/web` is `web.default` to people.
fn short_peer(id: &str) -> String {
    let mut parts = id.rsplit('/');
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(account), Some("sa"), Some(namespace), Some("ns")] => {
            format!("{account}.{namespace}")
        }
        _ => id.to_owned(),
    }
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

    fn columns(colour: bool) -> Columns {
        Columns { look: Look { terminal: true, colour }, ..Columns::default() }
    }

    #[test]
    fn a_narrow_terminal_folds_requests_and_leaves_what_programs_wrote() {
        let text = r#"{"method":"GET","authority":"catalog","path":"/products","response_code":200,"duration":3,"upstream_host":"127.0.0.1:34567","downstream_peer":"spiffe://shop.local/ns/default/sa/web","request_id":"32f0a36a-77de-4e63-8fc0-6bc9b258cf07"}"#;
        let line = Line { name: "web-1".to_owned(), text: text.to_owned(), own: false };
        let plain = columns(false).within(&line, Some(60));
        assert_eq!(
            plain,
            "web-1 | GET catalog/products 200 3 ms -> 127.0.0.1:34567 by\n      \
             |   web.default\n      |   request=32f0a36a-77de-4e63-8fc0-6bc9b258cf07"
        );
        let coloured = columns(true).within(&line, Some(60));
        let without: Vec<String> = coloured
            .split('\n')
            .map(|line| {
                line.split('\x1b')
                    .map(|part| part.split_once('m').map_or(part, |(_, text)| text))
                    .collect()
            })
            .collect();
        assert_eq!(without.join("\n"), plain, "colours take no room");
        let own = Line { text: "x".repeat(30) + " " + &"y".repeat(60), ..line };
        assert_eq!(columns(false).within(&own, Some(60)).lines().count(), 1);
    }

    #[test]
    fn people_are_told_what_goes_wrong_in_the_control_plane_only() {
        let line =
            |text: &str| Line { name: CONTROL_PLANE.to_owned(), text: text.to_owned(), own: false };
        let (fine, odd) =
            (line("2026-11-21T14:27:41.8Z  INFO a"), line("2026-11-21T14:27:41.8Z  WARN a"));
        assert!(columns(false).leaves_out(&fine) && !columns(false).leaves_out(&odd));
        assert!(!Columns::default().leaves_out(&fine), "scripts get everything");
    }

    #[test]
    fn a_trace_has_one_colour_whoever_writes() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = format!("GET / traceparent=00-{id}-00f067aa0ba902b7-01 200");
        let json = format!("{{\"traceId\": \"{id}\", \"message\": \"ok\"}}");
        for text in [&parent, &json] {
            assert_eq!(&text[trace_id(text).unwrap()], id);
        }
        let shown = |name: &str, text: &str| columns(true).line(name, text);
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
        let mut plain = Columns::new(Look::default(), ["web-1", "cart-v10"].into_iter());
        assert_eq!(plain.line("web-1", "hello"), "web-1    | hello");
        let mut columns = columns(true);
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
        let shown = columns(true).line("web-1-sidecar", text);
        for part in ["GET web/a ", "503", "UH", " 3 ms", "32f0a36a-77de-4e63-8fc0-6bc9b258cf07"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains('{'), "{shown}");
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let traced = text.replace(
            "\"request_id\"",
            &format!("\"traceparent\":\"00-{id}-00f067aa0ba902b7-00\",\"request_id\""),
        );
        let shown = columns(false).line("web-1-sidecar", &traced);
        assert!(shown.ends_with(&format!(" trace={id}")), "{shown}");
        assert!(Columns::default().line("web-1-sidecar", text).ends_with(text));
        assert_eq!(request(r#"{"message":"of the application"}"#, Paint(true)), None);
    }

    #[test]
    fn warnings_and_errors_stand_out() {
        let line = "2026-11-21T14:27:41.8Z  WARN pillion: odd";
        assert!(level(line, Paint(true)).unwrap().contains("\x1b[1;33m WARN \x1b[0m"));
        assert_eq!(level("all is well", Paint(true)), None);
    }
}
