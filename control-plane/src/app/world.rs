//! From intent and workloads to published worlds: one compile per change, for all streams.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pillion_proxy::xds::kind::Kind;
use pillion_proxy::xds::translate;
use tokio::sync::watch;

use super::registrar::Workloads;
use crate::compile;
use crate::identity::TrustDomain;
use crate::intent::{Intent, Parsed, Problem, Severity};
use crate::snapshot::{Resource, ResourceSet, ResourceType};
use crate::xds::{Node, Published, Validator, World};

/// The newest state of everything, for the administration pages.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) world: Arc<compile::World>,
    pub(crate) problems: Arc<Vec<Problem>>,
    pub(crate) workloads: Workloads,
    pub(crate) compiles: u64,
    pub(crate) compile_time: Duration,
}

/// Follows intent and workloads, compiles, and publishes.
pub(crate) struct Publisher {
    trust_domain: TrustDomain,
    intents: watch::Receiver<Arc<Parsed>>,
    workloads: watch::Receiver<Workloads>,
    state: watch::Sender<State>,
    worlds: watch::Sender<Published>,
}

impl Publisher {
    /// Compiles the first world.
    pub(crate) fn new(
        trust_domain: TrustDomain,
        mut intents: watch::Receiver<Arc<Parsed>>,
        mut workloads: watch::Receiver<Workloads>,
    ) -> Self {
        let started = Instant::now();
        let parsed = Arc::clone(&intents.borrow_and_update());
        let registered = workloads.borrow_and_update().clone();
        let (intent, problem) = in_domain(&parsed.intent, &trust_domain);
        let world = Arc::new(compile::World::new(intent, registered.clone()));
        let state = State {
            problems: problems(&parsed, &world, problem),
            workloads: registered,
            compiles: 1,
            compile_time: started.elapsed(),
            world: Arc::clone(&world),
        };
        Self {
            trust_domain,
            intents,
            workloads,
            state: watch::Sender::new(state),
            worlds: watch::Sender::new(Published::now(Arc::new(Compiled(world)))),
        }
    }

    pub(crate) fn worlds(&self) -> watch::Receiver<Published> {
        self.worlds.subscribe()
    }

    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Publishes a new world for every change, until the sources are gone. Changes that come while
    /// one is compiled are taken together.
    pub(crate) async fn run(mut self) {
        loop {
            let changed = tokio::select! {
                changed = self.intents.changed() => changed,
                changed = self.workloads.changed() => changed,
            };
            if changed.is_err() {
                return std::future::pending().await;
            }
            self.publish();
        }
    }

    fn publish(&mut self) {
        let started = Instant::now();
        let parsed = Arc::clone(&self.intents.borrow_and_update());
        let registered = self.workloads.borrow_and_update().clone();
        let (intent, problem) = in_domain(&parsed.intent, &self.trust_domain);
        let before = self.state.borrow().clone();
        let world = Arc::new(before.world.update(intent, registered.clone()));
        let state = State {
            problems: problems(&parsed, &world, problem),
            workloads: registered,
            compiles: before.compiles + 1,
            compile_time: started.elapsed(),
            world: Arc::clone(&world),
        };
        let known: BTreeSet<&Problem> = before.problems.iter().collect();
        for problem in state.problems.iter().filter(|problem| !known.contains(problem)) {
            match problem.severity {
                Severity::Error => tracing::error!("{problem}"),
                Severity::Warning => tracing::warn!("{problem}"),
            }
        }
        self.state.send_replace(state);
        self.worlds.send_replace(Published::now(Arc::new(Compiled(world))));
    }
}

/// A compiled world as streams see it.
struct Compiled(Arc<compile::World>);

impl World for Compiled {
    fn resources(&self, node: &Node) -> Result<ResourceSet, String> {
        let node = compile::Node::parse(node).map_err(|error| error.to_string())?;
        Ok(self.0.for_node(&node))
    }

    fn warnings(&self, node: &Node) -> Vec<String> {
        compile::Node::parse(node)
            .map_or_else(|error| vec![error.to_string()], |node| self.0.warnings_for(&node))
    }
}

/// Vets with the translation of our own proxy.
pub(crate) struct ProxyValidator;

impl Validator for ProxyValidator {
    fn check(&self, resource: &Resource) -> Result<(), String> {
        let kind = match resource.kind {
            ResourceType::Cluster => Kind::Cluster,
            ResourceType::Endpoint => Kind::Endpoints,
            ResourceType::Listener => Kind::Listener,
            ResourceType::Route => Kind::Routes,
            ResourceType::Secret => Kind::Secret,
        };
        let (_, outcome) = translate::resource(kind, &resource.body);
        outcome.map(|_| ()).map_err(|refused| {
            refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        })
    }
}

/// The intent in the trust domain of the authority. The domain is in every certificate: a change
/// would cut all connections, so it takes a new root, and until then the old one stays.
fn in_domain(intent: &Intent, trust_domain: &TrustDomain) -> (Arc<Intent>, Option<Problem>) {
    if intent.mesh.trust_domain == trust_domain.as_str() {
        return (Arc::new(intent.clone()), None);
    }
    let mut kept = intent.clone();
    let mut mesh = kept.mesh.as_ref().clone();
    let wanted = std::mem::replace(&mut mesh.trust_domain, trust_domain.to_string());
    kept.mesh = Arc::new(mesh);
    let message = format!(
        "the trust domain is {trust_domain} as long as its root is in --data-dir; {wanted} is not applied"
    );
    (Arc::new(kept), Some(Problem::of_file(Severity::Error, "", message)))
}

fn problems(parsed: &Parsed, world: &compile::World, more: Option<Problem>) -> Arc<Vec<Problem>> {
    let mut all = parsed.problems.clone();
    all.extend_from_slice(world.problems());
    all.extend(more);
    Arc::new(all)
}
