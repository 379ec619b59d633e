//! `LbSubsetConfig`, and the same as a typed policy.

use pillion_xds::envoy::config::cluster::v3::cluster::LbSubsetConfig;
use pillion_xds::envoy::extensions::load_balancing_policies::subset::v3::Subset;

use super::at::At;
use super::common;
use crate::model::Name;
use crate::model::balancing::{Fallback, Selector, SelectorFallback, Subsets};

const LIST: &str = "FALLBACK_LIST is not supported";

/// `Cluster.lb_subset_config`
pub(super) fn legacy(at: &At<'_>, config: &LbSubsetConfig) -> Option<Subsets> {
    let fallback = fallback(&at.field("fallback_policy"), config.fallback_policy)?;
    at.field("metadata_fallback_policy").expect(config.metadata_fallback_policy == 0, LIST)?;
    let selectors = at.field("subset_selectors").each(&config.subset_selectors, |at, selector| {
        let keys = (&*selector.keys, &*selector.fallback_keys_subset);
        self::selector(at, keys, selector.fallback_policy, selector.single_host_per_subset)
    });
    Some(Subsets {
        selectors: distinct(selectors),
        fallback,
        default_subset: config.default_subset.as_ref().map(common::fields).unwrap_or_default(),
        locality_weight_aware: config.locality_weight_aware,
        scale_locality_weight: config.scale_locality_weight,
        panic_mode_any: config.panic_mode_any,
        list_as_any: config.list_as_any,
        allow_redundant_keys: false,
    })
}

/// `envoy.extensions.load_balancing_policies.subset.v3.Subset`, without its `subset_lb_policy`.
pub(super) fn typed(at: &At<'_>, config: &Subset) -> Option<Subsets> {
    let fallback = fallback(&at.field("fallback_policy"), config.fallback_policy)?;
    at.field("metadata_fallback_policy").expect(config.metadata_fallback_policy == 0, LIST)?;
    let selectors = at.field("subset_selectors").each(&config.subset_selectors, |at, selector| {
        let keys = (&*selector.keys, &*selector.fallback_keys_subset);
        self::selector(at, keys, selector.fallback_policy, selector.single_host_per_subset)
    });
    Some(Subsets {
        selectors: distinct(selectors),
        fallback,
        default_subset: config.default_subset.as_ref().map(common::fields).unwrap_or_default(),
        locality_weight_aware: config.locality_weight_aware,
        scale_locality_weight: config.scale_locality_weight,
        panic_mode_any: config.panic_mode_any,
        list_as_any: config.list_as_any,
        allow_redundant_keys: config.allow_redundant_keys,
    })
}

/// Of several selectors with the same keys the first one counts.
fn distinct(selectors: Vec<Selector>) -> Vec<Selector> {
    let mut kept: Vec<Selector> = Vec::new();
    for selector in selectors {
        if !selector.keys.is_empty() && kept.iter().all(|other| other.keys != selector.keys) {
            kept.push(selector);
        }
    }
    kept
}

/// The numbers are the same in both messages.
fn fallback(at: &At<'_>, policy: i32) -> Option<Fallback> {
    match policy {
        0 => Some(Fallback::None),
        1 => Some(Fallback::Any),
        2 => Some(Fallback::Default),
        other => at.refuse(format!("{other} is no fallback policy")),
    }
}

fn selector(
    at: &At<'_>,
    (keys, fewer): (&[String], &[String]),
    policy: i32,
    single_host: bool,
) -> Option<Selector> {
    let keys = sorted(keys);
    if single_host {
        at.field("keys").expect(keys.len() == 1, "single_host_per_subset takes exactly one key")?;
    }
    let fallback = match policy {
        0 => None,
        4 => {
            let fewer = sorted(fewer);
            let fine = !fewer.is_empty()
                && fewer.len() < keys.len()
                && fewer.iter().all(|key| keys.contains(key));
            at.field("fallback_keys_subset").expect(fine, "expected some of the keys, not all")?;
            Some(SelectorFallback::Keys(fewer))
        }
        policy => {
            let fallback = fallback(&at.field("fallback_policy"), policy - 1)?;
            Some(SelectorFallback::To(fallback))
        }
    };
    if policy != 4 {
        at.field("fallback_keys_subset")
            .expect(fewer.is_empty(), "is for fallback_policy KEYS_SUBSET only")?;
    }
    Some(Selector { keys, fallback, single_host })
}

fn sorted(keys: &[String]) -> Vec<Name> {
    let mut keys: Vec<Name> = keys.iter().map(|key| key.as_str().into()).collect();
    keys.sort();
    keys.dedup();
    keys
}
