//! The streams that are open now, for the administration pages.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use pillion_xds::envoy::config::core::v3::Node;

use super::session::{Dialect, TypeStatus};
use super::vetting::Refusal;
use crate::identity::SpiffeId;

/// An open stream, as people see it.
#[derive(Clone, Debug)]
pub struct StreamView {
    /// Number of the stream since the start.
    pub id: u64,
    /// The node, as it introduced itself; absent before the first request.
    pub node: Option<Arc<Node>>,
    /// Delta or state of the world.
    pub dialect: Dialect,
    /// Where it comes from.
    pub address: Option<SocketAddr>,
    /// The identity it proved, on TLS.
    pub identity: Option<SpiffeId>,
    /// Since when.
    pub since: SystemTime,
    /// How it stands with every type.
    pub types: Vec<TypeStatus>,
    /// Resources that the control plane holds back from it.
    pub refusals: Vec<Refusal>,
}

impl StreamView {
    /// The node's id, or an empty text before the first request.
    #[must_use]
    pub fn node_id(&self) -> &str {
        self.node.as_ref().map_or("", |node| node.id.as_str())
    }
}

/// The open streams.
#[derive(Debug, Default)]
pub struct Streams {
    last: AtomicU64,
    open: Mutex<BTreeMap<u64, StreamView>>,
}

impl Streams {
    /// All open streams, oldest first.
    #[must_use]
    pub fn views(&self) -> Vec<StreamView> {
        self.lock().values().cloned().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lists a new stream until the entry is dropped.
    pub(super) fn open(
        self: &Arc<Self>,
        dialect: Dialect,
        address: Option<SocketAddr>,
        identity: Option<SpiffeId>,
    ) -> Entry {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let view = StreamView {
            id,
            node: None,
            dialect,
            address,
            identity,
            since: SystemTime::now(),
            types: Vec::new(),
            refusals: Vec::new(),
        };
        self.lock().insert(id, view);
        Entry { id, streams: Arc::clone(self) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, StreamView>> {
        // Nothing panics while it is held; and a view is replaced whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one stream in the list.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    streams: Arc<Streams>,
}

impl Entry {
    pub(super) fn update(&self, change: impl FnOnce(&mut StreamView)) {
        if let Some(view) = self.streams.lock().get_mut(&self.id) {
            change(view);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.streams.lock().remove(&self.id);
    }
}
