//! HTTP/1 on the wire (RFC 9112), for both ends of the proxy: heads, bodies, buffers.
//!
//! Everything here is pure but [`wire`], which reads and writes what it is given. Who is served, and what
//! refuses a request, is not decided here: see [`super::guard`].

pub mod body;
pub mod encode;
pub mod head;
pub mod spelling;
pub mod trailers;
pub mod wire;

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks, and trailers perhaps.
    Chunked,
    /// Whatever comes until the connection is closed.
    UntilClose,
}

/// Bytes that are no HTTP/1, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
