//! HTTP mechanics: bodies, headers that belong to one hop, paths, identity headers.

pub mod body;
pub mod compression;
pub mod date;
pub mod forwarded;
pub mod frames;
pub mod gather;
pub mod grpc;
pub mod guard;
pub mod h1;
pub mod h2;
pub mod hop;
pub mod meter;
pub mod number;
pub mod path;
pub mod presence;
pub mod replay;
pub mod request_id;
pub mod straight;
pub mod target;
pub mod throttle;
pub mod transform;
pub mod upgrade;
pub mod upgraded;
pub mod wakes;
