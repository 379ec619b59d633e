//! Property tests: whatever happens in whatever order, a client ends with the subscribed part of
//! the newest set. The client here is a small model of a real one, with messages in flight both
//! ways.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const KINDS: [ResourceType; 4] =
    [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Listener, ResourceType::Route];

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    Wildcard(usize, bool),
    /// A resource gets this body, or vanishes.
    Change(usize, usize, Option<u8>),
    /// The newest set reaches the session.
    Push,
    ServerReads,
    ServerSends,
    ClientReads {
        refuse: bool,
    },
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let (kind, name) = (0..KINDS.len(), 0..NAMES.len());
    prop_oneof![
        2 => (kind.clone(), name.clone()).prop_map(|(k, n)| Step::Subscribe(k, n)),
        1 => (kind.clone(), name.clone()).prop_map(|(k, n)| Step::Unsubscribe(k, n)),
        1 => (kind.clone(), any::<bool>()).prop_map(|(k, on)| Step::Wildcard(k, on)),
        3 => (kind, name, proptest::option::of(0..4u8)).prop_map(|(k, n, b)| Step::Change(k, n, b)),
        3 => Just(Step::Push),
        5 => Just(Step::ServerReads),
        5 => Just(Step::ServerSends),
        5 => any::<u8>().prop_map(|n| Step::ClientReads { refuse: n < 40 }),
        1 => Just(Step::Reconnect),
    ]
}

/// What a client knows of one type.
#[derive(Clone, Debug, Default)]
struct Known {
    wildcard: bool,
    names: BTreeSet<String>,
    held: BTreeMap<String, Version>,
    nonce: String,
    /// The last version that was accepted; survives a stream.
    version: String,
    /// The stream has heard of this type.
    asked: bool,
    /// State of the world: an empty list no longer means all.
    named: bool,
}

impl Known {
    fn wants(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn list(&self) -> Vec<String> {
        let star = (self.wildcard && self.named).then(|| "*".to_owned());
        star.into_iter().chain(self.names.iter().cloned()).collect()
    }
}

enum Request {
    Sotw(SotwRequest),
    Delta(DeltaRequest),
}

struct Rig {
    dialect: Dialect,
    session: Session,
    /// The same, but looks at everything each time.
    thorough: Session,
    streams: u64,
    up: VecDeque<Request>,
    down: VecDeque<Response>,
    client: Vec<Known>,
    resources: BTreeMap<(usize, usize), u8>,
}

impl Rig {
    fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            session: Session::new(dialect, 0),
            thorough: Session::new(dialect, 0),
            streams: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
            client: vec![Known::default(); KINDS.len()],
            resources: BTreeMap::new(),
        }
    }

    fn set(&self, generation: u8) -> ResourceSet {
        self.resources
            .iter()
            .map(|((kind, name), body)| {
                Resource::new(KINDS[*kind], NAMES[*name], vec![*body, generation])
            })
            .collect()
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Subscribe(kind, name) => self.subscribe(*kind, NAMES[*name]),
            Step::Unsubscribe(kind, name) => self.unsubscribe(*kind, NAMES[*name]),
            Step::Wildcard(kind, on) => self.set_wildcard(*kind, *on),
            Step::Change(kind, name, Some(body)) => {
                self.resources.insert((*kind, *name), *body);
            }
            Step::Change(kind, name, None) => {
                self.resources.remove(&(*kind, *name));
            }
            Step::Push => self.push(self.set(0)),
            Step::ServerReads => {
                self.server_reads();
            }
            Step::ServerSends => {
                let next = self.next_response();
                self.down.extend(next);
            }
            Step::ClientReads { refuse } => {
                self.client_reads(*refuse);
            }
            Step::Reconnect => self.reconnect(),
        }
    }

    fn push(&mut self, set: ResourceSet) {
        let set = Arc::new(set);
        self.session.on_set(Arc::clone(&set));
        self.thorough.on_set(set);
    }

    /// Looking at what was touched finds what looking at everything finds.
    fn next_response(&mut self) -> Option<Response> {
        let next = self.session.next_response();
        for subscription in &mut self.thorough.types {
            subscription.touch_all();
        }
        assert_eq!(self.thorough.next_response(), next);
        if let Some(response) = &next {
            let Session { target, held, types, .. } = &self.session;
            let visible = diff::Visible { kind: response.kind, target, held };
            let subscription = &types[response.kind as usize];
            let whole = diff::version(subscription, &visible, Dialect::StateOfTheWorld);
            assert_eq!(response.version, whole);
        }
        next
    }

    fn subscribe(&mut self, kind: usize, name: &str) {
        let known = &mut self.client[kind];
        let fresh = known.names.insert(name.to_owned());
        known.named = true;
        match self.dialect {
            Dialect::StateOfTheWorld if fresh => self.request_sotw(kind),
            Dialect::StateOfTheWorld => {}
            Dialect::Delta => self.request_delta(kind, &[name], &[]),
        }
    }

    fn unsubscribe(&mut self, kind: usize, name: &str) {
        let known = &mut self.client[kind];
        if !known.names.remove(name) {
            return;
        }
        if !known.wildcard {
            known.held.remove(name);
        }
        match self.dialect {
            Dialect::StateOfTheWorld => self.request_sotw(kind),
            Dialect::Delta => self.request_delta(kind, &[], &[name]),
        }
    }

    fn set_wildcard(&mut self, kind: usize, on: bool) {
        let known = &mut self.client[kind];
        let whole = matches!(KINDS[kind], ResourceType::Cluster | ResourceType::Listener);
        if !whole || known.wildcard == on {
            return;
        }
        // An empty list goes on meaning all where no name was ever given: there are no words for less.
        if self.dialect == Dialect::StateOfTheWorld && !on && !known.named {
            return;
        }
        known.wildcard = on;
        let legacy = on && !known.asked && !known.named;
        known.named |= !legacy;
        if !on {
            let names = known.names.clone();
            known.held.retain(|name, _| names.contains(name));
        }
        match (self.dialect, on) {
            (Dialect::StateOfTheWorld, _) => self.request_sotw(kind),
            (Dialect::Delta, true) if legacy => self.request_delta(kind, &[], &[]),
            (Dialect::Delta, true) => self.request_delta(kind, &["*"], &[]),
            (Dialect::Delta, false) => self.request_delta(kind, &[], &["*"]),
        }
    }

    fn request_sotw(&mut self, kind: usize) {
        let known = &mut self.client[kind];
        known.asked = true;
        self.up.push_back(Request::Sotw(SotwRequest {
            type_url: KINDS[kind].type_url().to_owned(),
            version: known.version.clone(),
            names: known.list(),
            nonce: known.nonce.clone(),
            error: None,
        }));
    }

    fn request_delta(&mut self, kind: usize, subscribe: &[&str], unsubscribe: &[&str]) {
        self.client[kind].asked = true;
        let strings = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        self.up.push_back(Request::Delta(DeltaRequest {
            type_url: KINDS[kind].type_url().to_owned(),
            subscribe: strings(subscribe),
            unsubscribe: strings(unsubscribe),
            ..DeltaRequest::default()
        }));
    }

    fn server_reads(&mut self) -> bool {
        match self.up.pop_front() {
            Some(Request::Sotw(request)) => {
                self.session.on_sotw(&request).unwrap();
                self.thorough.on_sotw(&request).unwrap();
            }
            Some(Request::Delta(request)) => {
                self.session.on_delta(&request).unwrap();
                self.thorough.on_delta(&request).unwrap();
            }
            None => return false,
        }
        true
    }

    fn client_reads(&mut self, refuse: bool) -> bool {
        let Some(response) = self.down.pop_front() else { return false };
        // Nobody refuses a response in which there is nothing.
        let refuse = refuse && !response.resources.is_empty();
        let kind = KINDS.iter().position(|kind| *kind == response.kind).unwrap();
        let known = &mut self.client[kind];
        known.nonce.clone_from(&response.nonce);
        if !refuse {
            known.version = response.version.to_string();
            let whole = matches!(response.kind, ResourceType::Cluster | ResourceType::Listener);
            if self.dialect == Dialect::StateOfTheWorld && whole {
                known.held.clear();
            }
            for name in &response.removed {
                known.held.remove(&**name);
            }
            for resource in &response.resources {
                if known.wants(&resource.name) {
                    known.held.insert(resource.name.to_string(), resource.version);
                }
            }
        }
        let error = refuse.then(|| "refused".to_owned());
        let (type_url, nonce) = (response.kind.type_url().to_owned(), response.nonce);
        self.up.push_back(match self.dialect {
            Dialect::StateOfTheWorld => {
                let (names, version) = (known.list(), known.version.clone());
                Request::Sotw(SotwRequest { type_url, version, names, nonce, error })
            }
            Dialect::Delta => {
                Request::Delta(DeltaRequest { type_url, nonce, error, ..DeltaRequest::default() })
            }
        });
        true
    }

    fn reconnect(&mut self) {
        self.up.clear();
        self.down.clear();
        self.streams += 1;
        self.session = Session::new(self.dialect, self.streams);
        self.thorough = Session::new(self.dialect, self.streams);
        self.push(self.set(0));
        for (kind, resource_type) in KINDS.into_iter().enumerate() {
            let known = &mut self.client[kind];
            known.nonce.clear();
            known.named = !known.names.is_empty();
            known.asked = false;
            if !known.wildcard && known.names.is_empty() {
                known.held.clear();
                continue;
            }
            if self.dialect == Dialect::StateOfTheWorld {
                self.request_sotw(kind);
                continue;
            }
            known.asked = true;
            self.up.push_back(Request::Delta(DeltaRequest {
                type_url: resource_type.type_url().to_owned(),
                subscribe: known.list(),
                initial_versions: known
                    .held
                    .iter()
                    .map(|(name, version)| (name.clone(), version.to_string()))
                    .collect(),
                ..DeltaRequest::default()
            }));
        }
    }

    /// Lets everything in flight arrive, all of it accepted.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut moved = self.server_reads();
            if let Some(response) = self.next_response() {
                self.down.push_back(response);
                moved = true;
            }
            moved |= self.client_reads(false);
            if moved {
                continue;
            }
            if !self.session.is_withholding() {
                return;
            }
            self.session.stop_waiting();
            self.thorough.stop_waiting();
        }
        panic!("the stream does not come to rest");
    }

    fn check(&self, set: &ResourceSet) {
        for (kind, known) in KINDS.iter().zip(&self.client) {
            let wanted: BTreeMap<String, Version> = set
                .of_type(*kind)
                .filter(|r| known.wants(&r.name))
                .map(|r| (r.name.to_string(), r.version))
                .collect();
            // In state of the world, absence does not delete routes and endpoints.
            let lingers = self.dialect == Dialect::StateOfTheWorld
                && matches!(kind, ResourceType::Endpoint | ResourceType::Route);
            let held: BTreeMap<String, Version> = known
                .held
                .iter()
                .filter(|(name, _)| !lingers || wanted.contains_key(*name))
                .map(|(name, version)| (name.clone(), *version))
                .collect();
            assert_eq!(held, wanted, "{kind:?}");
        }
    }
}

fn converges(dialect: Dialect, steps: &[Step], refusals: bool) {
    let mut rig = Rig::new(dialect);
    for step in steps {
        match step {
            Step::ClientReads { .. } if !refusals => {
                rig.apply(&Step::ClientReads { refuse: false });
            }
            step => rig.apply(step),
        }
    }
    let mut newest = rig.set(0);
    if refusals {
        // What was refused is not sent again until it changes: change everything.
        rig.settle();
        newest = rig.set(1);
    }
    rig.push(newest.clone());
    rig.settle();
    rig.check(&newest);
    assert_eq!(rig.next_response(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn delta_converges(steps in proptest::collection::vec(step(), 0..120)) {
        converges(Dialect::Delta, &steps, false);
    }

    #[test]
    fn delta_converges_after_refusals(steps in proptest::collection::vec(step(), 0..120)) {
        converges(Dialect::Delta, &steps, true);
    }

    #[test]
    fn state_of_the_world_converges(steps in proptest::collection::vec(step(), 0..120)) {
        converges(Dialect::StateOfTheWorld, &steps, false);
    }

    #[test]
    fn state_of_the_world_converges_after_refusals(
        steps in proptest::collection::vec(step(), 0..120)
    ) {
        converges(Dialect::StateOfTheWorld, &steps, true);
    }
}
