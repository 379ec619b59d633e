//! Floods of HTTP/2 frames that cost the sender nothing and us something: looked for in the frame
//! headers (RFC 9113 section 4.1), before the parser sees them. A state machine without a socket.
//!
//! What needs no watch here: answers to PING and SETTINGS are written before the next frame is
//! read, header blocks in many pieces and streams that are reset before they are accepted are
//! limited by the h2 crate.

use crate::model::cluster::FrameLimits;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const HEAD: usize = 9;

/// What a peer sends too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// Frames without content that end nothing.
    Empty,
    /// PRIORITY
    Priority,
    /// WINDOW_UPDATE
    WindowUpdate,
}

/// Follows the frames of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Frames {
    head: [u8; HEAD],
    /// Bytes of the head so far.
    known: usize,
    /// Bytes of the payload that are still to come.
    payload: usize,
}

/// Follows both directions of a connection. The preface has been read.
#[derive(Debug)]
pub struct FrameGuard {
    limits: FrameLimits,
    /// Of the preface.
    skip: usize,
    inbound: Frames,
    outbound: Frames,
    empty: u32,
    streams: u64,
    priorities: u64,
    window_updates: u64,
    data_sent: u64,
    flood: Option<Flood>,
}

impl FrameGuard {
    /// At the beginning of a connection.
    pub fn new(limits: FrameLimits) -> Self {
        Self {
            limits,
            skip: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len(),
            inbound: Frames::default(),
            outbound: Frames::default(),
            empty: 0,
            streams: 0,
            priorities: 0,
            window_updates: 0,
            data_sent: 0,
            flood: None,
        }
    }

    /// Look at bytes that were read. A flood, and the end of the frame that made it one.
    pub fn read(&mut self, bytes: &[u8]) -> Option<(usize, Flood)> {
        let mut at = self.skip.min(bytes.len());
        self.skip -= at;
        while at < bytes.len() {
            let mut frames = self.inbound;
            let (passed, begun) = frames.step(bytes.get(at..).unwrap_or_default());
            self.inbound = frames;
            at += passed;
            if let Some(frame) = begun
                && let Some(flood) = self.count(frame)
            {
                self.flood = Some(flood);
            }
            if let Some(flood) = self.flood
                && self.inbound.is_between()
            {
                return Some((at, flood));
            }
        }
        None
    }

    /// Look at bytes that were written.
    pub fn written(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let (passed, begun) = self.outbound.step(bytes.get(at..).unwrap_or_default());
            at += passed;
            self.data_sent += u64::from(begun.is_some_and(|frame| frame.kind == DATA));
        }
    }

    fn count(&mut self, frame: Frame) -> Option<Flood> {
        let ends = match frame.kind {
            DATA | HEADERS => frame.flags & END_STREAM != 0,
            CONTINUATION => frame.flags & END_HEADERS != 0,
            _ => true,
        };
        match frame.kind {
            DATA | HEADERS | CONTINUATION if frame.length == 0 && !ends => {
                self.empty += 1;
                if self.empty > self.limits.empty {
                    return Some(Flood::Empty);
                }
            }
            DATA | HEADERS | CONTINUATION => self.empty = 0,
            _ => {}
        }
        match frame.kind {
            HEADERS => self.streams += 1,
            PRIORITY => {
                self.priorities += 1;
                let most = u64::from(self.limits.priority_per_stream) * (1 + self.streams);
                return (self.priorities > most).then_some(Flood::Priority);
            }
            WINDOW_UPDATE => {
                self.window_updates += 1;
                let per_data = u64::from(self.limits.window_updates_per_data);
                let most = 5 + 2 * (self.streams + per_data * self.data_sent);
                return (self.window_updates > most).then_some(Flood::WindowUpdate);
            }
            _ => {}
        }
        None
    }
}

#[derive(Clone, Copy)]
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
}

impl Frames {
    /// How many bytes belong to one frame, and the frame if its head is whole now.
    fn step(&mut self, bytes: &[u8]) -> (usize, Option<Frame>) {
        if self.payload > 0 {
            let passed = self.payload.min(bytes.len());
            self.payload -= passed;
            return (passed, None);
        }
        let passed = (HEAD - self.known).min(bytes.len());
        if let (Some(to), Some(from)) =
            (self.head.get_mut(self.known..self.known + passed), bytes.get(..passed))
        {
            to.copy_from_slice(from);
        }
        self.known += passed;
        if self.known < HEAD {
            return (passed, None);
        }
        self.known = 0;
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        self.payload = length;
        (passed, Some(Frame { length, kind, flags }))
    }

    fn is_between(&self) -> bool {
        self.known == 0 && self.payload == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], payload].concat()
    }

    fn play(frames: &[Vec<u8>], piece: usize) -> Option<Flood> {
        let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frames.concat()].concat();
        let mut guard = FrameGuard::new(FrameLimits::default());
        bytes.chunks(piece).find_map(|piece| guard.read(piece)).map(|(_, flood)| flood)
    }

    #[test]
    fn floods_are_seen_however_the_bytes_arrive() {
        for piece in [1, 7, 1000] {
            let open = || frame(HEADERS, END_HEADERS, b"x");
            let empty = vec![open(), frame(DATA, 0, b""), frame(DATA, 0, b"")];
            assert_eq!(play(&empty, piece), Some(Flood::Empty));
            let fine = vec![open(), frame(DATA, 0, b""), frame(DATA, 0, b"a"), frame(DATA, 0, b"")];
            assert_eq!(play(&fine, piece), None);
            assert_eq!(
                play(&vec![frame(PRIORITY, 0, b"12345"); 101], piece),
                Some(Flood::Priority)
            );
            assert_eq!(play(&vec![frame(PRIORITY, 0, b"12345"); 100], piece), None);
            let updates = vec![frame(WINDOW_UPDATE, 0, b"1234"); 6];
            assert_eq!(play(&updates, piece), Some(Flood::WindowUpdate));
        }
    }

    #[test]
    fn data_that_was_sent_allows_more_window_updates() {
        let mut guard = FrameGuard::new(FrameLimits::default());
        guard.skip = 0;
        guard.written(&frame(DATA, 0, b"abc"));
        for _ in 0..25 {
            assert_eq!(guard.read(&frame(WINDOW_UPDATE, 0, b"1234")), None);
        }
        assert!(guard.read(&frame(WINDOW_UPDATE, 0, b"1234")).is_some());
    }
}
