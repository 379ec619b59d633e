//! `ClusterLoadAssignment`

use std::sync::Arc;

use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::config::endpoint::v3 as pb;

use super::at::At;
use super::common;
use crate::model::endpoint::{
    Assignment, DropOverload, Endpoint, Health, Locality, LocalityEndpoints, Target, Traits,
};
use crate::model::health_check::CheckTarget;

/// What is done with host names in the place of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// They are looked up (DNS clusters).
    Keep,
    /// They are refused.
    Refuse,
}

/// `ClusterLoadAssignment`
pub(super) fn assignment(
    at: &At<'_>,
    config: &pb::ClusterLoadAssignment,
    names: Names,
) -> Option<Assignment> {
    let policy = config.policy.as_ref();
    let drops_at = at.field("policy");
    let drops = policy.map(|policy| policy.drop_overloads.as_slice()).unwrap_or_default();
    let list_at = at.field("endpoints");
    let localities = list_at.each(&config.endpoints, |at, group| locality(at, group, names));
    check_priorities(&list_at, &localities)?;
    Some(Assignment {
        localities,
        drop_overloads: drops_at.field("drop_overloads").each(drops, |_, drop| {
            Some(DropOverload {
                category: drop.category.as_str().into(),
                parts_per_million: drop.drop_percentage.as_ref().map_or(0, common::fraction),
            })
        }),
        overprovisioning_factor: policy
            .and_then(|policy| policy.overprovisioning_factor)
            .unwrap_or(140),
        weighted_priority_health: policy.is_some_and(|policy| policy.weighted_priority_health),
    })
}

/// Priorities must begin with 0 and leave none out.
fn check_priorities(at: &At<'_>, localities: &[LocalityEndpoints]) -> Option<()> {
    let highest = localities.iter().map(|one| one.priority).max().unwrap_or(0);
    for priority in 0..highest {
        let there = localities.iter().any(|one| one.priority == priority);
        at.expect(there, format!("priority {highest} is used, but {priority} is not"))?;
    }
    Some(())
}

fn locality(
    at: &At<'_>,
    group: &pb::LocalityLbEndpoints,
    names: Names,
) -> Option<LocalityEndpoints> {
    let place = group.locality.clone().unwrap_or_default();
    at.field("priority").expect(group.priority <= 128, "must be at most 128")?;
    let load = group.lb_config.is_none();
    at.expect(load, "endpoints by another service (LEDS) are not supported")?;
    let mut last = Traits::plain();
    let endpoints = at.field("lb_endpoints").each(&group.lb_endpoints, |at, one| {
        let made = endpoint(at, one, names, &last)?;
        last = Arc::clone(&made.traits);
        Some(made)
    });
    let place = Locality { region: place.region, zone: place.zone, sub_zone: place.sub_zone };
    Some(LocalityEndpoints {
        locality: place.shared(),
        priority: group.priority,
        weight: group.load_balancing_weight,
        metadata: group.metadata.as_ref().map(common::metadata).unwrap_or_default(),
        endpoints,
    })
}

/// `neighbour`: what is said of another one, which may be the same.
fn endpoint(
    at: &At<'_>,
    config: &pb::LbEndpoint,
    names: Names,
    neighbour: &Arc<Traits>,
) -> Option<Endpoint> {
    use pb::lb_endpoint::HostIdentifier;
    let weight = config.load_balancing_weight.unwrap_or(1);
    at.field("load_balancing_weight").expect(weight >= 1, "must be at least 1")?;
    let Some(HostIdentifier::Endpoint(inner)) = &config.host_identifier else {
        return at.field("endpoint").refuse("is missing");
    };
    let endpoint_at = at.field("endpoint");
    let health = match config.health_status() {
        core::HealthStatus::Unknown | core::HealthStatus::Healthy => Health::Healthy,
        core::HealthStatus::Unhealthy | core::HealthStatus::Timeout => Health::Unhealthy,
        core::HealthStatus::Draining => Health::Draining,
        core::HealthStatus::Degraded => Health::Degraded,
    };
    let address = target(&endpoint_at.field("address"), inner.address.as_ref(), names)?;
    let traits = Traits {
        hostname: inner.hostname.as_str().into(),
        weight,
        health,
        metadata: config.metadata.as_ref().map(common::metadata).unwrap_or_default(),
        check: match &inner.health_check_config {
            Some(check) => check_target(&endpoint_at.field("health_check_config"), check)?,
            None => CheckTarget::default(),
        },
    };
    Some(Endpoint { address, traits: traits.beside(neighbour) })
}

/// `Endpoint.HealthCheckConfig`
fn check_target(at: &At<'_>, config: &pb::endpoint::HealthCheckConfig) -> Option<CheckTarget> {
    let port = match u16::try_from(config.port_value) {
        Ok(0) => None,
        Ok(port) => Some(port),
        Err(_) => return at.field("port_value").refuse("is no port: expected 0 to 65535"),
    };
    Some(CheckTarget {
        port,
        address: match &config.address {
            Some(_) => Some(common::address(&at.field("address"), config.address.as_ref())?),
            None => None,
        },
        hostname: config.hostname.clone(),
        disabled: config.disable_active_health_check,
    })
}

fn target(at: &At<'_>, address: Option<&core::Address>, names: Names) -> Option<Target> {
    use core::address::Address as AddressKind;
    let wanted = at.required(address)?;
    if names == Names::Keep
        && let Some(AddressKind::SocketAddress(socket)) = &wanted.address
        && socket.address.parse::<std::net::IpAddr>().is_err()
    {
        let port = common::port(&at.field("socket_address"), socket)?;
        return Some(Target::Dns(socket.address.as_str().into(), port));
    }
    common::address(at, address).map(Target::Address)
}
