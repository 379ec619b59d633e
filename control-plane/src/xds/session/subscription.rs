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
    /// What the client holds as far as we told it; `None` when we do not know the version.
    pub(super) client: BTreeMap<Arc<str>, Option<Version>>,
    /// Delta: what was sent under a wildcard that was given up since. It may still be on its way, and
    /// a client that takes up the wildcard again will keep it.
    given_up: BTreeSet<Arc<str>>,
    /// Names to send although the client may have them.
    pub(super) owed: BTreeSet<Arc<str>>,
    /// An answer is owed even if there is nothing in it.
    pub(super) answer_owed: bool,
    /// Something changed since the last look at what is owed.
    pub(super) dirty: bool,
    outstanding: VecDeque<Outstanding>,
    last_nonce: String,
    /// The version of the last answered response, if it was refused.
    rejected: Option<Version>,
    sent: Option<Version>,
    acked: Option<Version>,
    error: Option<String>,
    nacks: u64,
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
            client: BTreeMap::new(),
            given_up: BTreeSet::new(),
            owed: BTreeSet::new(),
            answer_owed: false,
            dirty: false,
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
        for name in &request.unsubscribe {
            self.unsubscribe(name);
        }
        for name in &request.subscribe {
            let known = first && current(name).is_some_and(|version| self.has(name, version));
            self.subscribe(name, known);
        }
        self.check_bound()?;
        self.forget_unwanted();
        self.dirty = true;
        Ok(outcome)
    }

    /// Whether the client wants to hear of `name`.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// Whether the client was sent `name` and should still hold it.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.client.contains_key(name)
    }

    /// Whether the client holds `name` in exactly this version.
    pub(super) fn has(&self, name: &str, version: Version) -> bool {
        self.client.get(name) == Some(&Some(version))
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
            resources: self.client.len(),
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
            self.client.entry(name).or_insert(None);
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
        self.client = request
            .initial_versions
            .iter()
            .map(|(name, version)| (Arc::from(name.as_str()), version.parse().ok()))
            .collect();
        self.wildcard = self.is_whole() && request.subscribe.is_empty();
        self.answer_owed = self.wildcard;
    }

    fn subscribe(&mut self, name: &str, known: bool) {
        if self.is_whole() && name == WILDCARD {
            self.answer_owed |= !self.wildcard;
            self.wildcard = true;
            for name in std::mem::take(&mut self.given_up) {
                self.client.entry(name).or_insert(None);
            }
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
            self.given_up.extend(self.client.keys().cloned());
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
        self.client.retain(|name, _| names.contains(name));
        self.owed.retain(|name| names.contains(name));
        if names.is_empty() {
            self.rejected = None;
        }
    }
}
