//! What a client is owed, computed from what it holds and the newest resources.

use std::sync::Arc;

use super::subscription::Subscription;
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
    let wanted = wanted(subscription, visible);
    let is_news =
        |r: &Resource| subscription.owed.contains(&r.name) || !subscription.has(&r.name, r.version);
    let whole = subscription.is_whole();
    let news = wanted.iter().any(|r| is_news(r));
    let vanished = whole && subscription.client.keys().any(|name| visible.get(name).is_none());
    if !(news || vanished || subscription.answer_owed) {
        subscription.owed.clear();
        return None;
    }
    let resources: Vec<Arc<Resource>> =
        wanted.into_iter().filter(|r| whole || is_news(r)).cloned().collect();
    if whole {
        subscription.client.retain(|name, _| visible.get(name).is_some());
    }
    Some(commit(subscription, visible, resources, Vec::new()))
}

/// What the client lacks, and what it holds in vain.
pub(super) fn delta(subscription: &mut Subscription, visible: &Visible<'_>) -> Option<Changes> {
    let resources: Vec<Arc<Resource>> = wanted(subscription, visible)
        .into_iter()
        .filter(|r| subscription.owed.contains(&r.name) || !subscription.has(&r.name, r.version))
        .cloned()
        .collect();
    let mut removed: Vec<Arc<str>> = subscription
        .client
        .keys()
        .chain(subscription.owed.iter())
        .filter(|name| visible.get(name).is_none())
        .cloned()
        .collect();
    removed.sort_unstable();
    removed.dedup();
    if resources.is_empty() && removed.is_empty() && !subscription.answer_owed {
        return None;
    }
    Some(commit(subscription, visible, resources, removed))
}

/// The version of all that the client subscribes, as it is now.
pub(super) fn version(subscription: &Subscription, visible: &Visible<'_>) -> Version {
    Version::of_all(wanted(subscription, visible).into_iter().map(AsRef::as_ref))
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
