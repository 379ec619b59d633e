//! What the proxy tells about itself: metrics, access logs, traces, and the reason of every refusal.

pub mod reason;
pub mod stats;
