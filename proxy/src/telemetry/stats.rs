//! Metrics under Envoy's names, in Envoy's two forms: flat (`cluster.a.upstream_rq_total`) and
//! Prometheus (`envoy_cluster_upstream_rq_total{envoy_cluster_name="a"}`).
//!
//! Handles are made when configuration is compiled and kept by whoever counts, so that counting
//! is one relaxed atomic add: no name, no label, no lock on the request path. A metric leaves the
//! registry when its last handle is dropped and it has been scraped or swept since.

mod group;
mod histogram;
mod settings;
pub mod text;

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub(crate) use group::metrics;
pub use group::{Count, Fresh, Group, Item, Level, LevelGuard, Reading};
pub use histogram::{BOUNDS, Bounds, Histogram, Spread, Summary};
pub use settings::{Settings, Tag, Which};

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

/// A text that tells of a state, such as a version (Envoy's text readout). Empty at first.
#[derive(Clone, Debug, Default)]
pub struct Text(Arc<Mutex<Arc<str>>>);

impl Text {
    /// Now it is this.
    pub fn set(&self, text: &str) {
        *lock(&self.0) = text.into();
    }

    /// Now.
    pub fn get(&self) -> Arc<str> {
        Arc::clone(&lock(&self.0))
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

/// A metric that stands alone, as the registry knows it.
#[derive(Clone, Debug)]
struct Entry {
    /// Prometheus name without the `envoy_` prefix: `cluster_upstream_rq_total`.
    family: Arc<str>,
    /// Labels, in order.
    labels: Arc<[Label]>,
    /// The number itself.
    value: Value,
}

/// A group of metrics with the names that all of it begin with.
#[derive(Clone, Debug)]
struct Grouped {
    family: Arc<str>,
    labels: Arc<[Label]>,
    group: Arc<dyn Group>,
}

#[derive(Clone, Debug)]
enum Value {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
    Text(Text),
}

/// A metric as it is at one moment.
#[derive(Debug)]
pub struct Sample<'a> {
    /// Flat name: `cluster.a.upstream_rq_2xx`.
    pub name: &'a str,
    /// Prometheus name without the `envoy_` prefix: `cluster_upstream_rq_xx`.
    pub family: &'a str,
    /// Labels, in order.
    pub labels: &'a [Label],
    /// One more label, that comes after them.
    pub label: Option<(&'a str, &'a str)>,
    /// Its value.
    pub reading: Reading,
}

/// All metrics of a proxy. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By flat name.
    entries: Mutex<BTreeMap<String, Entry>>,
    /// By the start of their flat names, with a dot at its end.
    groups: Mutex<BTreeMap<(String, TypeId), Grouped>>,
    /// Families of groups: a few, which clusters by the thousand share.
    families: Mutex<BTreeSet<Arc<str>>>,
    settings: OnceLock<Settings>,
}

impl Registry {
    /// A registry without metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, with settings of the bootstrap.
    pub fn with(settings: Settings) -> Self {
        let registry = Self::default();
        // It is new, so that nobody can have been faster.
        drop(registry.0.settings.set(settings));
        registry
    }

    /// Where metrics get their prefix and labels: `scope("cluster", Some(("envoy_cluster_name",
    /// name)))` makes `cluster.<name>.…` and `envoy_cluster_…{envoy_cluster_name="<name>"}`.
    pub fn scope(&self, kind: &str, label: Option<Label>) -> Scope {
        self.root().scope(kind, label)
    }

    /// A counter whose flat name begins with a label's value, as those of some filters do.
    pub fn prefixed_counter(&self, flat: &str, family: &str, label: Label) -> Counter {
        self.root().labelled_counter(flat, family, label)
    }

    /// The same for a gauge.
    pub fn prefixed_gauge(&self, flat: &str, family: &str, label: Label) -> Gauge {
        let entry = Entry {
            family: family.into(),
            labels: Arc::from([label]),
            value: Value::Gauge(Gauge::default()),
        };
        match &lock(&self.0.entries).entry(flat.to_owned()).or_insert(entry).value {
            Value::Gauge(gauge) => gauge.clone(),
            _ => Gauge::default(),
        }
    }

    /// Shows every metric that the settings do not leave out: groups first, by name, then those that
    /// stand alone, by name.
    pub fn visit(&self, see: &mut dyn FnMut(&Sample<'_>)) {
        let settings = self.settings();
        let mut see = |sample: &Sample<'_>| {
            if settings.accepts(sample.name) {
                see(sample);
            }
        };
        // Nobody who counts shall wait for somebody who reads.
        let groups = lock(&self.0.groups).clone();
        let (mut name, mut family) = (String::new(), String::new());
        let entries = lock(&self.0.entries).clone();
        for ((prefix, _), Grouped { family: start, labels, group }) in &groups {
            group.each(&mut |item, reading| {
                name.clear();
                name.push_str(prefix);
                name.push_str(item.flat);
                // What never happens by itself may be counted by a filter all the same.
                let zero = matches!(reading, Reading::Counter(0) | Reading::Gauge(0));
                if zero && entries.contains_key(&name) {
                    return;
                }
                family.clear();
                family.push_str(start);
                family.extend(item.family.chars().map(|c| if c == '.' { '_' } else { c }));
                let (name, family, label) = (name.as_str(), family.as_str(), item.label);
                see(&Sample { name, family, labels, label, reading });
            });
        }
        for (name, Entry { family, labels, value }) in &entries {
            let reading = match value {
                Value::Counter(counter) => Reading::Counter(counter.get()),
                Value::Gauge(gauge) => Reading::Gauge(gauge.get()),
                Value::Histogram(histogram) => Reading::Histogram(histogram.summary()),
                Value::Text(text) => Reading::Text(text.get()),
            };
            see(&Sample { name, family, labels, label: None, reading });
        }
    }

    /// The value of the metric with this flat name; of a histogram, how many observations; of a text, its length.
    pub fn value(&self, name: &str) -> Option<i64> {
        let mut found = None;
        self.visit(&mut |sample| {
            if sample.name == name {
                found = Some(match &sample.reading {
                    Reading::Counter(count) => i64::try_from(*count).unwrap_or(i64::MAX),
                    Reading::Gauge(level) => *level,
                    Reading::Hash(hash) => i64::try_from(*hash).unwrap_or(i64::MAX),
                    Reading::Histogram(summary) => i64::try_from(summary.count).unwrap_or(i64::MAX),
                    Reading::Text(text) => i64::try_from(text.len()).unwrap_or(i64::MAX),
                });
            }
        });
        found
    }

    /// All counters from zero again.
    pub fn reset(&self) {
        lock(&self.0.groups).values().for_each(|grouped| grouped.group.reset());
        for entry in lock(&self.0.entries).values() {
            if let Value::Counter(counter) = &entry.value {
                counter.reset();
            }
        }
    }

    /// Forget metrics that nobody counts any more.
    pub fn sweep(&self) {
        lock(&self.0.groups).retain(|_, grouped| Arc::strong_count(&grouped.group) > 1);
        lock(&self.0.families).retain(|family| Arc::strong_count(family) > 1);
        lock(&self.0.entries).retain(|_, entry| match &entry.value {
            Value::Counter(counter) => Arc::strong_count(&counter.0) > 1,
            Value::Gauge(gauge) => Arc::strong_count(&gauge.0) > 1,
            Value::Histogram(histogram) => histogram.is_shared(),
            Value::Text(text) => Arc::strong_count(&text.0) > 1,
        });
    }

    /// What the bootstrap says of metrics.
    pub fn settings(&self) -> &Settings {
        self.0.settings.get_or_init(Settings::default)
    }

    fn family(&self, name: &str) -> Arc<str> {
        let mut families = lock(&self.0.families);
        let known = families.get(name).cloned();
        known.unwrap_or_else(|| {
            let family: Arc<str> = name.into();
            families.insert(Arc::clone(&family));
            family
        })
    }

    fn root(&self) -> Scope {
        Scope {
            registry: self.clone(),
            prefix: String::new(),
            family: String::new(),
            labels: Arc::from([]),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under the locks can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// A scope for one of several alike: flat `worker_0.`, Prometheus `worker_…{label="0"}`.
    pub fn numbered(&self, kind: &str, label: Label) -> Self {
        let mut inner = self.clone();
        inner.prefix.push_str(&format!("{kind}_{}.", label.1));
        inner.family.push_str(kind);
        inner.family.push('_');
        inner.labels = self.labels.iter().cloned().chain([label]).collect();
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
        match self.entry(name, || Value::Histogram(Histogram::new(self.bounds(name)))) {
            Value::Histogram(histogram) => histogram,
            _ => Histogram::default(),
        }
    }

    /// A text of this name.
    pub fn text(&self, name: &str) -> Text {
        match self.entry(name, || Value::Text(Text::default())) {
            Value::Text(text) => text,
            _ => Text::default(),
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
        let mut entries = lock(&self.registry.0.entries);
        match &entries.entry(format!("{}{flat}", self.prefix)).or_insert(entry).value {
            Value::Counter(counter) => counter.clone(),
            _ => Counter::default(),
        }
    }

    /// The group of this scope: the one that there is, if it is of this type.
    pub fn group<T: Group>(&self, make: impl FnOnce(&Self) -> T) -> Arc<T> {
        let key = (self.prefix.clone(), TypeId::of::<T>());
        if let Some(grouped) = lock(&self.registry.0.groups).get(&key) {
            let group: Arc<dyn Any + Send + Sync> = Arc::clone(&grouped.group) as _;
            if let Ok(group) = group.downcast::<T>() {
                return group;
            }
        }
        let group = Arc::new(make(self));
        self.show(Arc::clone(&group) as _);
        group
    }

    /// Shows this group under the names of this scope, in place of the one that was there.
    pub fn show(&self, group: Arc<dyn Group>) {
        let grouped = Grouped {
            family: self.registry.family(&self.family),
            labels: Arc::clone(&self.labels),
            group,
        };
        let kind = (*grouped.group).type_id();
        lock(&self.registry.0.groups).insert((self.prefix.clone(), kind), grouped);
    }

    /// The buckets of the histogram of this name.
    pub fn bounds(&self, name: &str) -> Bounds {
        self.registry.settings().bounds(&format!("{}{name}", self.prefix))
    }

    fn entry(&self, name: &str, make: impl FnOnce() -> Value) -> Value {
        let mut entries = lock(&self.registry.0.entries);
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

    fn names(registry: &Registry) -> Vec<(String, String)> {
        let mut all = Vec::new();
        registry.visit(&mut |sample| all.push((sample.name.into(), sample.family.into())));
        all
    }

    #[test]
    fn one_name_is_one_metric_and_goes_when_nobody_counts() {
        let registry = Registry::new();
        let cluster = registry.scope("cluster", Some(("envoy_cluster_name", "a".into())));
        let first = cluster.counter("upstream_rq_total");
        cluster.counter("upstream_rq_total").inc();
        first.inc();
        let expected = ("cluster.a.upstream_rq_total".into(), "cluster_upstream_rq_total".into());
        assert_eq!(names(&registry), [expected]);
        assert_eq!(first.get(), 2);
        registry.sweep();
        assert_eq!(names(&registry).len(), 1);
        drop(first);
        registry.sweep();
        assert!(names(&registry).is_empty());
    }

    metrics! {
        /// Two of a kind.
        struct Pair {
            counters { /// Done.
                done = "deep.done", }
            gauges { /// Open.
                open = "open", }
            histograms { /// Took.
                took = "took_ms", }
            never { counters ["lost"] gauges [] }
        }
    }

    #[test]
    fn a_group_is_one_allocation_and_is_found_again() {
        let registry = Registry::new();
        let scope = registry.scope("cluster", Some(("envoy_cluster_name", "a".into())));
        let first = scope.group(Pair::fresh);
        first.done.inc();
        scope.group(Pair::fresh).done.inc();
        let _open = first.open.guard();
        first.took.record(3.0);
        for (name, value) in [("deep.done", 2), ("open", 1), ("took_ms", 1), ("lost", 0)] {
            assert_eq!(registry.value(&format!("cluster.a.{name}")), Some(value), "{name}");
        }
        let all = names(&registry);
        assert!(all.iter().any(|(_, family)| family == "cluster_deep_done"), "{all:?}");
        registry.reset();
        assert_eq!(first.done.get(), 0);
        assert_eq!(first.open.get(), 1);
        drop(_open);
        drop(first);
        registry.sweep();
        assert!(names(&registry).is_empty());
    }
}
