//! What endpoints weigh at a moment: as configured, as their reports say, and less while they are
//! new.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::balance::{orca, slow_start};
use super::clock;
use super::endpoint::Endpoint;
use super::live::Cluster;
use super::set::Locality;
use crate::model::balancing::Balancer;

impl Cluster {
    /// What endpoints without a report of their own weigh, where reports decide.
    pub(super) fn median_weight(&self, localities: &[Locality], now: Duration) -> Option<f64> {
        let Balancer::Reported(config) = &self.config.balancer else { return None };
        let endpoints = localities.iter().flat_map(|at| &at.endpoints);
        let reported = endpoints.filter_map(|at| at.host.if_used()?.reported.get(now, config));
        orca::median(&mut reported.collect::<Vec<f64>>())
    }

    pub(super) fn weight(&self, endpoint: &Endpoint, median: Option<f64>, now: Duration) -> f64 {
        let weight = match (&self.config.balancer, median) {
            (Balancer::Reported(config), Some(median)) => {
                let used = endpoint.host.if_used();
                used.and_then(|used| used.reported.get(now, config)).unwrap_or(median)
            }
            _ => f64::from(endpoint.weight),
        };
        match &self.config.balancing.slow_start {
            Some(config) => weight * slow_start::factor(config, endpoint.host.well_for(now)),
            None => weight,
        }
    }

    /// Lays the endpoints out anew if their weights may be others now.
    pub(super) fn refresh(&self) {
        let reported = matches!(self.config.balancer, Balancer::Reported(_));
        if reported || self.is_warming() {
            let state = self.lock();
            self.lay_out(&state);
        } else {
            self.follow_zone();
        }
    }

    /// Whether an endpoint is new, or was when this was last asked: that last change counts too.
    fn is_warming(&self) -> bool {
        let Some(config) = &self.config.balancing.slow_start else { return false };
        let now = clock::now();
        let set = self.set.load();
        let warming = set.endpoints.iter().any(|at| at.host.well_for(now) < config.window);
        self.warming.swap(warming, Ordering::Relaxed) || warming
    }

    pub(super) fn count_subsets(&self, subsets: usize) {
        let (stats, now) = (&self.stats, i64::try_from(subsets).unwrap_or(i64::MAX));
        let before = stats.lb_subsets_active.get();
        match u64::try_from(now - before) {
            Ok(made) => stats.lb_subsets_created.add(made),
            Err(_) => stats.lb_subsets_removed.add(before.abs_diff(now)),
        }
        stats.lb_subsets_active.set(now);
    }
}
