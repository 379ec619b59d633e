//! Header names as they were written. HTTP does not care; some applications do.

use bytes::Bytes;
use http::HeaderName;

/// The names of a message's header lines, in order. In the extensions of its head, and only if some name is
/// not in lower case: a message without it is written in lower case.
#[derive(Clone, Debug, Default)]
pub struct Spelling {
    head: Bytes,
    /// Where each name begins, and how long it is.
    names: Vec<(u32, u16)>,
}

impl Spelling {
    /// Of a head, whose names will follow.
    pub(super) fn new(head: Bytes) -> Self {
        Self { head, names: Vec::new() }
    }

    pub(super) fn push(&mut self, from: usize, length: usize) {
        let place = u32::try_from(from).ok().zip(u16::try_from(length).ok());
        self.names.extend(place);
    }

    /// How the `nth` line with this name was written. None: there were not so many.
    pub fn find(&self, name: &HeaderName, nth: usize) -> Option<&[u8]> {
        let wanted = name.as_str().as_bytes();
        self.iter().filter(|written| written.eq_ignore_ascii_case(wanted)).nth(nth)
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.names.iter().filter_map(|(from, length)| {
            let from = *from as usize;
            self.head.get(from..from + usize::from(*length))
        })
    }
}
