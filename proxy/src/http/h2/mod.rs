//! Streams of HTTP/2 (RFC 9113), for both ends of the proxy: what arrives on one, a body on its way into one, and a stream
//! that has become a tunnel. Frames, windows and header compression are the h2 crate's.

mod arriving;
mod keepalive;
mod pump;
mod tunnel;

use http::HeaderMap;
use http::header::CONTENT_LENGTH;

pub use arriving::Arriving;
pub use keepalive::KeepAlive;
pub use pump::{Broken, Pump};
pub use tunnel::Tunnel;

/// Bytes that the other end may send ahead on a stream, where the configuration says nothing.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// The same for a connection.
pub const CONNECTION_WINDOW: u32 = 4 << 20;

/// `content-length`, if there is just one.
pub fn length(headers: &HeaderMap) -> Option<u64> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let first = lines.next()?;
    if lines.next().is_some() {
        return None;
    }
    first.to_str().ok()?.parse().ok()
}
