//! Decisions about a request, one a file. Pure: clock and chance are arguments.

pub mod hash;
pub mod jwt;
pub mod rbac;
pub mod retry;
pub mod timeout;
