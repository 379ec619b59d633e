//! Which services select a workload.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::meta::Name;
use super::service::Service;
use super::workload::Workload;
use crate::map::Map;

/// Services by the rarest label that each asks for: a hundred thousand workloads must not each be held against every
/// service.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    services: Map<Name, Arc<Service>>,
    /// By the hash of namespace, label and value: one too many does no harm, each is asked.
    by_label: HashMap<u64, Vec<Arc<Service>>>,
}

impl Selection {
    pub(crate) fn new(services: &Map<Name, Arc<Service>>) -> Self {
        let mut asked: HashMap<u64, usize> = HashMap::new();
        for service in services.values() {
            for label in labels(service) {
                *asked.entry(label).or_default() += 1;
            }
        }
        let mut by_label: HashMap<u64, Vec<Arc<Service>>> = HashMap::new();
        for service in services.values() {
            let rarest = labels(service).min_by_key(|label| asked.get(label).copied());
            if let Some(label) = rarest {
                by_label.entry(label).or_default().push(Arc::clone(service));
            }
        }
        Self { services: services.clone(), by_label }
    }

    /// Every service that selects it, once.
    pub(crate) fn of<'a>(
        &'a self,
        workload: &'a Workload,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let namespace = workload.name.namespace.as_str();
        let named = workload.service.as_ref();
        let named = named.and_then(|name| self.services.get(&Name::new(namespace, name.as_str())));
        // An `app` may follow from the service.
        let app = workload.label("app").map(|app| ("app", app));
        let others = workload.labels.iter().filter(|(label, _)| *label != "app");
        let all = others.map(|(label, value)| (label.as_str(), value.as_str())).chain(app);
        let labels = all.map(move |(label, value)| hash(namespace, label, value));
        let by_label = labels.filter_map(|label| self.by_label.get(&label)).flatten();
        let by_label =
            by_label.filter(move |service| named.is_none_or(|named| named.name != service.name));
        named.into_iter().chain(by_label.filter(|service| service.selects(workload)))
    }
}

fn labels(service: &Service) -> impl Iterator<Item = u64> {
    let namespace = service.name.namespace.as_str();
    service.selector.iter().map(move |(label, value)| hash(namespace, label, value))
}

fn hash(namespace: &str, label: &str, value: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (namespace, label, value).hash(&mut hasher);
    hasher.finish()
}
