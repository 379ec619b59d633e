//! What a filter keeps as long as its settings hold: token buckets, caches, controllers, counters.

use std::any::Any;
use std::fmt;
use std::sync::OnceLock;

/// A place in a filter's settings for what lives as long as they do, whether they stand on a
/// connection manager or on a route. It is filled at the first use and goes with the settings; what
/// is in it is the filter's own business.
#[derive(Default)]
pub struct Kept(OnceLock<Box<dyn Any + Send + Sync>>);

impl Kept {
    /// What is kept, made now if it is the first time. One pointer to follow, no lock.
    ///
    /// # Panics
    /// Another type was kept here before: each kind of settings has one owner.
    pub fn get<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> &T {
        let kept = self.0.get_or_init(|| Box::new(make()));
        kept.downcast_ref().expect("settings belong to one filter, which keeps one type in them")
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "Kept" } else { "Kept(nothing yet)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_made_once() {
        let kept = Kept::default();
        assert_eq!(*kept.get(|| 1_u32), 1);
        assert_eq!(*kept.get(|| 2_u32), 1);
    }
}
