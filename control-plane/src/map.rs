//! Ordered maps whose copies share what they have in common: [imbl]'s.
//!
//! What the control plane knows is large and changes in small steps. A copy of a [`Map`] costs nothing, a change in a
//! copy costs the way to one entry, and of two maps that came from one another only what differs is looked at
//! ([`changes`], `==`): so a step from one state of the world to the next can be a pure function of both, and cost as
//! much as the change.

use std::collections::BTreeMap;

pub use imbl::OrdMap as Map;
use imbl::ordmap::DiffItem;

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

/// What differs in `newer`, by key. What both share is not looked at.
pub fn changes<'a, K: Ord, V: PartialEq>(
    older: &'a Map<K, V>,
    newer: &'a Map<K, V>,
) -> impl Iterator<Item = Change<'a, K, V>> {
    older.diff(newer).map(|item| match item {
        DiffItem::Add(key, after) => Change { key, before: None, after: Some(after) },
        DiffItem::Update { old: (_, before), new: (key, after) } => {
            Change { key, before: Some(before), after: Some(after) }
        }
        DiffItem::Remove(key, before) => Change { key, before: Some(before), after: None },
    })
}

/// A map of these entries that shares with `before` what is the same.
#[must_use]
pub fn updated<K: Ord + Clone, V: Clone + PartialEq>(
    before: &Map<K, V>,
    entries: BTreeMap<K, V>,
) -> Map<K, V> {
    let mut updated = before.clone();
    for key in before.keys().filter(|key| !entries.contains_key(*key)) {
        updated.remove(key);
    }
    for (key, value) in entries {
        if before.get(&key) != Some(&value) {
            updated.insert(key, value);
        }
    }
    updated
}

/// Puts what `change` makes of some values in their place.
pub fn change_values<K: Ord + Clone, V: Clone>(
    map: &mut Map<K, V>,
    mut change: impl FnMut(&V) -> Option<V>,
) {
    let changed: Vec<(K, V)> =
        map.iter().filter_map(|(key, value)| Some((key.clone(), change(value)?))).collect();
    map.extend(changed);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_update_is_what_it_is_of_and_changes_lead_there(
            before in proptest::collection::btree_map(0_u16..90, 0_u8..4, 0..90),
            after in proptest::collection::btree_map(0_u16..90, 0_u8..4, 0..90),
        ) {
            let older: Map<u16, u8> = before.clone().into();
            let newer = updated(&older, after.clone());
            let found: BTreeMap<u16, u8> = newer.iter().map(|(key, value)| (*key, *value)).collect();
            prop_assert_eq!(&found, &after);
            let mut led = before.clone();
            for change in changes(&older, &newer) {
                prop_assert_eq!(change.before, before.get(change.key));
                prop_assert_eq!(change.after, after.get(change.key));
                prop_assert_ne!(change.before, change.after);
                match change.after {
                    Some(value) => drop(led.insert(*change.key, *value)),
                    None => drop(led.remove(change.key)),
                }
            }
            prop_assert_eq!(led, after);
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
        let before: Map<u32, Alone> = (0..1000_u32).map(|key| (key, Alone(key > 100))).collect();
        let mut after = before.clone();
        after.insert(3, Alone(false));
        assert_eq!(changes(&before, &after).filter(|one| *one.key == 3).count(), 1);
    }

    #[test]
    fn some_values_are_changed() {
        let mut map: Map<u8, u8> = (0..5).map(|key| (key, key)).collect();
        change_values(&mut map, |value| (*value > 2).then_some(9));
        assert_eq!(map.values().copied().collect::<Vec<_>>(), [0, 1, 2, 9, 9]);
    }
}
