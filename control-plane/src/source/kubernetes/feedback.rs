//! What proxies say about what was sent to them. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::intent::ObjectId;

/// Most proxies that are kept for one object.
const MAX_PROXIES: usize = 20;
/// Most bytes of a proxy's message that are kept.
const MAX_TEXT: usize = 2000;

/// What the proxies of one control plane, or of several, say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feedback {
    /// What is refused of an object (`Kind namespace/name`): the proxy's node id and its words.
    pub refused: BTreeMap<String, BTreeMap<String, String>>,
    /// How many proxies run a Gateway (`namespace/name`).
    pub gateways: BTreeMap<String, usize>,
}

impl Feedback {
    /// A proxy refuses what was made of this object.
    pub fn refuse(&mut self, object: &ObjectId, proxy: &str, text: &str) {
        let of_object = self.refused.entry(object.to_string()).or_default();
        if of_object.len() < MAX_PROXIES {
            let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
            of_object.insert(proxy.to_owned(), text[..end.unwrap_or(0)].to_owned());
        }
    }

    /// Takes in what another control plane heard: of a proxy that both speak of, its words are the same.
    pub fn merge(&mut self, other: Self) {
        for (object, proxies) in other.refused {
            self.refused.entry(object).or_default().extend(proxies);
        }
        for (gateway, count) in other.gateways {
            *self.gateways.entry(gateway).or_default() += count;
        }
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Who refuses what was made of this object, in words; `None` if nobody does.
    #[must_use]
    pub fn of(&self, object: &ObjectId) -> Option<String> {
        let proxies = self.refused.get(&object.to_string())?;
        let (proxy, text) = proxies.first_key_value()?;
        Some(match proxies.len() {
            1 => format!("the proxy {proxy} refuses it: {text}"),
            more => format!("{more} proxies refuse it, such as {proxy}: {text}"),
        })
    }
}
