//! The xDS client as a state machine: messages in, messages out, no socket and no clock.
//!
//! It speaks both variants of the protocol, delta (incremental) and state of the world, and keeps
//! these rules (Envoy's "xDS REST and gRPC protocol"):
//!
//! * the first request of a type on a stream carries the names (none: everything of that type) and
//!   what is held already; later ones only say what changed;
//! * each response gets exactly one answer with its nonce: an ACK, or a NACK that names every bad
//!   resource and why. Good resources of the same response are applied all the same, and a bad
//!   one leaves its last good value in force;
//! * absence deletes clusters and listeners only, and only in a full answer;
//! * after a lost stream everything held stays in force, and is announced on the next one;
//! * a resource with a time to live goes when that ends; a heartbeat prolongs it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::kind::Kind;
use crate::model::Name;

mod message;

pub use message::{Accepted, Ask, Due, Judged, Offer, Received, Request, Response, Variant};

/// The state machine. One lives as long as the subscription, over all its streams.
#[derive(Debug)]
pub struct Session {
    variant: Variant,
    connected: bool,
    said_hello: bool,
    types: [TypeState; Kind::ALL.len()],
}

#[derive(Debug, Default)]
struct TypeState {
    wanted: Wanted,
    /// A request of this type went out on this stream.
    asked: bool,
    /// Last nonce of this stream.
    nonce: String,
    /// Version of the last response that was accepted as a whole.
    version: String,
    held: BTreeMap<Name, Held>,
    /// When those that are held with a time to live are gone.
    expiries: BTreeMap<Name, Instant>,
    /// Names (or everything: the empty name) that have not been answered, until when.
    waiting: BTreeMap<Name, Instant>,
}

#[derive(Debug, Default)]
enum Wanted {
    #[default]
    Nothing,
    Everything,
    Names(BTreeMap<Name, Duration>),
}

impl Wanted {
    fn wants(&self, name: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Names(names) => names.contains_key(name),
        }
    }
}

#[derive(Debug)]
struct Held {
    version: String,
}

impl Session {
    /// A session that holds and wants nothing.
    pub fn new(variant: Variant) -> Self {
        Self { variant, connected: false, said_hello: false, types: Default::default() }
    }

    /// Wants everything of a kind (clusters, listeners). `timeout` is its `initial_fetch_timeout`;
    /// zero: none. To be called before the first stream.
    pub fn want_everything(&mut self, kind: Kind, timeout: Duration, now: Instant) {
        let state = self.of(kind);
        state.wanted = Wanted::Everything;
        state.wait_for("".into(), timeout, now);
    }

    /// Holds a resource from an earlier life (the last good configuration on disk).
    pub fn restore(&mut self, kind: Kind, name: Name, version: String) {
        self.of(kind).held.insert(name, Held { version });
    }

    /// A stream stands: what is to be sent first.
    pub fn connected(&mut self, now: Instant) -> Vec<Request> {
        self.connected = true;
        self.said_hello = false;
        let mut requests = Vec::new();
        for kind in Kind::ALL {
            let state = self.of(kind);
            state.asked = false;
            state.nonce.clear();
            if let Wanted::Names(names) = &state.wanted {
                let missing: Vec<_> = names
                    .iter()
                    .filter(|(name, _)| !state.held.contains_key(*name))
                    .map(|(name, timeout)| (name.clone(), *timeout))
                    .collect();
                // Whoever waits goes on waiting: a server that comes and goes does not set the clock back.
                for (name, timeout) in missing {
                    if !state.waiting.contains_key(&name) {
                        state.wait_for(name, timeout, now);
                    }
                }
            }
            match &self.types[kind.index()].wanted {
                Wanted::Nothing => continue,
                Wanted::Names(names) if names.is_empty() => continue,
                _ => requests.push(self.open(kind)),
            }
        }
        requests
    }

    /// The stream is gone. Everything held stays in force.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// Changes which names of a kind are wanted; each new one with its `initial_fetch_timeout`
    /// (zero: none). The result, if any, is to be sent. A name that is not wanted any more is
    /// forgotten at once.
    pub fn subscribe(
        &mut self,
        kind: Kind,
        add: Vec<(Name, Duration)>,
        remove: &[Name],
        now: Instant,
    ) -> Option<Request> {
        let state = self.of(kind);
        if matches!(state.wanted, Wanted::Everything) {
            return None;
        }
        if !matches!(state.wanted, Wanted::Names(_)) {
            state.wanted = Wanted::Names(BTreeMap::new());
        }
        let mut gone = Vec::new();
        let mut fresh = Vec::new();
        if let Wanted::Names(names) = &mut state.wanted {
            for name in remove {
                if names.remove(name).is_some() {
                    state.held.remove(name);
                    state.expiries.remove(name);
                    state.waiting.remove(name);
                    gone.push(name.clone());
                }
            }
            for (name, timeout) in add {
                if names.insert(name.clone(), timeout).is_none() {
                    fresh.push((name, timeout));
                }
            }
        }
        for (name, timeout) in &fresh {
            if !state.held.contains_key(name) {
                state.wait_for(name.clone(), *timeout, now);
            }
        }
        if !self.connected || (fresh.is_empty() && gone.is_empty()) {
            return None;
        }
        if !self.types[kind.index()].asked {
            // Nothing was asked for on this stream yet, so there is nothing to take back.
            return (!self.wants_nothing(kind)).then(|| self.open(kind));
        }
        let fresh = fresh.into_iter().map(|(name, _)| name).collect();
        Some(self.change(kind, fresh, gone))
    }

    /// Takes a response in. `judge` compiles the bytes of one resource.
    pub fn receive<R>(
        &mut self,
        response: Response,
        now: Instant,
        judge: impl FnMut(Kind, &Bytes) -> Judged<R>,
    ) -> Received<R> {
        let mut received = Received {
            kind: None,
            accepted: Vec::new(),
            removed: Vec::new(),
            absent: Vec::new(),
            refused: Vec::new(),
            version: response.version.clone(),
            reply: None,
        };
        // A type we do not know, or did not ask for on this stream: let it pass.
        let Some(kind) = Kind::of(&response.type_url) else { return received };
        if !self.types[kind.index()].asked {
            return received;
        }
        received.kind = Some(kind);
        let sorted = self.of(kind).sort(kind, &response, now, judge);
        let state = &mut self.types[kind.index()];
        state.waiting.remove("");
        match self.variant {
            Variant::World => state.drop_absent(kind, &sorted, &mut received),
            Variant::Delta => state.drop_removed(kind, &response, &sorted, &mut received),
        }
        for (accepted, ttl) in sorted.good {
            let held = Held { version: accepted.version.clone() };
            state.held.insert(accepted.name.clone(), held);
            state.expire(&accepted.name, ttl.map(|ttl| now + ttl));
            state.waiting.remove(&accepted.name);
            received.accepted.push(accepted);
        }
        received.refused = sorted.bad;
        state.nonce = response.nonce;
        let error = complaint(&received.refused);
        if error.is_none() {
            state.version = response.version;
        }
        received.reply = Some(self.answer(kind, error));
        received
    }

    /// What time brought about until `now`.
    pub fn due(&mut self, now: Instant) -> Due {
        let mut due = Due::default();
        for kind in Kind::ALL {
            let state = self.of(kind);
            let expired = state.expiries.extract_if(.., |_, at| *at <= now);
            for name in expired.map(|(name, _)| name).collect::<Vec<_>>() {
                state.held.remove(&name);
                due.expired.push((kind, name));
            }
            let missing: Vec<Name> = state
                .waiting
                .iter()
                .filter(|(_, at)| **at <= now)
                .map(|(name, _)| name.clone())
                .collect();
            for name in missing {
                state.waiting.remove(&name);
                if name.is_empty() {
                    due.silent.push(kind);
                } else {
                    due.missing.push((kind, name));
                }
            }
        }
        due
    }

    /// When [`Session::due`] has something to say next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let states = self.types.iter();
        states
            .flat_map(|state| state.expiries.values().chain(state.waiting.values()))
            .min()
            .copied()
    }

    /// Names and versions that are held of a kind.
    pub fn held(&self, kind: Kind) -> impl Iterator<Item = (&Name, &str)> {
        self.types[kind.index()].held.iter().map(|(name, held)| (name, held.version.as_str()))
    }

    /// Last accepted version of a kind (state of the world).
    pub fn version(&self, kind: Kind) -> &str {
        &self.types[kind.index()].version
    }

    fn of(&mut self, kind: Kind) -> &mut TypeState {
        &mut self.types[kind.index()]
    }

    fn wants_nothing(&self, kind: Kind) -> bool {
        match &self.types[kind.index()].wanted {
            Wanted::Nothing => true,
            Wanted::Everything => false,
            Wanted::Names(names) => names.is_empty(),
        }
    }

    /// The first request of a type on a stream.
    fn open(&mut self, kind: Kind) -> Request {
        let first = !std::mem::replace(&mut self.said_hello, true);
        let variant = self.variant;
        let state = self.of(kind);
        state.asked = true;
        let names = state.names();
        let ask = match variant {
            Variant::World => Ask::World { version: state.version.clone(), names },
            Variant::Delta => {
                let held = state.held.iter();
                let initial =
                    held.map(|(name, held)| (name.clone(), held.version.clone())).collect();
                Ask::Delta { subscribe: names, unsubscribe: Vec::new(), initial }
            }
        };
        Request { kind, first, nonce: String::new(), error: None, ask }
    }

    /// A later request that changes the names.
    fn change(&self, kind: Kind, subscribe: Vec<Name>, unsubscribe: Vec<Name>) -> Request {
        let state = &self.types[kind.index()];
        let (nonce, ask) = match self.variant {
            Variant::World => (
                state.nonce.clone(),
                Ask::World { version: state.version.clone(), names: state.names() },
            ),
            Variant::Delta => {
                (String::new(), Ask::Delta { subscribe, unsubscribe, initial: BTreeMap::new() })
            }
        };
        Request { kind, first: false, nonce, error: None, ask }
    }

    fn answer(&self, kind: Kind, error: Option<String>) -> Request {
        let state = &self.types[kind.index()];
        let ask = match self.variant {
            Variant::World => Ask::World { version: state.version.clone(), names: state.names() },
            Variant::Delta => Ask::Delta {
                subscribe: Vec::new(),
                unsubscribe: Vec::new(),
                initial: BTreeMap::new(),
            },
        };
        Request { kind, first: false, nonce: state.nonce.clone(), error, ask }
    }
}

/// Resources of a response, told apart.
struct Sorted<R> {
    good: Vec<(Accepted<R>, Option<Duration>)>,
    bad: Vec<(String, Vec<String>)>,
    /// Every name that the response mentions as present.
    present: BTreeSet<String>,
    /// A resource could not even be read: what is absent cannot be known.
    opaque: bool,
}

impl TypeState {
    fn names(&self) -> Vec<Name> {
        match &self.wanted {
            Wanted::Names(names) => names.keys().cloned().collect(),
            Wanted::Nothing | Wanted::Everything => Vec::new(),
        }
    }

    fn wait_for(&mut self, name: Name, timeout: Duration, now: Instant) {
        if !timeout.is_zero() {
            self.waiting.insert(name, now + timeout);
        }
    }

    fn sort<R>(
        &mut self,
        kind: Kind,
        response: &Response,
        now: Instant,
        mut judge: impl FnMut(Kind, &Bytes) -> Judged<R>,
    ) -> Sorted<R> {
        let mut sorted =
            Sorted { good: Vec::new(), bad: Vec::new(), present: BTreeSet::new(), opaque: false };
        for offer in &response.resources {
            let Some(body) = &offer.body else {
                self.heartbeat(offer, now);
                sorted.present.insert(offer.name.clone());
                continue;
            };
            let (name, result) = read(kind, offer, body, &mut judge);
            let Some(name) = name else {
                sorted.opaque = true;
                let reasons = result.err().unwrap_or_else(|| vec!["has no name".into()]);
                sorted.bad.push((String::new(), reasons));
                continue;
            };
            if !self.wanted.wants(&name) {
                continue;
            }
            if !sorted.present.insert(name.clone()) {
                sorted.good.retain(|(accepted, _)| *accepted.name != *name);
                if !sorted.bad.iter().any(|(bad, _)| *bad == name) {
                    sorted.bad.push((name, vec!["is in the response twice".into()]));
                }
                continue;
            }
            match result {
                Err(reasons) => sorted.bad.push((name, reasons)),
                Ok(resource) => {
                    let version =
                        if offer.version.is_empty() { &response.version } else { &offer.version };
                    let name = name.into();
                    let (version, body) = (version.clone(), body.clone());
                    sorted.good.push((Accepted { name, version, body, resource }, offer.ttl));
                }
            }
        }
        sorted
    }

    fn heartbeat(&mut self, offer: &Offer, now: Instant) {
        if let Some((name, _)) = self.held.get_key_value(offer.name.as_str()) {
            let name = Name::clone(name);
            self.expire(&name, offer.ttl.map(|ttl| now + ttl));
        }
    }

    fn expire(&mut self, name: &Name, at: Option<Instant>) {
        match at {
            Some(at) => drop(self.expiries.insert(Name::clone(name), at)),
            None => drop(self.expiries.remove(name)),
        }
    }

    fn drop_absent<R>(&mut self, kind: Kind, sorted: &Sorted<R>, received: &mut Received<R>) {
        if !kind.absence_deletes() || sorted.opaque {
            return;
        }
        self.held.retain(|name, _| {
            let stays = sorted.present.contains(&**name);
            if !stays {
                self.expiries.remove(name);
                received.removed.push(name.clone());
            }
            stays
        });
    }

    fn drop_removed<R>(
        &mut self,
        kind: Kind,
        response: &Response,
        sorted: &Sorted<R>,
        received: &mut Received<R>,
    ) {
        for name in &response.removed {
            if sorted.present.contains(name) || !self.wanted.wants(name) {
                continue;
            }
            if !kind.absence_deletes() {
                self.waiting.remove(name.as_str());
                received.absent.push(name.as_str().into());
            }
            if kind.removal_deletes()
                && let Some((name, _)) = self.held.remove_entry(name.as_str())
            {
                self.expiries.remove(&name);
                received.removed.push(name);
            }
        }
    }
}

/// Name of an offered resource, and what it compiled to. No name: it could not be read.
fn read<R>(
    kind: Kind,
    offer: &Offer,
    body: &Bytes,
    judge: &mut impl FnMut(Kind, &Bytes) -> Judged<R>,
) -> (Option<String>, Result<R, Vec<String>>) {
    let wrapper = (!offer.name.is_empty()).then(|| offer.name.clone());
    if offer.type_url != kind.type_url() {
        let why = format!("has type {}, expected {}", offer.type_url, kind.type_url());
        return (wrapper, Err(vec![why]));
    }
    let judged = judge(kind, body);
    match (wrapper, judged.name) {
        (Some(outer), Some(inner)) if outer != inner => {
            let why = format!("calls itself {inner:?}, another name than its wrapper's");
            (Some(outer), Err(vec![why]))
        }
        (Some(name), _) | (None, Some(name)) => (Some(name), judged.result),
        (None, None) => (None, judged.result),
    }
}

/// Text of a NACK: a line for each reason. None: nothing was refused.
fn complaint(refused: &[(String, Vec<String>)]) -> Option<String> {
    let lines = refused.iter().flat_map(|(name, reasons)| {
        let name = if name.is_empty() { "(unreadable)" } else { name };
        reasons.iter().map(move |reason| format!("{name}: {reason}"))
    });
    let lines: Vec<_> = lines.collect();
    (!refused.is_empty()).then(|| lines.join("\n"))
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
