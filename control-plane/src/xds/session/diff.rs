//! What a client is owed, computed from what it holds and the newest resources.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Dialect;
use super::subscription::{Subscription, Touched};
use crate::snapshot::{Resource, ResourceSet, ResourceType, Version};

/// The resources of one type as the client shall see them now: the newest, and what is held back
/// from removal.
pub(super) struct Visible<'a> {
    pub(super) kind: ResourceType,
    pub(super) target: &'a ResourceSet,
    pub(super) held: &'a ResourceSet,
}

impl<'a> Visible<'a> {
    fn get(&self, name: &str) -> Option<&'a Arc<Resource>> {
        self.target.get(self.kind, name).or_else(|| self.held.get(self.kind, name))
    }

    fn all(&self) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.target.of_type(self.kind).chain(self.held.of_type(self.kind))
    }
}

/// The content of a response.
pub(super) struct Changes {
    pub(super) resources: Vec<Arc<Resource>>,
    pub(super) removed: Vec<Arc<str>>,
    /// Clusters in it that the client did not have in this version.
    pub(super) changed_clusters: Vec<Arc<str>>,
}

/// LDS and CDS: everything, if anything changed. The others: what changed.
pub(super) fn state_of_the_world(
    subscription: &mut Subscription,
    visible: &Visible<'_>,
) -> Option<Changes> {
    // It looks at everything anyway.
    subscription.touched = Touched::default();
    let wanted = wanted(subscription, visible);
    let is_news =
        |r: &Resource| subscription.owed.contains(&r.name) || !subscription.has(&r.name, r.version);
    let whole = subscription.is_whole();
    let news = wanted.iter().any(|r| is_news(r));
    let vanished = whole && subscription.client.names().any(|name| visible.get(name).is_none());
    if !(news || vanished || subscription.answer_owed) {
        subscription.owed.clear();
        return None;
    }
    let resources: Vec<Arc<Resource>> =
        wanted.into_iter().filter(|r| whole || is_news(r)).cloned().collect();
    if whole {
        subscription.client.retain(|name| visible.get(name).is_some());
    }
    Some(commit(subscription, visible, resources, Vec::new()))
}

/// What the client lacks, and what it holds in vain.
pub(super) fn delta(subscription: &mut Subscription, visible: &Visible<'_>) -> Option<Changes> {
    let (mut resources, mut removed) = (Vec::new(), Vec::new());
    for name in candidates(subscription, visible) {
        let is_owed = subscription.owed.contains(&name);
        match visible.get(&name) {
            Some(resource) => {
                let is_news = is_owed || !subscription.has(&name, resource.version);
                if is_news && subscription.wants(&name) {
                    resources.push(Arc::clone(resource));
                }
            }
            None if is_owed || subscription.holds(&name) => removed.push(name),
            None => {}
        }
    }
    if resources.is_empty() && removed.is_empty() && !subscription.answer_owed {
        return None;
    }
    Some(commit(subscription, visible, resources, removed))
}

/// What may have changed for the client since the last look, by name.
fn candidates(subscription: &mut Subscription, visible: &Visible<'_>) -> BTreeSet<Arc<str>> {
    let mut names = match std::mem::take(&mut subscription.touched) {
        Touched::Names(names) => names,
        Touched::All => {
            let wanted = wanted(subscription, visible).into_iter().map(|one| &one.name);
            wanted.chain(subscription.client.names()).cloned().collect()
        }
    };
    names.extend(subscription.owed.iter().cloned());
    names
}

/// The version of all that the client subscribes, as it is now, once [`state_of_the_world`] or [`delta`] has looked. By
/// delta, a client then holds just that.
pub(super) fn version(
    subscription: &Subscription,
    visible: &Visible<'_>,
    dialect: Dialect,
) -> Version {
    match dialect {
        Dialect::Delta => subscription.client.version(),
        Dialect::StateOfTheWorld => {
            Version::of_all(wanted(subscription, visible).into_iter().map(AsRef::as_ref))
        }
    }
}

fn wanted<'a>(subscription: &Subscription, visible: &Visible<'a>) -> Vec<&'a Arc<Resource>> {
    if subscription.wildcard {
        visible.all().collect()
    } else {
        subscription.names.iter().filter_map(|name| visible.get(name)).collect()
    }
}

/// Notes what the client will hold once it has the response.
fn commit(
    subscription: &mut Subscription,
    visible: &Visible<'_>,
    resources: Vec<Arc<Resource>>,
    removed: Vec<Arc<str>>,
) -> Changes {
    let mut changed_clusters = Vec::new();
    for resource in &resources {
        let name = Arc::clone(&resource.name);
        let before = subscription.client.insert(Arc::clone(&name), Some(resource.version));
        if visible.kind == ResourceType::Cluster && before != Some(Some(resource.version)) {
            changed_clusters.push(name);
        }
    }
    for name in &removed {
        subscription.client.remove(name);
    }
    subscription.owed.clear();
    subscription.answer_owed = false;
    Changes { resources, removed, changed_clusters }
}
