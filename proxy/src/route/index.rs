//! Which routes of a virtual host can fit at all: most of a long table is left out by one comparison each.

use std::sync::Arc;

use crate::model::route::{Case, PathMatch, Route};

/// So many bytes at the beginning of a path are compared.
const HEAD: usize = 8;

/// The beginnings of the paths that routes want, in their order.
#[derive(Debug)]
pub(super) struct Index(Vec<Beginning>);

/// These bits of a path's beginning have to be these. No bits: only a closer look can tell.
#[derive(Clone, Copy, Debug)]
struct Beginning {
    mask: u64,
    bits: u64,
}

impl Index {
    pub(super) fn new(routes: &[Arc<Route>]) -> Self {
        Self(routes.iter().map(|route| beginning(&route.matches.path)).collect())
    }

    /// The places of those that a path has to be held against, in order.
    pub(super) fn candidates(&self, path: &str) -> impl Iterator<Item = usize> {
        let (_, head) = head_of(path);
        let fits = move |one: &Beginning| head & one.mask == one.bits;
        self.0.iter().enumerate().filter(move |(_, one)| fits(one)).map(|(at, _)| at)
    }
}

fn beginning(path: &PathMatch) -> Beginning {
    let (mask, bits) = match path {
        PathMatch::Prefix(text, Case::Sensitive)
        | PathMatch::SeparatedPrefix(text, Case::Sensitive)
        | PathMatch::Exact(text, Case::Sensitive) => head_of(text),
        _ => (0, 0),
    };
    Beginning { mask, bits }
}

/// The first bytes of a text as a number, and the bits of that which are the text's.
fn head_of(text: &str) -> (u64, u64) {
    let (mut mask, mut head) = ([0; HEAD], [0; HEAD]);
    for ((byte, mask), from) in head.iter_mut().zip(&mut mask).zip(text.as_bytes()) {
        (*byte, *mask) = (*from, 0xff);
    }
    (u64::from_ne_bytes(mask), u64::from_ne_bytes(head))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::tests::route as named;
    use super::*;

    fn route(path: PathMatch) -> Arc<Route> {
        Arc::new(named("", path))
    }

    proptest! {
        #[test]
        fn who_could_fit_is_never_left_out(
            wanted in prop::collection::vec("/[ab/]{0,11}", 1..8),
            path in "/[ab/]{0,11}",
        ) {
            let prefix = |text: &String| route(PathMatch::Prefix(text.clone(), Case::Sensitive));
            let exact = |text: &String| route(PathMatch::Exact(text.clone(), Case::Sensitive));
            let routes: Vec<_> = wanted.iter().flat_map(|one| [prefix(one), exact(one)]).collect();
            let candidates: Vec<_> = Index::new(&routes).candidates(&path).collect();
            for (at, text) in wanted.iter().enumerate() {
                prop_assert!(!path.starts_with(text) || candidates.contains(&(2 * at)));
                prop_assert!(path != *text || candidates.contains(&(2 * at + 1)));
                let head = &text[..text.len().min(HEAD)];
                prop_assert_eq!(path.starts_with(head), candidates.contains(&(2 * at)));
            }
        }
    }

    #[test]
    fn what_needs_a_closer_look_is_always_looked_at() {
        let insensitive = PathMatch::Prefix("/A".into(), Case::Insensitive);
        let index = Index::new(&[route(insensitive), route(PathMatch::Connect)]);
        assert_eq!(index.candidates("/b").collect::<Vec<_>>(), [0, 1]);
    }
}
