//! What systemd gets: units that it finds well and tight, notices of readiness and life, and sockets that it may hold.
//! systemd itself does not run here: a socket plays its part, and `systemd-socket-activate`.

mod activation;
mod notices;
mod units;
