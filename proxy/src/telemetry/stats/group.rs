//! Metrics that live and die together: one allocation for all of them, and their names are shared by
//! every group of the same type. A thousand clusters cost what they count, not what it is called.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::{Scope, Summary};

/// Metrics with a common start of their names.
pub trait Group: Any + Debug + Send + Sync {
    /// Shows each metric as it is now.
    fn each(&self, see: &mut dyn FnMut(Item<'_>, Reading));

    /// Counters from zero again: for a person at the admin's `/reset_counters` only.
    fn reset(&self);
}

/// A group at its beginning.
pub trait Fresh {
    /// All at zero; the scope knows the buckets of histograms.
    fn fresh(scope: &Scope) -> Self;
}

/// How a metric is called inside its group.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The end of the flat name.
    pub flat: &'a str,
    /// The end of the Prometheus name; dots become underscores.
    pub family: &'a str,
    /// A label of its own.
    pub label: Option<(&'a str, &'a str)>,
}

/// A metric's value at one moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// Only grows.
    Counter(u64),
    /// Goes up and down.
    Gauge(i64),
    /// Distribution.
    Histogram(Summary),
    /// A gauge of all 64 bits.
    Hash(u64),
    /// Tells of a state.
    Text(Arc<str>),
}

/// A counter inside a group.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// A gauge inside a group.
#[derive(Debug, Default)]
pub struct Level(AtomicI64);

/// Counts one thing that lives, such as a request under way.
#[derive(Debug)]
pub struct LevelGuard<'a>(&'a Level);

impl<'a> Item<'a> {
    /// A metric without a label of its own.
    pub const fn plain(flat: &'a str) -> Self {
        Self { flat, family: flat, label: None }
    }
}

impl Count {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// From zero again.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Level {
    /// Now it is this.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// `n` more (or fewer).
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more until the guard is dropped.
    pub fn guard(&self) -> LevelGuard<'_> {
        self.add(1);
        LevelGuard(self)
    }
}

impl Drop for LevelGuard<'_> {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// Declares a group from one list: field = the end of its flat name. `never` are names of things that
/// do not happen here: they take no memory, and are always zero.
macro_rules! metrics {
    (
        $(#[$doc:meta])* $vis:vis struct $name:ident {
            counters { $($(#[$cdoc:meta])* $counter:ident = $cname:literal,)* }
            gauges { $($(#[$gdoc:meta])* $gauge:ident = $gname:literal,)* }
            histograms { $($(#[$hdoc:meta])* $histogram:ident = $hname:literal,)* }
            never { counters [$($zero:literal),* $(,)?] gauges [$($still:literal),* $(,)?] }
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        $vis struct $name {
            $($(#[$cdoc])* $vis $counter: $crate::telemetry::stats::Count,)*
            $($(#[$gdoc])* $vis $gauge: $crate::telemetry::stats::Level,)*
            $($(#[$hdoc])* $vis $histogram: $crate::telemetry::stats::Spread,)*
        }

        impl $crate::telemetry::stats::Fresh for $name {
            fn fresh(_scope: &$crate::telemetry::stats::Scope) -> Self {
                Self {
                    $($counter: Default::default(),)*
                    $($gauge: Default::default(),)*
                    $($histogram:
                        $crate::telemetry::stats::Spread::new(_scope.bounds($hname)),)*
                }
            }
        }

        impl $crate::telemetry::stats::Group for $name {
            fn each(
                &self,
                see: &mut dyn FnMut(
                    $crate::telemetry::stats::Item<'_>,
                    $crate::telemetry::stats::Reading,
                ),
            ) {
                use $crate::telemetry::stats::{Item, Reading};
                $(see(Item::plain($cname), Reading::Counter(self.$counter.get()));)*
                $(see(Item::plain($gname), Reading::Gauge(self.$gauge.get()));)*
                $(see(Item::plain($hname), Reading::Histogram(self.$histogram.summary()));)*
                $(see(Item::plain($zero), Reading::Counter(0));)*
                $(see(Item::plain($still), Reading::Gauge(0));)*
            }

            fn reset(&self) {
                $(self.$counter.reset();)*
            }
        }
    };
}
pub(crate) use metrics;
