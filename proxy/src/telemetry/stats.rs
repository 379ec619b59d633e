//! Metrics under Envoy's names, in Envoy's two forms: flat (`cluster.a.upstream_rq_total`) and
//! Prometheus (`envoy_cluster_upstream_rq_total{envoy_cluster_name="a"}`).
//!
//! Handles are made when configuration is compiled and kept by whoever counts, so that counting
//! is one relaxed atomic add: no name, no label, no lock on the request path. A metric leaves the
//! registry when its last handle is dropped and it has been scraped or swept since.

mod histogram;
pub mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use histogram::{BOUNDS, Histogram, Summary};

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
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

    /// From zero again: for a person at the admin's `/reset_counters` only.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
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
    pub fn guard(&self) -> GaugeGuard {
        self.add(1);
        GaugeGuard(self.clone())
    }
}

/// Counts one thing that lives, such as an open connection.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.add(-1);
    }
}

/// A label as Envoy's tag extraction makes it: the part of the flat name that varies.
pub type Label = (&'static str, Arc<str>);

/// A metric as the registry knows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Prometheus name without the `envoy_` prefix: `cluster_upstream_rq_total`.
    pub family: Arc<str>,
    /// Labels, in order.
    pub labels: Arc<[Label]>,
    /// The number itself.
    pub value: Value,
}

/// A metric's number.
#[derive(Clone, Debug)]
pub enum Value {
    /// Only grows.
    Counter(Counter),
    /// Goes up and down.
    Gauge(Gauge),
    /// Distribution.
    Histogram(Histogram),
}

/// All metrics of a proxy, by flat name. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Mutex<BTreeMap<String, Entry>>>);

impl Registry {
    /// A registry without metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where metrics get their prefix and labels: `scope("cluster", Some(("envoy_cluster_name",
    /// name)))` makes `cluster.<name>.…` and `envoy_cluster_…{envoy_cluster_name="<name>"}`.
    pub fn scope(&self, kind: &str, label: Option<Label>) -> Scope {
        Scope {
            registry: self.clone(),
            prefix: String::new(),
            family: String::new(),
            labels: Arc::from([]),
        }
        .scope(kind, label)
    }

    /// A counter whose flat name begins with a label's value, as those of some filters do.
    pub fn prefixed_counter(&self, flat: &str, family: &str, label: Label) -> Counter {
        let root = Scope {
            registry: self.clone(),
            prefix: String::new(),
            family: String::new(),
            labels: Arc::from([]),
        };
        root.labelled_counter(flat, family, label)
    }

    /// The same for a gauge.
    pub fn prefixed_gauge(&self, flat: &str, family: &str, label: Label) -> Gauge {
        let entry = Entry {
            family: family.into(),
            labels: Arc::from([label]),
            value: Value::Gauge(Gauge::default()),
        };
        match &self.lock().entry(flat.to_owned()).or_insert(entry).value {
            Value::Gauge(gauge) => gauge.clone(),
            _ => Gauge::default(),
        }
    }

    /// All metrics, ordered by flat name.
    pub fn entries(&self) -> Vec<(String, Entry)> {
        self.lock().iter().map(|(name, entry)| (name.clone(), entry.clone())).collect()
    }

    /// Forget metrics that nobody counts any more.
    pub fn sweep(&self) {
        self.lock().retain(|_, entry| match &entry.value {
            Value::Counter(counter) => Arc::strong_count(&counter.0) > 1,
            Value::Gauge(gauge) => Arc::strong_count(&gauge.0) > 1,
            Value::Histogram(histogram) => histogram.is_shared(),
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Nothing that runs under the lock can panic half-way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A prefix and the labels that come with it.
#[derive(Clone, Debug)]
pub struct Scope {
    registry: Registry,
    prefix: String,
    family: String,
    labels: Arc<[Label]>,
}

impl Scope {
    /// A scope inside this one. With a label, its value becomes part of the flat name.
    pub fn scope(&self, kind: &str, label: Option<Label>) -> Self {
        let mut inner = self.clone();
        inner.prefix.push_str(kind);
        inner.prefix.push('.');
        inner.family.push_str(kind);
        inner.family.push('_');
        if let Some((key, value)) = label {
            inner.prefix.push_str(&value);
            inner.prefix.push('.');
            inner.labels = self.labels.iter().cloned().chain([(key, value)]).collect();
        }
        inner
    }

    /// A counter of this name; the same one for the same name.
    pub fn counter(&self, name: &str) -> Counter {
        match self.entry(name, || Value::Counter(Counter::default())) {
            Value::Counter(counter) => counter,
            _ => Counter::default(),
        }
    }

    /// A gauge of this name; the same one for the same name.
    pub fn gauge(&self, name: &str) -> Gauge {
        match self.entry(name, || Value::Gauge(Gauge::default())) {
            Value::Gauge(gauge) => gauge,
            _ => Gauge::default(),
        }
    }

    /// A histogram of this name (milliseconds, unless the name says otherwise).
    pub fn histogram(&self, name: &str) -> Histogram {
        match self.entry(name, || Value::Histogram(Histogram::default())) {
            Value::Histogram(histogram) => histogram,
            _ => Histogram::default(),
        }
    }

    /// A counter whose name carries a label value, as Envoy's `upstream_rq_<code>` does:
    /// flat `upstream_rq_200`, Prometheus `upstream_rq{envoy_response_code="200"}`.
    pub fn labelled_counter(&self, flat: &str, family: &str, label: Label) -> Counter {
        let labels: Arc<[Label]> = self.labels.iter().cloned().chain([label]).collect();
        let entry = Entry {
            family: format!("{}{family}", self.family).into(),
            labels,
            value: Value::Counter(Counter::default()),
        };
        let mut entries = self.registry.lock();
        match &entries.entry(format!("{}{flat}", self.prefix)).or_insert(entry).value {
            Value::Counter(counter) => counter.clone(),
            _ => Counter::default(),
        }
    }

    fn entry(&self, name: &str, make: impl FnOnce() -> Value) -> Value {
        let mut entries = self.registry.lock();
        entries
            .entry(format!("{}{name}", self.prefix))
            .or_insert_with(|| Entry {
                family: format!("{}{}", self.family, name.replace('.', "_")).into(),
                labels: self.labels.clone(),
                value: make(),
            })
            .value
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_metric_and_goes_when_nobody_counts() {
        let registry = Registry::new();
        let cluster = registry.scope("cluster", Some(("envoy_cluster_name", "a".into())));
        let first = cluster.counter("upstream_rq_total");
        cluster.counter("upstream_rq_total").inc();
        first.inc();
        let entries = registry.entries();
        let [(name, entry)] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!(name, "cluster.a.upstream_rq_total");
        assert_eq!(&*entry.family, "cluster_upstream_rq_total");
        assert_eq!(first.get(), 2);
        drop(entries);
        registry.sweep();
        assert_eq!(registry.entries().len(), 1);
        drop(first);
        registry.sweep();
        assert!(registry.entries().is_empty());
    }
}
