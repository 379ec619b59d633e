//! Names with a wildcard at one end, found without looking at all of them.

use std::collections::HashMap;

/// What is left of such names without their wildcard. The longest that fits is found by one look for
/// each length that occurs, however many names there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wildcards {
    known: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    /// Bytes, longest first.
    lengths: Vec<usize>,
}

impl Wildcards {
    /// `part` stands for `index`. False: it stands for something already.
    pub fn insert(&mut self, part: &str, index: usize) -> bool {
        if self.known.contains_key(part) {
            return false;
        }
        self.known.insert(part.into(), index);
        if let Err(at) = self.lengths.binary_search_by(|one| part.len().cmp(one)) {
            self.lengths.insert(at, part.len());
        }
        true
    }

    /// What the longest part stands for that `name` ends with. The wildcard is at least one byte.
    pub fn at_end(&self, name: &str) -> Option<usize> {
        self.longest(name, |length| name.get(name.len() - length..))
    }

    /// The same of the part that `name` begins with.
    pub fn at_beginning(&self, name: &str) -> Option<usize> {
        self.longest(name, |length| name.get(..length))
    }

    fn longest<'n>(&self, name: &'n str, part: impl Fn(usize) -> Option<&'n str>) -> Option<usize> {
        let shorter = self.lengths.iter().filter(|length| **length < name.len());
        shorter.filter_map(|length| part(*length)).find_map(|part| self.known.get(part).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wins_and_a_wildcard_is_never_nothing() {
        let mut names = Wildcards::default();
        for (part, index) in [(".example", 1), (".shop.example", 2), ("", 3), ("www.", 4)] {
            assert!(names.insert(part, index));
            assert!(!names.insert(part, 9));
        }
        assert_eq!(names.at_end("a.shop.example"), Some(2));
        assert_eq!(names.at_end(".shop.example"), Some(1));
        assert_eq!(names.at_end("ü.example"), Some(1));
        assert_eq!(names.at_end("üüüü"), Some(3));
        assert_eq!(names.at_end(""), None);
        assert_eq!(names.at_beginning("www.other"), Some(4));
        assert_eq!(names.at_beginning("www."), Some(3));
        assert_eq!(Wildcards::default().at_end("any"), None);
    }
}
