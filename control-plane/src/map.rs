//! An ordered map whose copies share what they have in common.
//!
//! What the control plane knows is large and changes in small steps. A copy of a [`Map`] costs nothing, a change in a
//! copy costs one run of entries, and of two maps that came from one another only what differs is looked at
//! ([`Map::diff`], `==`): so a step from one state of the world to the next can be a pure function of both, and cost as
//! much as the change.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;
use std::slice;
use std::sync::Arc;

/// Most entries of a run.
const FULL: usize = 128;

type Run<K, V> = Arc<Vec<(K, V)>>;

/// An ordered map, cheap to copy.
pub struct Map<K, V> {
    /// In order; none is empty.
    runs: Arc<Vec<Run<K, V>>>,
    len: usize,
}

/// What differs at one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// Its value in the older map.
    pub before: Option<&'a V>,
    /// Its value in the newer map.
    pub after: Option<&'a V>,
}

impl<K, V> Map<K, V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> Self {
        Self { runs: Arc::default(), len: 0 }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, by key.
    #[must_use]
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter { runs: self.runs.iter(), run: [].iter() }
    }

    /// All keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    /// All values, by key.
    pub fn values(&self) -> impl Iterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> Map<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The value of a key, with the key that is in the map.
    #[must_use]
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let (run, at) = self.find(key).ok()?;
        let (key, value) = &self.runs[run][at];
        Some((key, value))
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(key).is_ok()
    }

    /// All entries from a key on.
    pub fn since<Q: Ord + ?Sized>(&self, key: &Q) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let (Ok((run, at)) | Err((run, at))) = self.find(key);
        let rest = self.runs.get(run).map_or(&[][..], |run| &run[at..]);
        Iter { runs: self.runs.get(run + 1..).unwrap_or_default().iter(), run: rest.iter() }
    }

    /// What differs in `newer`, by key. Runs that both share are not looked at.
    pub fn diff<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = Change<'a, K, V>>
    where
        V: PartialEq,
    {
        let mut older = Cursor { runs: &self.runs, at: 0 };
        let mut newer = Cursor { runs: &newer.runs, at: 0 };
        std::iter::from_fn(move || {
            loop {
                older.skip_shared(&mut newer);
                let order = match (older.peek(), newer.peek()) {
                    (None, None) => return None,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some((left, _)), Some((right, _))) => left.cmp(right),
                };
                let before = if order == Ordering::Greater { None } else { older.next() };
                let after = if order == Ordering::Less { None } else { newer.next() };
                let (key, _) = before.or(after)?;
                let (before, after) =
                    (before.map(|(_, value)| value), after.map(|(_, value)| value));
                if before != after {
                    return Some(Change { key, before, after });
                }
            }
        })
    }

    /// Where a key is, or where it would have to be put.
    fn find<Q: Ord + ?Sized>(&self, key: &Q) -> Result<(usize, usize), (usize, usize)>
    where
        K: Borrow<Q>,
    {
        let after = self.runs.partition_point(|run| run[0].0.borrow() <= key);
        let run = after.saturating_sub(1);
        let Some(entries) = self.runs.get(run) else { return Err((0, 0)) };
        match entries.binary_search_by(|(known, _)| known.borrow().cmp(key)) {
            Ok(at) => Ok((run, at)),
            Err(at) => Err((run, at)),
        }
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// Puts in a value, in place of an older one, which is given back.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let found = self.find(&key);
        let runs = Arc::make_mut(&mut self.runs);
        match found {
            Ok((run, at)) => {
                let entries = Arc::make_mut(&mut runs[run]);
                Some(std::mem::replace(&mut entries[at].1, value))
            }
            Err((run, at)) => {
                self.len += 1;
                let Some(entries) = runs.get_mut(run) else {
                    runs.push(Arc::new(vec![(key, value)]));
                    return None;
                };
                let entries = Arc::make_mut(entries);
                entries.insert(at, (key, value));
                if entries.len() > FULL {
                    let rest = entries.split_off(FULL / 2);
                    runs.insert(run + 1, Arc::new(rest));
                }
                None
            }
        }
    }

    /// Takes out a key and gives back its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (run, at) = self.find(key).ok()?;
        let runs = Arc::make_mut(&mut self.runs);
        let (_, value) = Arc::make_mut(&mut runs[run]).remove(at);
        self.len -= 1;
        if runs[run].is_empty() {
            runs.remove(run);
        }
        Some(value)
    }

    /// A map of these entries that shares with this one what is the same.
    #[must_use]
    pub fn updated(&self, entries: BTreeMap<K, V>) -> Self
    where
        V: PartialEq,
    {
        let mut updated = self.clone();
        for key in self.keys().filter(|key| !entries.contains_key(*key)) {
            updated.remove(key);
        }
        for (key, value) in entries {
            if self.get(&key) != Some(&value) {
                updated.insert(key, value);
            }
        }
        updated
    }

    /// All values, by key, to be changed. All that is shared is copied.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        let runs = Arc::make_mut(&mut self.runs).iter_mut();
        runs.flat_map(|run| Arc::make_mut(run).iter_mut().map(|(_, value)| value))
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self { runs: Arc::clone(&self.runs), len: self.len }
    }
}

impl<K: Ord, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.runs, &other.runs)
            || self.len == other.len && self.diff(other).next().is_none()
    }
}

impl<K: Ord, V: Eq> Eq for Map<K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// Of two entries with one key, the last.
impl<K: Ord, V> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        entries.into_iter().collect::<BTreeMap<K, V>>().into()
    }
}

impl<K: Ord, V> From<BTreeMap<K, V>> for Map<K, V> {
    fn from(entries: BTreeMap<K, V>) -> Self {
        let len = entries.len();
        let mut entries = entries.into_iter();
        let mut runs = Vec::with_capacity(len.div_ceil(FULL / 2));
        loop {
            // Room for what comes later.
            let run: Vec<(K, V)> = entries.by_ref().take(FULL / 2).collect();
            if run.is_empty() {
                return Self { runs: Arc::new(runs), len };
            }
            runs.push(Arc::new(run));
        }
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for Map<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Borrow<Q>, Q: Ord + ?Sized, V> Index<&Q> for Map<K, V> {
    type Output = V;

    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("it is asked for a key that is there")
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Entries by key.
#[derive(Debug)]
pub struct Iter<'a, K, V> {
    runs: slice::Iter<'a, Run<K, V>>,
    run: slice::Iter<'a, (K, V)>,
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Self { runs: self.runs.clone(), run: self.run.clone() }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.run.next() {
                return Some((key, value));
            }
            self.run = self.runs.next()?.iter();
        }
    }
}

/// A place in a map.
struct Cursor<'a, K, V> {
    runs: &'a [Run<K, V>],
    /// In the first of the runs.
    at: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn peek(&self) -> Option<&'a (K, V)> {
        self.runs.first().map(|run| &run[self.at])
    }

    fn next(&mut self) -> Option<&'a (K, V)> {
        let (run, rest) = self.runs.split_first()?;
        let found = &run[self.at];
        self.at += 1;
        if self.at == run.len() {
            (self.runs, self.at) = (rest, 0);
        }
        Some(found)
    }

    /// Goes past the runs that are the same in both from here.
    fn skip_shared(&mut self, other: &mut Self) {
        while self.at == 0
            && other.at == 0
            && let (Some((left, rest)), Some((right, others))) =
                (self.runs.split_first(), other.runs.split_first())
            && Arc::ptr_eq(left, right)
        {
            (self.runs, other.runs) = (rest, others);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Entries = BTreeMap<u16, u8>;

    fn entries(map: &Map<u16, u8>) -> Entries {
        map.iter().map(|(key, value)| (*key, *value)).collect()
    }

    fn differences(older: &Entries, newer: &Entries) -> Vec<(u16, Option<u8>, Option<u8>)> {
        let keys: std::collections::BTreeSet<&u16> = older.keys().chain(newer.keys()).collect();
        let all =
            keys.into_iter().map(|key| (*key, older.get(key).copied(), newer.get(key).copied()));
        all.filter(|(_, before, after)| before != after).collect()
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_copies_keep_what_they_had(
            first in proptest::collection::btree_map(0_u16..900, 0_u8..4, 0..700),
            steps in proptest::collection::vec((0_u16..900, proptest::option::of(0_u8..4)), 0..400),
        ) {
            let mut expected = first.clone();
            let before: Map<u16, u8> = first.clone().into();
            let mut map = before.clone();
            for (key, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), expected.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), expected.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), expected.get(&key));
            }
            prop_assert_eq!(&entries(&before), &first);
            prop_assert_eq!((entries(&map), map.len()), (expected.clone(), expected.len()));
            prop_assert_eq!(map == before, expected == first);
            prop_assert!(map == expected.iter().map(|(key, value)| (*key, *value)).collect());
            prop_assert!(before.updated(expected.clone()) == map);
            let found = before.diff(&map);
            let found: Vec<_> =
                found.map(|one| (*one.key, one.before.copied(), one.after.copied())).collect();
            prop_assert_eq!(found, differences(&first, &expected));
            for start in [0, 1, 450, 899, 900] {
                prop_assert!(map.since(&start).map(|(key, _)| key).eq(expected.range(start..).map(|(key, _)| key)));
            }
        }
    }

    #[test]
    fn what_is_shared_is_not_compared() {
        /// Compared with itself it complains.
        #[derive(Debug, Clone)]
        struct Alone(bool);
        impl PartialEq for Alone {
            fn eq(&self, _: &Self) -> bool {
                assert!(!self.0, "looked at");
                false
            }
        }
        let before: Map<u32, Alone> = (0..1000).map(|key| (key, Alone(key > 100))).collect();
        let mut after = before.clone();
        after.insert(3, Alone(false));
        assert_eq!(before.diff(&after).filter(|one| *one.key == 3).count(), 1);
    }
}
