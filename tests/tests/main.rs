//! Pillion through real sockets. One binary, so that the harness is linked once.

mod differential;
