//! The answer of `/api/v1/status`; `pillion status` reads it back.

use serde::{Deserialize, Serialize};

use crate::intent::Problem;

/// The control plane in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Streams that are open, one for each connected node.
    pub nodes: Vec<NodeStatus>,
    /// Workloads that sidecars registered.
    pub workloads: Vec<WorkloadStatus>,
    /// What is wrong with the configuration.
    pub problems: Vec<ProblemStatus>,
}

/// A connected node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// `node.id`; empty until the node introduces itself.
    pub id: String,
    /// `delta` or `sotw`.
    pub protocol: String,
    /// Where it connects from.
    pub address: String,
    /// SPIFFE identity that it proved; empty on the loopback port.
    pub identity: String,
    /// Seconds since it connected.
    pub connected_seconds: u64,
    /// The types that it asked for.
    pub types: Vec<TypeStatus>,
    /// Resources that the control plane holds back, because the node would refuse them.
    pub refusals: Vec<RefusalStatus>,
    /// What it does not get, and why.
    pub warnings: Vec<String>,
}

/// How a node stands with one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeStatus {
    /// `cds`, `eds`, `lds`, `rds` or `sds`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many resources it was sent and should hold.
    pub resources: usize,
    /// Version that was sent last.
    pub sent: Option<String>,
    /// Version that it accepted last.
    pub acked: Option<String>,
    /// How many responses it refused.
    pub nacks: u64,
    /// What it said when it refused the last response.
    pub error: Option<String>,
}

/// A resource that is held back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalStatus {
    /// Its type, as in [`TypeStatus`].
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A registered workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// `namespace/name`.
    pub name: String,
    /// The service that it belongs to.
    pub service: String,
    /// Its address.
    pub address: String,
    /// Whether it takes traffic.
    pub ready: bool,
}

/// A problem as one line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemStatus {
    /// `error` or `warning`.
    pub severity: String,
    /// Place, message and what was expected.
    pub text: String,
}

/// The short form of a problem.
#[must_use]
pub fn problem_status(problem: &Problem) -> ProblemStatus {
    ProblemStatus { severity: problem.severity.to_string(), text: problem.to_string() }
}
