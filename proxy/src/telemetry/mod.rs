//! What the proxy tells about itself: metrics, access logs, traces, and the reason of every refusal.

pub mod access_log;
pub mod export;
pub mod format;
pub mod otlp;
pub mod reason;
pub mod stats;
pub mod time;
pub mod trace;
