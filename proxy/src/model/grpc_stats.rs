//! Counting of gRPC calls (`grpc_stats.v3`).

use super::kept::Kept;

/// `grpc_stats.v3.FilterConfig`
#[derive(Debug, Default)]
pub struct GrpcStats {
    /// Of which methods there are metrics of their own.
    pub methods: Methods,
    /// Time to the end of the call as well.
    pub upstream_time: bool,
    /// `.` of service names becomes `_`.
    pub replace_dots: bool,
    /// The metrics, as they were first needed.
    pub kept: Kept,
}

/// Which methods are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Methods {
    /// None.
    #[default]
    None,
    /// These: service and method.
    These(Vec<(String, String)>),
    /// Whatever is called.
    All,
}
