//! HTTP byte by byte, on both proxies: what is said on the wire, what the backend sees, what the
//! access log and the metrics tell. What real Envoy does decides; where ours differs on purpose, the
//! test says so and why.

mod floods;
mod frames;
mod http1;
mod large;
mod mesh;
mod random_routes;
mod upgrade;
mod wire;
mod world;
