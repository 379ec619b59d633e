//! Looks at every resource with the eyes of our proxy before it is sent: a resource that the proxy
//! would refuse is held back, and the last good version stays.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::snapshot::{Resource, ResourceSet, ResourceType, Version};

/// Verdicts that are remembered at most; then the memory begins anew.
const MAX_VERDICTS: usize = 100_000;

/// Says whether a proxy takes a resource.
pub trait Validator: Send + Sync {
    /// Checks one encoded resource.
    ///
    /// # Errors
    /// What the proxy would say when it refuses it: field paths and reasons.
    fn check(&self, resource: &Resource) -> Result<(), String>;
}

/// A resource that is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its type.
    pub kind: ResourceType,
    /// Its name.
    pub name: Arc<str>,
    /// What is wrong with it.
    pub reason: Arc<str>,
    /// Whether an older version of it stays in force.
    pub has_last_good: bool,
}

/// What is wrong with a resource, if anything is.
type Verdict = Option<Arc<str>>;

/// A validator that remembers its verdicts, for all streams together.
pub struct Vetting {
    validator: Box<dyn Validator>,
    verdicts: Mutex<HashMap<(ResourceType, Version), Verdict>>,
}

impl Vetting {
    /// Vets with `validator`.
    #[must_use]
    pub fn new(validator: Box<dyn Validator>) -> Self {
        Self { validator, verdicts: Mutex::default() }
    }

    /// `new` without what would be refused. Of a refused resource, the version in `previous` stays. `previous` was vetted
    /// itself: what is still the same in it is not looked at again.
    pub fn vet(&self, previous: &ResourceSet, mut new: ResourceSet) -> (ResourceSet, Vec<Refusal>) {
        let mut refusals = Vec::new();
        for resource in previous.diff(&new).into_values().flat_map(|diff| diff.changed) {
            let Some(reason) = self.verdict(&resource) else { continue };
            let (kind, name) = (resource.kind, Arc::clone(&resource.name));
            let has_last_good = previous.get(kind, &name).is_some();
            refusals.push(Refusal { kind, name, reason, has_last_good });
        }
        for Refusal { kind, name, .. } in &refusals {
            new.remove(*kind, name);
            if let Some(good) = previous.get(*kind, name) {
                new.insert(Arc::clone(good));
            }
        }
        (new, refusals)
    }

    fn verdict(&self, resource: &Resource) -> Verdict {
        let key = (resource.kind, resource.version);
        let lock = || self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = lock().get(&key) {
            return verdict.clone();
        }
        let verdict = self.validator.check(resource).err().map(Arc::from);
        let mut verdicts = lock();
        if verdicts.len() >= MAX_VERDICTS {
            verdicts.clear();
        }
        verdicts.insert(key, verdict.clone());
        verdict
    }
}

impl fmt::Debug for Vetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vetting(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoBad;

    impl Validator for NoBad {
        fn check(&self, resource: &Resource) -> Result<(), String> {
            if resource.body == "bad" { Err("it is bad".to_owned()) } else { Ok(()) }
        }
    }

    fn set(resources: &[(&str, &'static str)]) -> ResourceSet {
        let make = |(name, body): &(&str, &'static str)| {
            Resource::new(ResourceType::Cluster, *name, *body)
        };
        resources.iter().map(make).collect()
    }

    #[test]
    fn the_last_good_version_stays_and_a_new_bad_one_is_left_out() {
        let vetting = Vetting::new(Box::new(NoBad));
        let (good, refusals) = vetting.vet(&ResourceSet::default(), set(&[("a", "1"), ("b", "1")]));
        assert!(refusals.is_empty());
        let (next, refusals) = vetting.vet(&good, set(&[("a", "bad"), ("b", "2"), ("c", "bad")]));
        assert_eq!(next, set(&[("a", "1"), ("b", "2")]));
        let found: Vec<_> = refusals.iter().map(|r| (&*r.name, r.has_last_good)).collect();
        assert_eq!(found, [("a", true), ("c", false)]);
        assert_eq!(&*refusals[0].reason, "it is bad");
        let (again, refusals) = vetting.vet(&next, set(&[("a", "bad"), ("b", "2"), ("c", "bad")]));
        assert_eq!((again, refusals.len()), (next, 2), "as long as they are bad");
    }
}
