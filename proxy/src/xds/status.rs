//! How the conversation with the control plane goes: for `/ready`, `/config_dump` and people.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;

use super::kind::Kind;
use super::last_good::Kept;
use super::session::Received;
use super::translate::Resource;
use crate::model::Name;

/// Shared between the client, which writes, and admin, which reads.
#[derive(Debug, Default)]
pub struct Status(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    expects: BTreeSet<Kind>,
    answered: BTreeSet<Kind>,
    connected: bool,
    trouble: Option<String>,
    subscribed: BTreeMap<Kind, BTreeSet<Name>>,
    refused: BTreeMap<(Kind, String), Vec<String>>,
    warming: Vec<(Kind, Name)>,
    versions: BTreeMap<Kind, String>,
    held: BTreeMap<(Kind, Name), Held>,
}

/// A resource that is in force, as it came.
#[derive(Clone, Debug)]
pub(super) struct Held {
    /// Without the bytes of secrets: they stay with the client.
    pub(super) kept: Arc<Kept>,
    /// When it came.
    pub(super) at: SystemTime,
}

impl Status {
    /// Kinds without whose first answer the proxy is not ready.
    pub fn expect(&self, kinds: impl IntoIterator<Item = Kind>) {
        self.lock().expects.extend(kinds);
    }

    /// What a proxy that has just started still waits for. None: nothing, it is ready.
    pub fn waiting_for(&self) -> Option<String> {
        let inner = self.lock();
        let missing: Vec<&str> =
            inner.expects.difference(&inner.answered).map(|kind| kind.short()).collect();
        if !missing.is_empty() {
            let why = inner.trouble.as_deref().unwrap_or("no answer yet");
            return Some(format!("waiting for {} ({why})", missing.join(", ")));
        }
        let names: Vec<String> =
            inner.warming.iter().map(|(kind, name)| format!("{kind} {name}")).collect();
        (!names.is_empty()).then(|| format!("warming {}", names.join(", ")))
    }

    /// Refused resources with their reasons, and the connection's state.
    pub fn to_json(&self) -> serde_json::Value {
        let inner = self.lock();
        let refused = inner.refused.iter().map(|((kind, name), reasons)| {
            serde_json::json!({"type": kind.short(), "name": name, "reasons": reasons})
        });
        serde_json::json!({
            "connected": inner.connected,
            "last_error": inner.trouble,
            "refused": refused.collect::<Vec<_>>(),
            "warming": inner.warming.iter().map(|(k, n)| format!("{k} {n}")).collect::<Vec<_>>(),
        })
    }

    /// Version of the last answer of this kind of which something was taken. Empty: there was none.
    pub(super) fn version(&self, kind: Kind) -> String {
        self.lock().versions.get(&kind).cloned().unwrap_or_default()
    }

    /// What is in force of this kind, by name.
    pub(super) fn held(&self, kind: Kind) -> Vec<Held> {
        let inner = self.lock();
        let held = inner.held.iter().filter(|((of, _), _)| *of == kind);
        held.map(|(_, held)| held.clone()).collect()
    }

    /// What was refused of this kind, with the reasons.
    pub(super) fn refused(&self, kind: Kind) -> Vec<(String, Vec<String>)> {
        let inner = self.lock();
        let refused = inner.refused.iter().filter(|((of, _), _)| *of == kind);
        refused.map(|((_, name), reasons)| (name.clone(), reasons.clone())).collect()
    }

    /// A resource is in force.
    pub(super) fn hold(&self, kept: &Arc<Kept>, at: SystemTime) {
        let key = (kept.kind, Name::clone(&kept.name));
        let kept = match kept.kind {
            Kind::Secret => Arc::new(Kept { body: Bytes::new(), ..Kept::clone(kept) }),
            _ => Arc::clone(kept),
        };
        self.lock().held.insert(key, Held { kept, at });
    }

    /// It is not any more.
    pub(super) fn forget(&self, kind: Kind, name: &Name) {
        self.lock().held.remove(&(kind, Name::clone(name)));
    }

    pub(super) fn connected(&self, connected: bool, trouble: Option<String>) {
        let mut inner = self.lock();
        inner.connected = connected;
        inner.trouble = trouble;
    }

    pub(super) fn received(&self, kind: Kind, received: &Received<Resource>) {
        let mut inner = self.lock();
        inner.answered.insert(kind);
        if received.refused.is_empty() {
            inner.versions.insert(kind, received.version.clone());
        }
        for accepted in &received.accepted {
            inner.refused.remove(&(kind, accepted.name.to_string()));
        }
        for name in &received.removed {
            inner.refused.remove(&(kind, name.to_string()));
        }
        for (name, reasons) in &received.refused {
            inner.refused.insert((kind, name.clone()), reasons.clone());
        }
    }

    /// All that is refused, where nothing is left out that was refused before.
    pub(super) fn refuse(&self, all: Vec<(Kind, String, Vec<String>)>) {
        let refused = all.into_iter().map(|(kind, name, reasons)| ((kind, name), reasons));
        self.lock().refused = refused.collect();
    }

    pub(super) fn silent(&self, kind: Kind) {
        self.lock().answered.insert(kind);
    }

    pub(super) fn subscribed(&self, kind: Kind) -> BTreeSet<Name> {
        self.lock().subscribed.get(&kind).cloned().unwrap_or_default()
    }

    pub(super) fn subscribe(&self, kind: Kind, names: BTreeSet<Name>) {
        self.lock().subscribed.insert(kind, names);
    }

    pub(super) fn warming(&self, warming: Vec<(Kind, Name)>) {
        self.lock().warming = warming;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
