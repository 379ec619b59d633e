//! One endpoint: what is configured about it, and what lives across configurations.

use std::ops::Deref;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::balance::orca::Weight;
use super::balance::peak_ewma::Latency;
use super::clock;
use super::outlier::{Ejection, Monitor};
use super::pool::Pool;
use crate::model::endpoint::{Findings, Health, Locality, Traits};
use crate::model::listener::Address;

/// An endpoint as one version of the configuration has it. Its connections, ejections and counters
/// are shared with the versions before and after.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub address: Address,
    /// Health is as the control plane sees it; checks and outlier detection come on top: see
    /// [`Self::standing`].
    pub(crate) traits: Arc<Traits>,
    /// Where it is.
    pub locality: Arc<Locality>,
    /// 0 is tried first.
    pub priority: u32,
    /// See [`Self::socket`].
    pub(super) socket: u32,
    pub(crate) host: Arc<Host>,
}

impl Deref for Endpoint {
    type Target = Traits;

    fn deref(&self) -> &Traits {
        &self.traits
    }
}

impl Endpoint {
    /// Whether both are the same endpoint, maybe in different versions of the configuration.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.host, &other.host)
    }

    /// Where it listens, as text: for what is said with each request.
    pub fn address_text(&self) -> &str {
        self.host.used().address.get_or_init(|| self.address.to_string().into())
    }

    /// Its host name, for `auto_host_rewrite`. May be empty.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Which transport socket it is connected to by; see [`Cluster::tls_of`](crate::model::cluster::Cluster::tls_of).
    pub(crate) fn socket(&self) -> usize {
        self.socket as usize
    }

    /// Whether outlier detection leaves it out now.
    pub fn is_ejected(&self) -> bool {
        self.host.flags.has(Flags::EJECTED)
    }

    /// How it is, all in all: by the control plane, by active checks and by outlier detection.
    pub fn standing(&self) -> Standing {
        let out = Flags::FAILED_ACTIVE | Flags::EJECTED;
        match self.health {
            Health::Unhealthy | Health::Draining => Standing::Unhealthy,
            Health::Healthy | Health::Degraded if self.host.flags.has(out) => Standing::Unhealthy,
            Health::Degraded => Standing::Degraded,
            Health::Healthy if self.host.flags.has(Flags::DEGRADED_ACTIVE) => Standing::Degraded,
            Health::Healthy => Standing::Healthy,
        }
    }

    /// It does not count among the endpoints of its priority: it is going away, was never checked
    /// so far, or asked to be left alone at once.
    pub fn is_excluded(&self) -> bool {
        self.health == Health::Draining
            || self.host.flags.has(Flags::PENDING_ACTIVE | Flags::EXCLUDED)
    }

    /// Counters for the admin's `/clusters`, to be counted by.
    pub fn counters(&self) -> &EndpointCounters {
        &self.host.used().counters
    }

    /// Whether the configuration says the same about both; they may differ in what lives.
    pub(crate) fn same_configuration(&self, other: &Self) -> bool {
        self.is_same(other)
            && self.traits == other.traits
            && self.locality == other.locality
            && self.priority == other.priority
            && self.socket == other.socket
    }
}

/// How an endpoint is, all in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets requests.
    Healthy,
    /// It gets what the healthy ones cannot take.
    Degraded,
    /// It gets requests in panic only.
    Unhealthy,
}

/// What this proxy found out about an endpoint itself.
#[derive(Debug, Default)]
pub(crate) struct Flags(AtomicU8);

impl Flags {
    /// Active checks fail.
    pub(crate) const FAILED_ACTIVE: u8 = 1;
    /// Left out by outlier detection.
    pub(crate) const EJECTED: u8 = 2;
    /// Active checks say that it is degraded.
    pub(crate) const DEGRADED_ACTIVE: u8 = 4;
    /// The control plane removed it, and it stays until a check fails.
    pub(crate) const PENDING_REMOVAL: u8 = 8;
    /// Not checked yet, and to be ignored until then.
    pub(crate) const PENDING_ACTIVE: u8 = 16;
    /// It sent `x-envoy-immediate-health-check-fail`.
    pub(crate) const EXCLUDED: u8 = 32;
    /// Its last check got no answer in time.
    pub(crate) const TIMED_OUT: u8 = 64;

    /// Everything that active checks say.
    pub(crate) const BY_CHECKS: u8 = Self::FAILED_ACTIVE
        | Self::DEGRADED_ACTIVE
        | Self::PENDING_ACTIVE
        | Self::EXCLUDED
        | Self::TIMED_OUT;

    /// Whether any of these is set.
    pub(crate) fn has(&self, flags: u8) -> bool {
        self.0.load(Ordering::Relaxed) & flags != 0
    }

    pub(crate) fn findings(&self) -> Findings {
        let flags = self.0.load(Ordering::Relaxed);
        Findings {
            failed_active: flags & Self::FAILED_ACTIVE != 0,
            ejected: flags & Self::EJECTED != 0,
            degraded_active: flags & Self::DEGRADED_ACTIVE != 0,
            pending_removal: flags & Self::PENDING_REMOVAL != 0,
            pending_active: flags & Self::PENDING_ACTIVE != 0,
            excluded: flags & Self::EXCLUDED != 0,
            timed_out: flags & Self::TIMED_OUT != 0,
        }
    }

    /// True: that is new.
    pub(crate) fn set(&self, flags: u8) -> bool {
        self.0.fetch_or(flags, Ordering::Relaxed) & flags != flags
    }

    /// True: any of them was set.
    pub(crate) fn clear(&self, flags: u8) -> bool {
        self.0.fetch_and(!flags, Ordering::Relaxed) & flags != 0
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
    /// Requests that wait for a connection.
    pub rq_pending_active: AtomicU32,
    /// Requests sent.
    pub rq_total: AtomicU64,
    /// Requests answered with less than 500.
    pub rq_success: AtomicU64,
    /// Requests answered with 500 or more, or not at all.
    pub rq_error: AtomicU64,
    /// Requests not answered in time.
    pub rq_timeout: AtomicU64,
}

/// What lives. Most endpoints of a large mesh are never asked: what only those have that were is [`Used`].
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) flags: Flags,
    /// How many pools there are.
    pools: u32,
    /// Nanoseconds from the start of the clock to the moment since which it is well.
    well_since: AtomicU64,
    used: OnceLock<Box<Used>>,
}

/// What an endpoint has from the first request to it on.
#[derive(Debug)]
pub(crate) struct Used {
    /// Apart from the rest, so that an open connection can count without keeping the host alive.
    pub(crate) counters: Arc<EndpointCounters>,
    /// Where it listens, as text: endpoints that have the same host listen at the same address.
    address: OnceLock<Box<str>>,
    pub(crate) monitor: Monitor,
    /// How fast it answers.
    pub(crate) latency: Latency,
    /// What it reports about its load.
    pub(crate) reported: Weight,
    ejection: Mutex<Ejection>,
    /// One for each worker, made when that worker first needs it.
    pools: Box<[OnceLock<Box<Pool>>]>,
}

impl Host {
    pub(crate) fn new(pools: usize) -> Self {
        Self {
            flags: Flags::default(),
            pools: u32::try_from(pools).unwrap_or(u32::MAX),
            well_since: AtomicU64::new(clock::now().as_nanos() as u64),
            used: OnceLock::new(),
        }
    }

    /// For those who are about to use it.
    pub(crate) fn used(&self) -> &Used {
        self.used.get_or_init(|| Box::new(Used::new(self.pools)))
    }

    /// For those who only look. None: it was never asked.
    pub(crate) fn if_used(&self) -> Option<&Used> {
        self.used.get().map(Box::as_ref)
    }

    /// As if it were well for so much longer.
    #[cfg(test)]
    pub(crate) fn age(&self, by: Duration) {
        let since = clock::now().as_nanos().saturating_sub(by.as_nanos()) as u64;
        self.well_since.store(since, Ordering::Relaxed);
    }

    /// It is well from now on: slow start begins anew.
    pub(crate) fn became_well(&self, now: Duration) {
        self.well_since.store(now.as_nanos() as u64, Ordering::Relaxed);
    }

    /// For how long it is well.
    pub(crate) fn well_for(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_nanos(self.well_since.load(Ordering::Relaxed)))
    }

    /// The pool at this place; the last one if there are not so many.
    pub(crate) fn pool(&self, at: usize) -> Option<&Pool> {
        let pools = &self.used().pools;
        let at = at.min(pools.len().checked_sub(1)?);
        pools.get(at).map(|pool| &**pool.get_or_init(Box::default))
    }

    /// The pools that are in use.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        let pools = self.if_used().map(|used| &used.pools);
        pools.into_iter().flatten().filter_map(OnceLock::get).map(Box::as_ref)
    }
}

impl Used {
    fn new(pools: u32) -> Self {
        Self {
            counters: Arc::default(),
            address: OnceLock::new(),
            monitor: Monitor::default(),
            latency: Latency::default(),
            reported: Weight::default(),
            ejection: Mutex::default(),
            pools: (0..pools).map(|_| OnceLock::new()).collect(),
        }
    }

    pub(crate) fn ejection(&self) -> MutexGuard<'_, Ejection> {
        self.ejection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_was_never_asked_is_small() {
        // Classes of the allocator that leave room for the counts of an `Arc`.
        assert!(size_of::<Endpoint>() <= 80 - 16, "{}", size_of::<Endpoint>());
        assert!(size_of::<Host>() <= 48 - 16, "{}", size_of::<Host>());
    }
}
