//! What answers tell a balancer: how long they took, and how loaded the endpoint says it is.

use std::time::Duration;

use http::HeaderMap;

use super::balance::orca::Report;
use super::clock;
use super::endpoint::Endpoint;
use crate::model::balancing::Balancer;

/// The head of an answer came, to a request sent at `sent`.
pub(super) fn answered(
    balancer: &Balancer,
    endpoint: &Endpoint,
    headers: &HeaderMap,
    sent: Duration,
) {
    match balancer {
        Balancer::PeakEwma(config) => {
            let now = clock::now();
            endpoint.host.used().latency.observe(now.saturating_sub(sent), now, config.decay);
        }
        Balancer::Reported(_) => reported(balancer, endpoint, headers),
        _ => {}
    }
}

/// Headers or trailers came that may report the endpoint's load.
pub(super) fn reported(balancer: &Balancer, endpoint: &Endpoint, headers: &HeaderMap) {
    if let Balancer::Reported(config) = balancer
        && let Some(report) = Report::read(headers)
    {
        endpoint.host.used().reported.report(&report, clock::now(), config);
    }
}
