//! The log of events: `envoy.data.core.v3.HealthCheckEvent` as JSON, one a line.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::state::{Event, Failure};
use crate::cluster::endpoint::Endpoint;
use crate::model::health_check::Checker;
use crate::model::listener::Address;
use crate::telemetry::time;

/// Appends what happened to an endpoint. A file that cannot be written is a warning: checks go on.
pub(super) fn write(
    path: &Path,
    (cluster, checker): (&str, &Checker),
    endpoint: &Endpoint,
    events: &[Event],
) {
    let now = SystemTime::now();
    let lines: String =
        events.iter().map(|event| line((cluster, checker), endpoint, *event, now)).collect();
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(lines.as_bytes()));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), "events of health checks are lost: {error}");
    }
}

fn line(
    (cluster, checker): (&str, &Checker),
    endpoint: &Endpoint,
    event: Event,
    now: SystemTime,
) -> String {
    let (name, details) = describe(event);
    let mut timestamp = String::new();
    time::write(now, None, &mut timestamp);
    let place = &endpoint.locality;
    let mut object = Map::new();
    object.insert("health_checker_type".into(), kind(checker).into());
    object.insert("host".into(), host(&endpoint.address));
    object.insert("cluster_name".into(), cluster.into());
    object.insert(name.into(), details);
    object.insert("timestamp".into(), timestamp.into());
    object.insert(
        "locality".into(),
        json!({"region": place.region, "zone": place.zone, "sub_zone": place.sub_zone}),
    );
    let mut text = Value::Object(object).to_string();
    text.push('\n');
    text
}

fn describe(event: Event) -> (&'static str, Value) {
    match event {
        Event::Add { first } => ("add_healthy_event", json!({"first_check": first})),
        Event::Eject(why) => ("eject_unhealthy_event", json!({"failure_type": reason(why)})),
        Event::Failed { why, first } => (
            "health_check_failure_event",
            json!({"failure_type": reason(why), "first_check": first}),
        ),
        Event::Succeeded => ("successful_health_check_event", json!({})),
        Event::Degraded => ("degraded_healthy_host", json!({})),
        Event::NoLongerDegraded => ("no_longer_degraded_host", json!({})),
    }
}

fn kind(checker: &Checker) -> &'static str {
    match checker {
        Checker::Http(_) => "HTTP",
        Checker::Tcp(_) => "TCP",
        Checker::Grpc(_) => "GRPC",
    }
}

fn reason(why: Failure) -> &'static str {
    match why {
        Failure::Active | Failure::Retriable => "ACTIVE",
        Failure::Network => "NETWORK",
        Failure::Timeout => "NETWORK_TIMEOUT",
        Failure::Passive => "PASSIVE",
    }
}

fn host(address: &Address) -> Value {
    match address {
        Address::Socket(socket) => json!({"socket_address": {
            "protocol": "TCP",
            "address": socket.ip().to_string(),
            "port_value": socket.port(),
        }}),
        Address::Pipe(path) => json!({"pipe": {"path": path.display().to_string()}}),
    }
}
