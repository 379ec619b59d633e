//! Retries to other priorities than those that were tried (`previous_priorities`).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Cluster;
use super::balance::mix;
use super::balance::priority::{Counts, Rules, loads_without};
use super::endpoint::{Endpoint, Standing};
use super::set::EndpointSet;

impl Cluster {
    /// An endpoint of another priority than these, by chance and weight. None: the others have
    /// nobody who is well, or the endpoints are chosen by subset.
    ///
    /// This is for retries only, and worked out when it is needed.
    pub(super) fn elsewhere<'s>(
        &self,
        set: &'s EndpointSet,
        leave: &[u32],
        random: u64,
    ) -> Option<&'s Arc<Endpoint>> {
        if set.subsets.is_some() {
            return None;
        }
        let mut levels: BTreeMap<u32, Counts> = BTreeMap::new();
        for at in &set.endpoints {
            let counts = levels.entry(at.priority).or_default();
            counts.count(at.standing(), at.is_excluded(), at.weight);
        }
        let (priorities, counts): (Vec<u32>, Vec<Counts>) = levels.into_iter().unzip();
        let left_out: Vec<bool> = priorities.iter().map(|at| leave.contains(at)).collect();
        let loads = loads_without(&counts, &self.rules(), &left_out)?;
        let roll = (random % 100) as u32;
        let (priority, standing) = drawn(&priorities, (&loads.healthy, &loads.degraded), roll)?;
        let wanted = |at: &&'s Arc<Endpoint>| at.priority == priority && at.standing() == standing;
        let total: u64 = set.endpoints.iter().filter(wanted).map(|at| u64::from(at.weight)).sum();
        let mut at = mix(random) % total.max(1);
        set.endpoints.iter().filter(wanted).find(|one| match at.checked_sub(one.weight.into()) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        })
    }

    fn rules(&self) -> Rules {
        let assignment = Arc::clone(&self.lock().assignment);
        Rules {
            overprovisioning: match assignment.overprovisioning_factor {
                0 => 140,
                factor => factor,
            },
            panic_threshold: self.config.panic_threshold,
            by_weight: assignment.weighted_priority_health,
        }
    }
}

/// The priority that this percent falls to, and which of its endpoints.
fn drawn(
    priorities: &[u32],
    (healthy, degraded): (&[u32], &[u32]),
    roll: u32,
) -> Option<(u32, Standing)> {
    let column = |loads: &[u32], standing| {
        let pairs: Vec<_> = priorities.iter().copied().zip(loads.iter().copied()).collect();
        pairs.into_iter().map(move |(priority, load)| (priority, standing, load))
    };
    let mut upto = 0;
    let all = column(healthy, Standing::Healthy).chain(column(degraded, Standing::Degraded));
    for (priority, standing, load) in all {
        upto += load;
        if roll < upto {
            return Some((priority, standing));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(healthy: u32, all: u32) -> Counts {
        let mut counts = Counts::default();
        for at in 0..all {
            let standing = if at < healthy { Standing::Healthy } else { Standing::Unhealthy };
            counts.count(standing, false, 1);
        }
        counts
    }

    #[test]
    fn a_priority_that_was_tried_gets_nothing_while_others_are_well() {
        let rules = Rules { overprovisioning: 140, panic_threshold: 50, by_weight: false };
        let levels = [level(2, 2), level(1, 4), level(1, 2)];
        let loads = loads_without(&levels, &rules, &[true, false, false]).unwrap();
        // 35 and 70 percent are available.
        assert_eq!(loads.healthy, [0, 35, 65]);
        assert_eq!(drawn(&[0, 1, 2], (&loads.healthy, &loads.degraded), 34).unwrap().0, 1);
        assert_eq!(drawn(&[0, 1, 2], (&loads.healthy, &loads.degraded), 35).unwrap().0, 2);
        assert_eq!(loads_without(&levels, &rules, &[true, true, true]), None);
        assert_eq!(loads_without(&[level(0, 3)], &rules, &[false]), None);
    }
}
