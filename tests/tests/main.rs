//! Pillion through real sockets. One binary, so that the harness is linked once.

#![allow(clippy::large_futures, reason = "a test waits for one future; its size does not matter")]

mod capture;
mod containers;
mod differential;
mod gateway;
mod kubernetes;
mod layers;
mod life;
mod machines;
mod manifests;
mod mesh;
mod nomad;
mod pages;
mod protocols;
mod soak;
mod streams;
mod systemd;
mod telemetry;
mod up;
