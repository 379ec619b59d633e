//! A server that does everything a server may do, in any order.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// What a server holds, and what it believes of one stream.
#[derive(Default)]
struct Server {
    resources: BTreeMap<(Kind, String), (String, u64)>,
    clock: u64,
    nonces: u64,
    wants: BTreeMap<Kind, BTreeSet<String>>,
    /// Delta: what the client is thought to hold. World: what was sent last.
    sent: BTreeMap<(Kind, String), u64>,
    asked: BTreeSet<Kind>,
    dirty: BTreeSet<Kind>,
}

impl Server {
    fn set(&mut self, kind: Kind, name: &str, value: &str) {
        self.clock += 1;
        self.resources.insert((kind, name.into()), (value.into(), self.clock));
        self.dirty.insert(kind);
    }

    fn remove(&mut self, kind: Kind, name: &str) {
        self.resources.remove(&(kind, name.into()));
        self.dirty.insert(kind);
    }

    fn new_stream(&mut self) {
        self.wants.clear();
        self.sent.clear();
        self.asked.clear();
        self.dirty.clear();
    }

    fn take(&mut self, request: Request) {
        let kind = request.kind;
        let first = self.asked.insert(kind);
        let wants = self.wants.entry(kind).or_default();
        match request.ask {
            Ask::World { names, .. } => {
                let names: BTreeSet<_> = names.iter().map(ToString::to_string).collect();
                if first || names != *wants {
                    *wants = names;
                    self.dirty.insert(kind);
                }
            }
            Ask::Delta { subscribe, unsubscribe, initial } => {
                if first || !subscribe.is_empty() || !unsubscribe.is_empty() {
                    self.dirty.insert(kind);
                }
                for (name, version) in initial {
                    let version = version.parse().expect("a version of this server");
                    self.sent.insert((kind, name.to_string()), version);
                }
                for name in subscribe {
                    if !first {
                        self.sent.remove(&(kind, name.to_string()));
                    }
                    wants.insert(name.to_string());
                }
                for name in unsubscribe {
                    wants.remove(&*name);
                    self.sent.remove(&(kind, name.to_string()));
                }
            }
        }
    }

    fn push(&mut self, variant: Variant) -> Option<Response> {
        let kind = self.dirty.iter().copied().find(|kind| self.asked.contains(kind))?;
        self.dirty.remove(&kind);
        self.nonces += 1;
        let everything = kind == Kind::Cluster;
        let wanted = |name: &String| everything || self.wants[&kind].contains(name);
        let visible: Vec<_> = self
            .resources
            .iter()
            .filter(|((k, name), _)| *k == kind && wanted(name))
            .map(|((_, name), (value, version))| (name.clone(), value.clone(), *version))
            .collect();
        let mut out = response(kind, &self.nonces.to_string(), vec![]);
        for (name, value, version) in &visible {
            let key = (kind, name.clone());
            if variant == Variant::World || self.sent.get(&key) != Some(version) {
                self.sent.insert(key, *version);
                let wrapper = offer(kind, name, value, &version.to_string());
                out.resources.push(wrapper);
            }
        }
        if variant == Variant::Delta {
            let there: BTreeSet<_> = visible.iter().map(|(name, ..)| name.clone()).collect();
            let known: Vec<_> = self.sent.keys().filter(|(k, _)| *k == kind).cloned().collect();
            for key in known.into_iter().filter(|(_, name)| !there.contains(name)) {
                self.sent.remove(&key);
                out.removed.push(key.1);
            }
        }
        Some(out)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(bool, usize, u8, bool),
    Remove(usize),
    Want(usize),
    Unwant(usize),
    ServerReads,
    ServerSends,
    ClientReads,
    Break,
    Double,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0..NAMES.len();
    let step = prop_oneof![
        4 => (any::<bool>(), name.clone(), any::<u8>(), prop::bool::weighted(0.3))
            .prop_map(|(cluster, name, value, bad)| Step::Set(cluster, name, value, bad)),
        1 => name.clone().prop_map(Step::Remove),
        2 => name.clone().prop_map(Step::Want),
        1 => name.prop_map(Step::Unwant),
        4 => Just(Step::ServerReads),
        4 => Just(Step::ServerSends),
        5 => Just(Step::ClientReads),
        1 => Just(Step::Break),
        1 => Just(Step::Double),
    ];
    prop::collection::vec(step, 0..80)
}

struct World {
    variant: Variant,
    now: Instant,
    server: Server,
    session: Session,
    up: VecDeque<Request>,
    down: VecDeque<Response>,
    state: BTreeMap<(Kind, String), String>,
    wanted: BTreeSet<String>,
    /// Every good value that a resource ever had.
    history: BTreeSet<(Kind, String, String)>,
    answers: usize,
    responses: usize,
}

impl World {
    fn new(variant: Variant) -> Self {
        let now = Instant::now();
        let mut session = Session::new(variant);
        session.want_everything(Kind::Cluster, NEVER, now);
        let up = session.connected(now).into();
        Self {
            variant,
            now,
            server: Server::default(),
            session,
            up,
            down: VecDeque::new(),
            state: BTreeMap::new(),
            wanted: BTreeSet::new(),
            history: BTreeSet::new(),
            answers: 0,
            responses: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Set(cluster, name, value, bad) => {
                let kind = if cluster { Kind::Cluster } else { Kind::Endpoints };
                let value = if bad { format!("bad{value}") } else { value.to_string() };
                self.server.set(kind, NAMES[name], &value);
                if !bad {
                    self.history.insert((kind, NAMES[name].into(), value));
                }
            }
            Step::Remove(name) => self.server.remove(Kind::Cluster, NAMES[name]),
            Step::Want(name) => {
                self.wanted.insert(NAMES[name].into());
                self.change(add(&[NAMES[name]]), &[]);
            }
            Step::Unwant(name) => {
                self.wanted.remove(NAMES[name]);
                self.state.remove(&(Kind::Endpoints, NAMES[name].into()));
                self.change(vec![], &names(&[NAMES[name]]));
            }
            Step::ServerReads => {
                if let Some(request) = self.up.pop_front() {
                    self.server.take(request);
                }
            }
            Step::ServerSends => {
                let sent = self.server.push(self.variant);
                self.down.extend(sent);
            }
            Step::ClientReads => {
                if let Some(response) = self.down.pop_front() {
                    self.read(response);
                }
            }
            Step::Break => {
                self.session.disconnected();
                self.server.new_stream();
                self.down.clear();
                self.up = self.session.connected(self.now).into();
            }
            Step::Double => {
                // A server that breaks the rules: what it says twice is refused, nothing is lost.
                if let Some(response) = self.down.front_mut()
                    && let Some(last) = response.resources.last().cloned()
                {
                    let name = last.name.clone();
                    let kind = Kind::of(&response.type_url).expect("a known type");
                    response.resources.push(last);
                    self.server.clock += 1;
                    let clock = self.server.clock;
                    // It mends that with its next change of the resource.
                    if let Some(resource) = self.server.resources.get_mut(&(kind, name)) {
                        resource.1 = clock;
                    }
                    self.server.dirty.insert(kind);
                }
            }
        }
    }

    fn change(&mut self, add: Vec<(Name, Duration)>, remove: &[Name]) {
        let request = self.session.subscribe(Kind::Endpoints, add, remove, self.now);
        self.up.extend(request);
    }

    fn read(&mut self, response: Response) {
        let received = self.session.receive(response, self.now, judge);
        self.responses += 1;
        let Some(kind) = received.kind else { return };
        for name in received.removed {
            self.state.remove(&(kind, name.to_string()));
        }
        for accepted in received.accepted {
            self.state.insert((kind, accepted.name.to_string()), accepted.resource);
        }
        self.answers += usize::from(received.reply.is_some());
        self.up.extend(received.reply);
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            while !self.up.is_empty() {
                self.step(Step::ServerReads);
            }
            self.step(Step::ServerSends);
            if self.down.is_empty() && self.up.is_empty() {
                return;
            }
            while !self.down.is_empty() {
                self.step(Step::ClientReads);
            }
        }
        panic!("the two never come to rest");
    }

    /// The newest value where it is good; else an older good one, or nothing.
    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.answers, self.responses);
        for kind in [Kind::Cluster, Kind::Endpoints] {
            for name in NAMES {
                let key = (kind, name.to_owned());
                let mine = self.state.get(&key);
                let wanted = kind == Kind::Cluster || self.wanted.contains(name);
                match self.server.resources.get(&key) {
                    _ if !wanted => prop_assert_eq!(mine, None),
                    None => prop_assert_eq!(mine, None),
                    Some((value, _)) if !value.starts_with("bad") => {
                        prop_assert_eq!(mine, Some(value));
                    }
                    Some(_) => {
                        if let Some(mine) = mine {
                            let seen = (kind, name.to_owned(), mine.clone());
                            prop_assert!(self.history.contains(&seen));
                        }
                    }
                }
            }
        }
        let held: BTreeSet<_> = [Kind::Cluster, Kind::Endpoints]
            .into_iter()
            .flat_map(|kind| self.session.held(kind).map(move |(name, _)| (kind, name.to_string())))
            .collect();
        prop_assert_eq!(held, self.state.keys().cloned().collect::<BTreeSet<_>>());
        Ok(())
    }
}

proptest! {
    #[test]
    fn any_interleaving_ends_in_the_newest_accepted_state_delta(steps in steps()) {
        let mut world = World::new(Variant::Delta);
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.check()?;
    }

    #[test]
    fn any_interleaving_ends_in_the_newest_accepted_state_world(steps in steps()) {
        let mut world = World::new(Variant::World);
        for step in steps {
            world.step(step);
        }
        world.settle();
        world.check()?;
    }
}
