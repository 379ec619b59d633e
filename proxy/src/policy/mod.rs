//! Decisions about a request, one a file. Pure: clock and chance are arguments.

pub mod admission;
pub mod gradient;
pub mod hash;
pub mod jwt;
pub mod latencies;
pub mod rbac;
pub mod retry;
pub mod timeout;
