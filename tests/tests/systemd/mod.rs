//! What systemd gets: units that it finds well and tight, notices of readiness and life, and sockets that it may hold. A
//! socket plays its part, and `systemd-socket-activate`; and on two machines it does so itself.

mod activation;
mod booted;
mod machine;
mod notices;
mod units;
