//! What the proxy tells about itself: metrics, access logs, traces, and the reason of every refusal.

pub mod access_log;
pub mod environment;
pub mod export;
pub mod format;
pub(crate) mod hex;
pub mod otlp;
pub mod reason;
mod resource;
pub mod stats;
pub mod time;
pub mod trace;
