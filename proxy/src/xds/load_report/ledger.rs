//! What was counted since the last report: pure, with the time and the counters as arguments.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::config::endpoint::v3 as pb;
use pillion_xds::envoy::service::load_stats::v3::LoadStatsResponse;

use crate::model::Name;
use crate::model::endpoint::Locality;

/// What the server wants to know, and what it was told.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    clusters: BTreeSet<String>,
    all: bool,
    by_endpoint: bool,
    told: BTreeMap<Name, Told>,
}

/// Counters of a cluster when it was last reported.
#[derive(Debug)]
struct Told {
    at: Instant,
    endpoints: BTreeMap<Name, Counts>,
    overflow: u64,
    shed: BTreeMap<Name, u64>,
}

/// Counters of a cluster, since it began.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    pub(super) name: Name,
    /// Of its endpoints, if they come by EDS.
    pub(super) service: Option<Name>,
    pub(super) endpoints: Vec<EndpointLoad>,
    /// Requests that a circuit breaker refused.
    pub(super) overflow: u64,
    /// Requests that `drop_overloads` dropped, by category.
    pub(super) shed: BTreeMap<Name, u64>,
}

/// Counters of an endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct EndpointLoad {
    pub(super) address: Name,
    pub(super) locality: Locality,
    pub(super) priority: u32,
    pub(super) counts: Counts,
    /// Requests under way now.
    pub(super) active: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) issued: u64,
    pub(super) success: u64,
    pub(super) error: u64,
}

impl Counts {
    fn since(self, before: Self) -> Self {
        // A host that went and came back begins anew.
        Self {
            issued: self.issued.saturating_sub(before.issued),
            success: self.success.saturating_sub(before.success),
            error: self.error.saturating_sub(before.error),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            issued: self.issued + other.issued,
            success: self.success + other.success,
            error: self.error + other.error,
        }
    }
}

impl Ledger {
    /// The server says what it wants to know. What was counted before does not count. The interval,
    /// if it wants anything.
    pub(super) fn told(
        &mut self,
        asked: LoadStatsResponse,
        loads: &[Load],
        now: Instant,
    ) -> Option<Duration> {
        self.all = asked.send_all_clusters;
        self.by_endpoint = asked.report_endpoint_granularity;
        self.clusters = asked.clusters.into_iter().collect();
        let wanted = |name: &str| self.all || self.clusters.contains(name);
        self.told.retain(|name, _| wanted(name));
        for load in loads.iter().filter(|load| wanted(&load.name)) {
            self.told.entry(Name::clone(&load.name)).or_insert_with(|| Told::of(load, now));
        }
        let interval = asked.load_reporting_interval?;
        Duration::try_from(interval).ok().filter(|interval| !interval.is_zero())
    }

    /// What was counted since the last report.
    pub(super) fn report(&mut self, loads: &[Load], now: Instant) -> Vec<pb::ClusterStats> {
        let mut all = Vec::new();
        for load in loads {
            if !self.all && !self.clusters.contains(&*load.name) {
                continue;
            }
            let before = self.told.insert(Name::clone(&load.name), Told::of(load, now));
            // A cluster that is new counts from now on.
            let Some(before) = before else { continue };
            all.push(self.cluster(load, &before, now));
        }
        all
    }

    fn cluster(&self, load: &Load, before: &Told, now: Instant) -> pb::ClusterStats {
        let mut localities: BTreeMap<(u32, [&str; 3]), pb::UpstreamLocalityStats> = BTreeMap::new();
        for endpoint in &load.endpoints {
            let before = before.endpoints.get(&endpoint.address).copied().unwrap_or_default();
            let counts = endpoint.counts.since(before);
            if counts == Counts::default() && endpoint.active == 0 {
                continue;
            }
            let place = &endpoint.locality;
            let key = [&*place.region, &*place.zone, &*place.sub_zone];
            let stats = localities.entry((endpoint.priority, key)).or_default();
            let all = Counts {
                issued: stats.total_issued_requests,
                success: stats.total_successful_requests,
                error: stats.total_error_requests,
            };
            let all = all.plus(counts);
            stats.locality = Some(core::Locality {
                region: place.region.to_string(),
                zone: place.zone.to_string(),
                sub_zone: place.sub_zone.to_string(),
            });
            stats.priority = endpoint.priority;
            stats.total_issued_requests = all.issued;
            stats.total_successful_requests = all.success;
            stats.total_error_requests = all.error;
            stats.total_requests_in_progress += endpoint.active;
            if self.by_endpoint {
                stats.upstream_endpoint_stats.push(of_endpoint(endpoint, counts));
            }
        }
        let shed = load.shed.iter().map(|(category, count)| {
            let before = before.shed.get(category).copied().unwrap_or_default();
            (category.to_string(), count.saturating_sub(before))
        });
        let shed: Vec<(String, u64)> = shed.filter(|(_, count)| *count > 0).collect();
        let dropped: u64 = shed.iter().map(|(_, count)| count).sum();
        pb::ClusterStats {
            cluster_name: load.name.to_string(),
            cluster_service_name: load.service.as_deref().unwrap_or_default().to_owned(),
            upstream_locality_stats: localities.into_values().collect(),
            total_dropped_requests: dropped + load.overflow.saturating_sub(before.overflow),
            dropped_requests: shed
                .into_iter()
                .map(|(category, dropped_count)| pb::cluster_stats::DroppedRequests {
                    category,
                    dropped_count,
                })
                .collect(),
            load_report_interval: prost_types::Duration::try_from(now - before.at).ok(),
        }
    }
}

impl Told {
    fn of(load: &Load, now: Instant) -> Self {
        let endpoints = load.endpoints.iter().map(|one| (Name::clone(&one.address), one.counts));
        Self {
            at: now,
            endpoints: endpoints.collect(),
            overflow: load.overflow,
            shed: load.shed.clone(),
        }
    }
}

fn of_endpoint(endpoint: &EndpointLoad, counts: Counts) -> pb::UpstreamEndpointStats {
    pb::UpstreamEndpointStats {
        address: Some(address(&endpoint.address)),
        total_issued_requests: counts.issued,
        total_successful_requests: counts.success,
        total_error_requests: counts.error,
        total_requests_in_progress: endpoint.active,
        ..pb::UpstreamEndpointStats::default()
    }
}

fn address(text: &str) -> core::Address {
    use core::address::Address as Kind;
    let kind = match text.parse::<SocketAddr>() {
        Ok(address) => Kind::SocketAddress(core::SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(
                address.port().into(),
            )),
            ..core::SocketAddress::default()
        }),
        Err(_) => Kind::Pipe(core::Pipe { path: text.to_owned(), ..core::Pipe::default() }),
    };
    core::Address { address: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, issued: u64) -> Load {
        let endpoint = |address: &str, zone: &str| EndpointLoad {
            address: address.into(),
            locality: Locality { zone: zone.into(), ..Locality::default() },
            priority: 0,
            counts: Counts { issued, success: issued, error: 0 },
            active: 0,
        };
        Load {
            name: name.into(),
            service: Some("of-eds".into()),
            endpoints: vec![
                endpoint("10.0.0.1:80", "a"),
                endpoint("10.0.0.2:80", "a"),
                endpoint("10.0.0.3:80", "b"),
            ],
            overflow: issued,
            shed: [(Name::from("lb"), 2 * issued)].into(),
        }
    }

    fn asked(clusters: &[&str], all: bool) -> LoadStatsResponse {
        LoadStatsResponse {
            clusters: clusters.iter().map(ToString::to_string).collect(),
            load_reporting_interval: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
            report_endpoint_granularity: true,
            send_all_clusters: all,
        }
    }

    #[test]
    fn a_report_tells_what_was_counted_since_the_one_before() {
        let (start, mut ledger) = (Instant::now(), Ledger::default());
        let interval = ledger.told(asked(&["a"], false), &[load("a", 5), load("b", 5)], start);
        assert_eq!(interval, Some(Duration::from_secs(3)));
        let later = start + Duration::from_secs(3);
        let report = ledger.report(&[load("a", 7), load("b", 9)], later);
        let [cluster] = report.as_slice() else { panic!("only a was asked for: {report:?}") };
        assert_eq!(cluster.cluster_service_name, "of-eds");
        assert_eq!(cluster.load_report_interval.unwrap().seconds, 3);
        let zones: Vec<(String, u64, usize)> = cluster
            .upstream_locality_stats
            .iter()
            .map(|one| {
                let zone = one.locality.clone().unwrap_or_default().zone;
                (zone, one.total_issued_requests, one.upstream_endpoint_stats.len())
            })
            .collect();
        assert_eq!(zones, [("a".to_owned(), 4, 2), ("b".to_owned(), 2, 1)]);
        assert_eq!(cluster.dropped_requests[0].dropped_count, 4);
        assert_eq!(cluster.total_dropped_requests, 6);

        // Nothing happened: the cluster is told, its localities are not.
        let report = ledger.report(&[load("a", 7)], later);
        assert!(report[0].upstream_locality_stats.is_empty());
        assert_eq!(report[0].total_dropped_requests, 0);
    }

    #[test]
    fn all_clusters_are_told_and_new_ones_from_the_time_they_were_first_seen() {
        let (start, mut ledger) = (Instant::now(), Ledger::default());
        let _ = ledger.told(asked(&[], true), &[load("a", 1)], start);
        assert_eq!(ledger.report(&[load("a", 2), load("b", 8)], start).len(), 1);
        let report = ledger.report(&[load("a", 2), load("b", 9)], start);
        assert_eq!(report.len(), 2);
        assert_eq!(report[1].upstream_locality_stats[0].total_issued_requests, 2);
    }
}
