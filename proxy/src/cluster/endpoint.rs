//! One endpoint: what is configured about it, and what lives across configurations.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::outlier::{Ejection, Monitor};
use super::pool::Pool;
use crate::model::Name;
use crate::model::endpoint::{Health, Locality};
use crate::model::listener::Address;

/// An endpoint as one version of the configuration has it. Its connections, ejections and counters
/// are shared with the versions before and after.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// The same as text, for access logs.
    pub address_text: Name,
    pub(crate) hostname: Name,
    /// At least 1.
    pub weight: u32,
    /// As the control plane sees it; outlier detection comes on top.
    pub health: Health,
    /// Where it is.
    pub locality: Arc<Locality>,
    /// 0 is tried first.
    pub priority: u32,
    /// `envoy.lb` filter metadata.
    pub metadata: Arc<BTreeMap<String, String>>,
    pub(crate) host: Arc<Host>,
}

impl Endpoint {
    /// Whether both are the same endpoint, maybe in different versions of the configuration.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.host, &other.host)
    }

    /// Its host name, for `auto_host_rewrite`. May be empty.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Whether outlier detection leaves it out now.
    pub fn is_ejected(&self) -> bool {
        self.host.ejected.load(Ordering::Relaxed)
    }

    /// Counters for the admin's `/clusters`.
    pub fn counters(&self) -> &EndpointCounters {
        &self.host.counters
    }

    /// Whether the configuration says the same about both; they may differ in what lives.
    pub(crate) fn same_configuration(&self, other: &Self) -> bool {
        self.is_same(other)
            && self.hostname == other.hostname
            && self.weight == other.weight
            && self.health == other.health
            && self.locality == other.locality
            && self.priority == other.priority
            && self.metadata == other.metadata
    }
}

/// What an endpoint did so far.
#[derive(Debug, Default)]
pub struct EndpointCounters {
    /// Connections open.
    pub cx_active: AtomicU32,
    /// Connections tried.
    pub cx_total: AtomicU64,
    /// Connections not made.
    pub cx_connect_fail: AtomicU64,
    /// Requests under way.
    pub rq_active: AtomicU32,
    /// Requests sent.
    pub rq_total: AtomicU64,
    /// Requests answered with less than 500.
    pub rq_success: AtomicU64,
    /// Requests answered with 500 or more, or not at all.
    pub rq_error: AtomicU64,
    /// Requests not answered in time.
    pub rq_timeout: AtomicU64,
}

/// What lives.
#[derive(Debug)]
pub(crate) struct Host {
    /// Apart from the rest, so that an open connection can count without keeping the host alive.
    pub(crate) counters: Arc<EndpointCounters>,
    pub(crate) ejected: AtomicBool,
    pub(crate) monitor: Monitor,
    ejection: Mutex<Ejection>,
    /// One for each worker, made when that worker first needs it.
    pools: Box<[OnceLock<Pool>]>,
}

impl Host {
    pub(crate) fn new(pools: usize) -> Self {
        Self {
            counters: Arc::default(),
            ejected: AtomicBool::new(false),
            monitor: Monitor::default(),
            ejection: Mutex::default(),
            pools: (0..pools).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The pool at this place; the last one if there are not so many.
    pub(crate) fn pool(&self, at: usize) -> Option<&Pool> {
        let at = at.min(self.pools.len().checked_sub(1)?);
        self.pools.get(at).map(|pool| pool.get_or_init(Pool::default))
    }

    /// The pools that are in use.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter().filter_map(OnceLock::get)
    }

    pub(crate) fn ejection(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
