//! Whose gateways are ours. Pure.

use std::collections::BTreeMap;

use kube::api::DynamicObject;
use serde_json::Value;

use super::objects::Subject;
use super::status::GATEWAY_CONTROLLER;
use crate::intent::GATEWAY_CLASS;

/// A class that is somebody else's, in place of whatever its name is.
const FOREIGN: &str = "of-another-controller";

/// The GatewayClasses of the cluster.
#[derive(Debug, Default)]
pub(super) struct Classes {
    /// By name; `None` is another controller's.
    known: BTreeMap<String, Option<Subject>>,
}

impl Classes {
    /// Takes one in. Whether something is different now.
    pub(super) fn put(&mut self, subject: Subject, object: &DynamicObject) -> bool {
        let is_ours = object.data["spec"]["controllerName"] == GATEWAY_CONTROLLER;
        let name = subject.name.name.clone();
        let before = self.is_ours(&name);
        self.known.insert(name.clone(), is_ours.then_some(subject));
        self.is_ours(&name) != before
    }

    /// Keeps those of these names. Whether something is different now.
    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) -> bool {
        let before = self.known.len();
        self.known.retain(|name, _| keep(name));
        self.known.len() != before
    }

    /// Those that are ours.
    pub(super) fn subjects(&self) -> impl Iterator<Item = &Subject> {
        self.known.values().flatten()
    }

    /// The class by its `controllerName`; where nobody defined our own, its name says enough.
    fn is_ours(&self, class: &str) -> bool {
        match self.known.get(class) {
            Some(known) => known.is_some(),
            None => class == GATEWAY_CLASS,
        }
    }

    /// A Gateway as intent takes it: of our class by its one name, whatever it is called in this cluster; of somebody
    /// else's only that it is there. Whether it is ours.
    pub(super) fn adapt(&self, gateway: &mut DynamicObject) -> bool {
        let spec = &mut gateway.data["spec"];
        let is_ours = spec["gatewayClassName"].as_str().is_none_or(|class| self.is_ours(class));
        match is_ours {
            true if spec["gatewayClassName"].is_string() => {
                spec["gatewayClassName"] = GATEWAY_CLASS.into();
            }
            // The mistake is told.
            true => {}
            false => *spec = Value::from_iter([("gatewayClassName", FOREIGN)]),
        }
        is_ours
    }
}
