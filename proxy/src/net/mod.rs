//! Sockets: listening, connecting, looking before reading, copying, and leaving in good order.

pub mod accept;
pub mod cgroup;
pub mod chain_match;
pub mod connect;
pub mod copy;
pub mod drain;
pub mod inherit;
pub mod io;
pub mod listen;
pub mod original_dst;
pub mod pass;
pub mod peek;
pub mod proxy_protocol;
pub mod rlimit;
pub mod sniff;
pub mod splice;
#[cfg(test)]
pub mod testing;

pub use accept::Acceptor;
pub use connect::{ConnectOptions, Source, connect};
pub use inherit::Inherited;
pub use io::Io;
pub use listen::{ListenOptions, Listener, listen, listen_with};
pub use original_dst::{original_dst, unmapped};
pub use peek::peek;
