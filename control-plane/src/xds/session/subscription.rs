//! What a client subscribes of one type, what it holds, and what it said to our responses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::diff::Changes;
use super::{
    DeltaRequest, MAX_NAMES, MAX_OUTSTANDING, Outcome, SessionError, SotwRequest, TypeStatus,
};
use crate::snapshot::{ResourceType, Version};

/// The name that stands for all resources of a type.
const WILDCARD: &str = "*";

/// One type on one stream.
pub(super) struct Subscription {
    kind: ResourceType,
    /// A request of this type was seen.
    pub(super) requested: bool,
    /// All resources are subscribed.
    pub(super) wildcard: bool,
    /// State of the world: a name was given once, so an empty list now means none, not all.
    named: bool,
    pub(super) names: BTreeSet<Arc<str>>,
    /// What the client holds as far as we told it.
    pub(super) client: Holdings,
    /// Delta: what was sent under a wildcard that was given up since. It may still be on its way, and
    /// a client that takes up the wildcard again will keep it.
    given_up: BTreeSet<Arc<str>>,
    /// Names to send although the client may have them.
    pub(super) owed: BTreeSet<Arc<str>>,
    /// An answer is owed even if there is nothing in it.
    pub(super) answer_owed: bool,
    /// Something changed since the last look at what is owed.
    pub(super) dirty: bool,
    /// The names that it may have changed for, of those that the client wants or holds.
    pub(super) touched: Touched,
    outstanding: VecDeque<Outstanding>,
    last_nonce: String,
    /// The version of the last answered response, if it was refused.
    rejected: Option<Version>,
    sent: Option<Version>,
    acked: Option<Version>,
    error: Option<String>,
    nacks: u64,
}

/// The resources that may have to be sent, or to be taken back, since the last look at what is owed.
#[derive(Debug)]
pub(super) enum Touched {
    /// Any of them.
    All,
    /// These.
    Names(BTreeSet<Arc<str>>),
}

impl Default for Touched {
    fn default() -> Self {
        Self::Names(BTreeSet::new())
    }
}

/// What a client holds, by name; without a version where we do not know it.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    by_name: BTreeMap<Arc<str>, Option<Version>>,
    /// Of all whose version is known.
    version: Version,
}

impl Holdings {
    pub(super) fn get(&self, name: &str) -> Option<Option<Version>> {
        self.by_name.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }

    /// The version of all of it together.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// What was held before under this name.
    pub(super) fn insert(
        &mut self,
        name: Arc<str>,
        version: Option<Version>,
    ) -> Option<Option<Version>> {
        if let Some(version) = version {
            self.version = self.version.with(&name, version);
        }
        let before = self.by_name.insert(Arc::clone(&name), version);
        self.forget(&name, before.flatten());
        before
    }

    pub(super) fn remove(&mut self, name: &str) {
        let before = self.by_name.remove(name);
        self.forget(name, before.flatten());
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Arc<str>) -> bool) {
        let gone: Vec<Arc<str>> = self.names().filter(|name| !keep(name)).cloned().collect();
        for name in gone {
            self.remove(&name);
        }
    }

    /// It holds something under this name, at least.
    fn insert_unknown(&mut self, name: Arc<str>) {
        self.by_name.entry(name).or_insert(None);
    }

    fn forget(&mut self, name: &str, version: Option<Version>) {
        if let Some(version) = version {
            self.version = self.version.without(name, version);
        }
    }
}

/// A response that the client has not answered.
struct Outstanding {
    nonce: String,
    version: Version,
    removed: Vec<Arc<str>>,
    is_empty: bool,
}

impl Subscription {
    pub(super) fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            requested: false,
            wildcard: false,
            named: false,
            names: BTreeSet::new(),
            client: Holdings::default(),
            given_up: BTreeSet::new(),
            owed: BTreeSet::new(),
            answer_owed: false,
            dirty: false,
            touched: Touched::default(),
            outstanding: VecDeque::new(),
            last_nonce: String::new(),
            rejected: None,
            sent: None,
            acked: None,
            error: None,
            nacks: 0,
        }
    }

    pub(super) fn on_sotw(&mut self, request: &SotwRequest) -> Result<Outcome, SessionError> {
        let first = !std::mem::replace(&mut self.requested, true);
        let (outcome, newest) = if first || request.nonce.is_empty() {
            (Outcome::Subscribed(self.kind), true)
        } else {
            self.answered(&request.nonce, request.error.as_deref())
        };
        // A client that reconnects may hold what vanished meanwhile: only a whole answer tells.
        self.answer_owed |= first && self.is_whole() && !request.version.is_empty();
        // The answer to a response that was overtaken has no say: the one to the newest repeats
        // the whole list of names.
        if newest {
            self.set_names(&request.names)?;
        }
        Ok(outcome)
    }

    pub(super) fn on_delta(
        &mut self,
        request: &DeltaRequest,
        current: impl Fn(&str) -> Option<Version>,
    ) -> Result<Outcome, SessionError> {
        let first = !std::mem::replace(&mut self.requested, true);
        let outcome = if request.nonce.is_empty() {
            Outcome::Subscribed(self.kind)
        } else {
            self.answered(&request.nonce, request.error.as_deref()).0
        };
        if first {
            self.begin_delta(request);
        }
        let had_wildcard = self.wildcard;
        for name in &request.unsubscribe {
            self.unsubscribe(name);
        }
        for name in &request.subscribe {
            let known = first && current(name).is_some_and(|version| self.has(name, version));
            self.subscribe(name, known);
        }
        self.check_bound()?;
        if first || had_wildcard && !self.wildcard {
            self.forget_unwanted();
        } else {
            self.forget(&request.unsubscribe);
        }
        self.dirty |= first || !request.subscribe.is_empty() || !request.unsubscribe.is_empty();
        Ok(outcome)
    }

    /// There is news of these names.
    pub(super) fn touch<'a>(&mut self, names: impl IntoIterator<Item = &'a Arc<str>>) {
        for name in names {
            self.dirty = true;
            // Another one is looked at when it is asked for.
            if let Touched::Names(touched) = &mut self.touched
                && (self.wildcard || self.names.contains(name) || self.client.get(name).is_some())
            {
                touched.insert(Arc::clone(name));
            }
        }
    }

    /// Everything has to be looked at.
    pub(super) fn touch_all(&mut self) {
        self.touched = Touched::All;
    }

    /// Whether the client wants to hear of `name`.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Whether the client was sent `name` and should still hold it.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.client.get(name).is_some()
    }

    /// Whether the client holds `name` in exactly this version.
    pub(super) fn has(&self, name: &str, version: Version) -> bool {
        self.client.get(name) == Some(Some(version))
    }

    /// `name` must be sent even if nothing in it changed.
    pub(super) fn owe(&mut self, name: &Arc<str>) {
        self.owed.insert(Arc::clone(name));
        self.dirty = true;
    }

    /// Whether anything is subscribed.
    pub(super) fn is_active(&self) -> bool {
        self.wildcard || !self.names.is_empty()
    }

    /// Whether LDS and CDS rules apply: wildcards, and answers that are whole.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.kind, ResourceType::Listener | ResourceType::Cluster)
    }

    pub(super) fn may_respond(&self) -> bool {
        self.requested && self.dirty && self.outstanding.len() < MAX_OUTSTANDING
    }

    /// Whether the client has everything of this type, and accepted it.
    pub(super) fn is_settled(&self) -> bool {
        !self.is_active()
            || !(self.dirty || self.rejected.is_some() || !self.outstanding.is_empty())
    }

    /// Whether the client has answered all responses of this type that matter to it.
    pub(super) fn is_answered(&self) -> bool {
        !self.is_active() || self.outstanding.is_empty()
    }

    /// Whether the client refused the last response that it answered.
    pub(super) fn is_rejected(&self) -> bool {
        self.rejected.is_some()
    }

    /// There is nothing to send at `version`: what was refused in another one is gone.
    pub(super) fn is_current(&mut self, version: Version) {
        self.rejected = self.rejected.filter(|rejected| *rejected == version);
    }

    /// Remembers a response that is sent now.
    pub(super) fn sent(&mut self, nonce: &str, version: Version, changes: &Changes) {
        self.sent = Some(version);
        nonce.clone_into(&mut self.last_nonce);
        self.outstanding.push_back(Outstanding {
            nonce: nonce.to_owned(),
            version,
            removed: changes.removed.clone(),
            is_empty: changes.resources.is_empty() && changes.removed.is_empty(),
        });
    }

    pub(super) fn status(&self) -> TypeStatus {
        TypeStatus {
            kind: self.kind,
            wildcard: self.wildcard,
            names: self.names.len(),
            resources: self.client.by_name.len(),
            sent: self.sent,
            acked: self.acked,
            error: self.error.clone(),
            nacks: self.nacks,
        }
    }

    /// Takes an ACK or NACK; the flag tells whether it answers the newest response. An answer
    /// covers the responses before its own: a client works them off in order, and some answer only
    /// the newest.
    fn answered(&mut self, nonce: &str, error: Option<&str>) -> (Outcome, bool) {
        let Some(position) = self.outstanding.iter().position(|o| o.nonce == nonce) else {
            // Answered before: this one changes the names (its nonce only says "up to date").
            if nonce == self.last_nonce {
                return (Outcome::Subscribed(self.kind), true);
            }
            return (Outcome::Stale(self.kind), false);
        };
        let newest = position + 1 == self.outstanding.len();
        let Some(response) = self.outstanding.drain(..=position).next_back() else {
            return (Outcome::Stale(self.kind), false);
        };
        // In an empty response there is nothing that could be put right later.
        self.rejected = error.filter(|_| !response.is_empty).map(|_| response.version);
        let Some(error) = error else {
            self.acked = Some(response.version);
            self.error = None;
            return (Outcome::Acked(self.kind), newest);
        };
        self.nacks += 1;
        self.error = Some(error.to_owned());
        // It may still hold what it was told to remove: say it again with the next change.
        for name in response.removed {
            if self.wants(&name) {
                self.client.insert_unknown(Arc::clone(&name));
                self.touch([&name]);
            }
        }
        (Outcome::Nacked(self.kind, error.to_owned()), newest)
    }

    fn set_names(&mut self, names: &[String]) -> Result<(), SessionError> {
        let was_wildcard = self.wildcard;
        self.named |= !names.is_empty();
        let star = names.iter().any(|name| name == WILDCARD);
        self.wildcard = self.is_whole() && (star || !self.named);
        let wanted: BTreeSet<Arc<str>> = names
            .iter()
            .filter(|name| !(self.is_whole() && *name == WILDCARD))
            .map(|name| Arc::from(name.as_str()))
            .collect();
        let added: Vec<Arc<str>> = wanted.difference(&self.names).cloned().collect();
        let changed = !added.is_empty() || wanted.len() != self.names.len();
        self.owed.extend(added);
        self.names = wanted;
        self.answer_owed |= self.wildcard && !was_wildcard;
        self.dirty |= changed || self.answer_owed || self.wildcard != was_wildcard;
        self.check_bound()?;
        self.forget_unwanted();
        Ok(())
    }

    /// The first delta request: what the client still holds, and the old form of "all".
    fn begin_delta(&mut self, request: &DeltaRequest) {
        self.client = Holdings::default();
        for (name, version) in &request.initial_versions {
            self.client.insert(Arc::from(name.as_str()), version.parse().ok());
        }
        self.touch_all();
        self.wildcard = self.is_whole() && request.subscribe.is_empty();
        self.answer_owed = self.wildcard;
    }

    fn subscribe(&mut self, name: &str, known: bool) {
        if self.is_whole() && name == WILDCARD {
            self.answer_owed |= !self.wildcard;
            self.wildcard = true;
            for name in std::mem::take(&mut self.given_up) {
                self.client.insert_unknown(name);
            }
            self.touch_all();
            return;
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        if !known {
            self.owed.insert(name);
        }
    }

    fn unsubscribe(&mut self, name: &str) {
        if self.is_whole() && name == WILDCARD {
            self.wildcard = false;
            self.given_up.extend(self.client.names().cloned());
            self.touch_all();
        } else if self.names.remove(name) && self.wildcard {
            self.owed.insert(name.into());
        }
    }

    fn check_bound(&self) -> Result<(), SessionError> {
        if self.names.len() > MAX_NAMES {
            return Err(SessionError::TooManyNames(self.kind.short()));
        }
        Ok(())
    }

    /// A client drops what it unsubscribes, and would be sent it anew.
    fn forget_unwanted(&mut self) {
        if self.wildcard {
            return;
        }
        let names = &self.names;
        self.client.retain(|name| names.contains(name));
        self.owed.retain(|name| names.contains(name));
        self.forget_refusal();
    }

    /// The same, where only these names may be unwanted since.
    fn forget(&mut self, unsubscribed: &[String]) {
        for name in unsubscribed {
            if !self.wants(name) {
                self.client.remove(name);
                self.owed.remove(name.as_str());
            }
        }
        self.forget_refusal();
    }

    /// What was refused does not matter to who wants nothing.
    fn forget_refusal(&mut self) {
        if !self.wildcard && self.names.is_empty() {
            self.rejected = None;
        }
    }
}
