//! The first bytes of a connection: what is decided stays decided when more of them come.

use pillion_proxy::model::listener::Inspect;
use pillion_proxy::net::sniff::inspect;

pub(super) fn target(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let what = Inspect { tls: choice & 1 != 0, http: choice & 2 != 0, ..Inspect::default() };
    let whole = inspect(bytes, what);
    for end in [0, 1, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let part = inspect(&bytes[..end.min(bytes.len())], what);
        if !part.need_more {
            assert_eq!(part, whole, "decided after {end} bytes, and otherwise after all");
        }
    }
}
