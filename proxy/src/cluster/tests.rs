//! The parts together, over loopback sockets.

mod answers;
mod http1;
mod http2;
mod membership;
mod picking;
mod straight;
mod streams;
mod tls;
mod weights;
