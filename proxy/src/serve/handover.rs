//! Listeners that are bound nowhere (`bind_to_port: false`): connections that were redirected to a
//! listener with `use_original_dst` belong to the one of the address that they were going to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::listener::{Listener, ListenerError};
use super::server::gone;
use crate::model::listener::{self as model, Address};
use crate::model::{Map, Name, Snapshot};
use crate::net::drain::Drain;

type ByAddress = rpds::HashTrieMapSync<SocketAddr, Arc<Listener>, foldhash::fast::RandomState>;

/// The unbound listeners. Looking one up takes no lock.
#[derive(Debug)]
pub(super) struct Unbound {
    by_address: ArcSwap<ByAddress>,
    /// Held by whoever changes them.
    by_name: Mutex<Map<Arc<Listener>>>,
}

impl Default for Unbound {
    fn default() -> Self {
        Self { by_address: ArcSwap::from_pointee(ByAddress::default()), by_name: Mutex::default() }
    }
}

impl Unbound {
    /// The listener of an address; failing that, the one of any address with that port.
    pub(super) fn at(&self, address: SocketAddr) -> Option<Arc<Listener>> {
        let all = self.by_address.load();
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let found = all.get(&address).or_else(|| all.get(&SocketAddr::new(any, address.port())));
        found.cloned()
    }

    /// The listener of a name.
    pub(super) fn get(&self, name: &Name) -> Option<Arc<Listener>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// What connections to some of them wait for.
    pub(super) fn drains(&self, which: impl Fn(&model::Listener) -> bool) -> Vec<Arc<Drain>> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let those = by_name.values().filter(|one| which(&one.config));
        those.flat_map(|one| one.drains().map(Arc::clone)).collect()
    }

    /// Takes a listener in, in place of an earlier one of its name. Returns what has to end of that one.
    pub(super) fn put(&self, listener: Listener) -> Vec<Arc<Drain>> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_address = ByAddress::clone(&self.by_address.load());
        let name = Arc::clone(&listener.config.name);
        let listener = Arc::new(listener);
        let mut over = Vec::new();
        if let Some(old) = by_name.get(&name) {
            forget(&mut by_address, old);
            over = gone(old, &listener);
        }
        if let Address::Socket(address) = listener.config.address {
            by_address.insert_mut(address, Arc::clone(&listener));
        }
        by_name.insert_mut(name, listener);
        self.by_address.store(Arc::new(by_address));
        over
    }

    /// Takes one away. Returns what has to end.
    pub(super) fn remove(&self, name: &Name) -> Vec<Arc<Drain>> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = by_name.get(name).cloned() {
            let mut by_address = ByAddress::clone(&self.by_address.load());
            forget(&mut by_address, &old);
            by_name.remove_mut(name);
            self.by_address.store(Arc::new(by_address));
            return old.drains().map(Arc::clone).collect();
        }
        Vec::new()
    }

    /// Whether there is one of this name.
    pub(super) fn contains(&self, name: &Name) -> bool {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    /// Renewed certificates, for those that have any.
    pub(super) fn renew(&self, snapshot: &Snapshot) -> Vec<ListenerError> {
        let by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        by_name.values().filter_map(|one| one.renew(&snapshot.secrets).err()).collect()
    }
}

/// Another listener may have taken the address over in the meantime.
fn forget(by_address: &mut ByAddress, old: &Arc<Listener>) {
    if let Address::Socket(address) = old.config.address
        && by_address.get(&address).is_some_and(|at| Arc::ptr_eq(at, old))
    {
        by_address.remove_mut(&address);
    }
}
