//! What is seen while a fleet starts: a list with a spinner on a terminal, else a line for each part that got ready.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};

use super::fleet::{Fleet, Instance};
use super::process::Phase;

const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Writes to stderr, so that stdout is the summary's alone.
#[derive(Debug)]
pub(crate) struct Progress {
    live: bool,
    color: bool,
    drawn: usize,
    frame: usize,
    said: BTreeSet<String>,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    name: String,
    state: State,
    note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    /// Its sidecars have their configuration and certificates; an app does not answer yet.
    Warm,
    Ready,
    Failing,
}

impl Progress {
    /// On a terminal the list is redrawn in place, in colours unless `NO_COLOR` is set.
    pub(crate) fn new() -> Self {
        let live = std::io::stderr().is_terminal();
        let color = live && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { live, color, drawn: 0, frame: 0, said: BTreeSet::new() }
    }

    /// A line above the list.
    pub(crate) fn say(&mut self, text: &str) {
        eprintln!("{text}");
        self.drawn = 0;
    }

    /// Shows the state of `parts` now.
    pub(crate) fn show(&mut self, parts: &[Part]) {
        self.frame += 1;
        let mut text = String::new();
        if self.live {
            if self.drawn > 0 {
                text.push_str(&format!("\x1b[{}A", self.drawn));
            }
            for part in parts {
                text.push_str(&format!("\x1b[2K{}\n", part.line(self.frame, self.color)));
            }
            self.drawn = parts.len();
        } else {
            for part in parts {
                if part.state == State::Ready && self.said.insert(part.name.clone()) {
                    text.push_str(&format!("{}\n", part.line(0, false)));
                }
            }
        }
        // Nobody listening on stderr is no reason to fail.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// The parts of a fleet: its control plane, and its groups of instances.
pub(crate) fn parts_of(fleet: &Fleet) -> Vec<Part> {
    let control_plane = Part {
        name: "control plane".to_owned(),
        state: match fleet.control_plane.process.status().phase {
            Phase::Ready => State::Ready,
            _ => State::Starting,
        },
        note: format!("http://{}", fleet.control_plane.admin),
    };
    let groups = fleet.groups();
    let groups = groups.iter().map(|(name, members)| group(name, members));
    std::iter::once(control_plane).chain(groups).collect()
}

/// The last part: whether the whole path answers.
pub(crate) fn front_door(good: u32, wanted: u32, error: Option<&str>) -> Part {
    let state = if good >= wanted { State::Ready } else { State::Warm };
    let note = match error {
        Some(error) if good < wanted => error.to_owned(),
        _ => format!("{good} good answers in a row"),
    };
    Part { name: "front door".to_owned(), state, note }
}

fn group(name: &str, members: &[&Instance]) -> Part {
    let ready = members.iter().filter(|instance| instance.is_ready()).count();
    let warm = members.iter().filter(|i| i.sidecar.status().phase == Phase::Ready).count();
    let processes = members.iter().flat_map(|i| i.app.iter().chain([&i.sidecar]));
    let ended = processes
        .map(|process| (process, process.status()))
        .find(|(_, status)| status.phase == Phase::Down);
    let state = match ended {
        Some(_) => State::Failing,
        None if ready == members.len() => State::Ready,
        None if warm == members.len() => State::Warm,
        None => State::Starting,
    };
    let note = match ended {
        Some((process, status)) => {
            format!("{} {}", process.name, status.last_end.unwrap_or_default())
        }
        None => format!("{ready} of {} ready", members.len()),
    };
    Part { name: name.to_owned(), state, note }
}

impl Part {
    fn line(&self, frame: usize, color: bool) -> String {
        let (mark, word, code) = match self.state {
            State::Starting => (SPINNER[frame / 2 % SPINNER.len()], "starting", 33),
            State::Warm => (SPINNER[frame / 2 % SPINNER.len()], "warm", 36),
            State::Ready => ('✓', "ready", 32),
            State::Failing => ('✗', "failing", 31),
        };
        // A terminal's line must not wrap, or the list could not be redrawn in place.
        let note: String = self.note.lines().next().unwrap_or_default().chars().take(48).collect();
        let (start, end) =
            if color { (format!("\x1b[{code}m"), "\x1b[0m") } else { (String::new(), "") };
        format!("  {start}{mark} {:<14} {word:<9}{end} {note}", self.name).trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_line_that_does_not_wrap() {
        let part = |state, note: &str| Part {
            name: "catalog-v1".to_owned(),
            state,
            note: note.to_owned(),
        };
        let ready = part(State::Ready, "2 of 2 ready");
        assert_eq!(ready.line(0, false), "  ✓ catalog-v1     ready     2 of 2 ready");
        assert_eq!(
            part(State::Starting, "").line(2, true),
            "  \x1b[33m⠙ catalog-v1     starting \x1b[0m"
        );
        let long = part(State::Failing, &format!("{}\nsecond line", "x".repeat(200)));
        assert!(long.line(0, false).chars().count() < 80);
        assert!(!long.line(0, false).contains('\n'));
    }

    #[test]
    fn the_front_door_says_why_it_is_closed() {
        let closed = front_door(0, 20, Some("HTTP 503: no healthy upstream"));
        assert_eq!(
            (closed.state, closed.note.as_str()),
            (State::Warm, "HTTP 503: no healthy upstream")
        );
        assert_eq!(front_door(20, 20, None).state, State::Ready);
    }
}
