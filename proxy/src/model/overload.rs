//! The overload manager (`envoy.config.overload.v3`): what is done when things become scarce.

use std::path::PathBuf;
use std::time::Duration;

use super::Name;

/// `OverloadManager`
#[derive(Clone, Debug, PartialEq)]
pub struct OverloadManager {
    /// How often resources are looked at. Default 1 s.
    pub refresh: Duration,
    /// What is watched.
    pub resources: Vec<Resource>,
    /// What is done.
    pub actions: Vec<Action>,
    /// Where load is refused.
    pub points: Vec<Action>,
    /// How far `reduce_timeouts` goes.
    pub floors: Floors,
    /// Connections of downstreams at most, over all listeners, and the name of that monitor. None: no
    /// limit.
    pub max_connections: Option<(Name, u64)>,
}

impl Default for OverloadManager {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(1),
            resources: Vec::new(),
            actions: Vec::new(),
            points: Vec::new(),
            floors: Floors::default(),
            max_connections: None,
        }
    }
}

/// `ResourceMonitor`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name; triggers say it.
    pub name: Name,
    /// How its pressure, of 0 to 1, is known.
    pub monitor: Monitor,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Monitor {
    /// `fixed_heap`: resident memory, as a share of so many bytes.
    Memory(u64),
    /// `cgroup_memory`: memory of the control group, as a share of its limit, or of so many bytes
    /// where these are less.
    Cgroup(Option<u64>),
    /// `injected_resource`: the number in this file.
    File(PathBuf),
}

/// `OverloadAction`, and `LoadShedPoint`, which is an action under another name.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Its name, for metrics.
    pub name: Name,
    /// What is done.
    pub kind: ActionKind,
    /// By resources, as they stand in [`OverloadManager::resources`]; the strongest counts.
    pub triggers: Vec<(usize, Trigger)>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// New requests are answered with 503.
    StopAcceptingRequests,
    /// Connections end after their request.
    DisableKeepalive,
    /// New connections wait in the kernel.
    StopAcceptingConnections,
    /// New connections are closed at once.
    RejectIncomingConnections,
    /// Timeouts become shorter.
    ReduceTimeouts,
    /// Nothing: the allocator gives memory back by itself. Only told in metrics.
    ShrinkHeap,
    /// The load shed point `http_connection_manager_decode_headers`: as `StopAcceptingRequests`.
    ShedRequests,
    /// The load shed point `tcp_listener_accept`: as `RejectIncomingConnections`.
    ShedConnections,
}

impl ActionKind {
    /// How many there are.
    pub const COUNT: usize = 8;

    /// The action of a configuration's name.
    pub fn action(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("envoy.overload_actions.")? {
            "stop_accepting_requests" => Self::StopAcceptingRequests,
            "disable_http_keepalive" => Self::DisableKeepalive,
            "stop_accepting_connections" => Self::StopAcceptingConnections,
            "reject_incoming_connections" => Self::RejectIncomingConnections,
            "reduce_timeouts" => Self::ReduceTimeouts,
            "shrink_heap" => Self::ShrinkHeap,
            _ => return None,
        })
    }

    /// The load shed point of a configuration's name.
    pub fn point(name: &str) -> Option<Self> {
        Some(match name.strip_prefix("envoy.load_shed_points.")? {
            "http_connection_manager_decode_headers" => Self::ShedRequests,
            "tcp_listener_accept" => Self::ShedConnections,
            _ => return None,
        })
    }
}

/// When an action is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trigger {
    /// Wholly from this pressure on.
    Threshold(f64),
    /// More and more from the first pressure on, wholly from the second.
    Scaled(f64, f64),
}

impl Trigger {
    /// How much of the action a pressure asks for, of 0 to 1.
    pub fn state(self, pressure: f64) -> f64 {
        match self {
            Self::Threshold(from) => f64::from(u8::from(pressure >= from)),
            Self::Scaled(_, to) if pressure >= to => 1.0,
            Self::Scaled(from, to) => ((pressure - from) / (to - from)).clamp(0.0, 1.0),
        }
    }
}

impl Action {
    /// How much of it these pressures ask for; a resource that was never read asks for nothing.
    pub fn state(&self, pressures: &[Option<f64>]) -> f64 {
        let states = self
            .triggers
            .iter()
            .filter_map(|(resource, trigger)| Some(trigger.state((*pressures.get(*resource)?)?)));
        states.fold(0.0, f64::max)
    }
}

/// A timeout that may be reduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// `idle_timeout` of connections.
    ConnectionIdle,
    /// `stream_idle_timeout`
    StreamIdle,
    /// `transport_socket_connect_timeout`
    TransportSocketConnect,
    /// `max_connection_duration`
    ConnectionMax,
}

/// The least that each timeout becomes, by [`Timer`]. None: it stays as it is.
pub type Floors = [Option<Floor>; 4];

/// The least that a timeout becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Floor {
    /// So long.
    Time(Duration),
    /// This share of it, of 0 to 1.
    Share(f64),
}

impl Floor {
    /// A timeout, where so much of `reduce_timeouts` is taken (of 0 to 1).
    pub fn scaled(self, whole: Duration, state: f64) -> Duration {
        let least = match self {
            Self::Time(least) => least.min(whole),
            Self::Share(share) => whole.mul_f64(share.clamp(0.0, 1.0)),
        };
        least + (whole - least).mul_f64(1.0 - state.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_scale_and_the_strongest_counts() {
        let scaled = Trigger::Scaled(0.5, 0.9);
        assert_eq!(scaled.state(0.4), 0.0);
        assert!((scaled.state(0.7) - 0.5).abs() < 1e-9);
        assert_eq!(scaled.state(0.95), 1.0);
        let action = Action {
            name: "a".into(),
            kind: ActionKind::DisableKeepalive,
            triggers: vec![(0, scaled), (1, Trigger::Threshold(0.8))],
        };
        assert!((action.state(&[Some(0.7), Some(0.1)]) - 0.5).abs() < 1e-9);
        assert_eq!(action.state(&[Some(0.7), Some(0.8)]), 1.0);
        assert_eq!(action.state(&[None, None]), 0.0);
    }

    #[test]
    fn timeouts_shrink_to_their_floor() {
        let (whole, floor) = (Duration::from_secs(10), Floor::Time(Duration::from_secs(2)));
        assert_eq!(floor.scaled(whole, 0.0), whole);
        assert_eq!(floor.scaled(whole, 0.5), Duration::from_secs(6));
        assert_eq!(floor.scaled(whole, 1.0), Duration::from_secs(2));
        assert_eq!(Floor::Share(0.3).scaled(whole, 1.0), Duration::from_secs(3));
        let long = Floor::Time(Duration::from_secs(20));
        assert_eq!(long.scaled(whole, 1.0), whole);
    }
}
