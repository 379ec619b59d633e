//! Headers of the PROXY protocol: what is decided stays decided when more bytes come, and what was read can be written
//! and read again.

use pillion_proxy::model::proxy_protocol::Header;
use pillion_proxy::net::proxy_protocol::{Found, parse, write};

pub(super) fn target(bytes: &[u8]) {
    let whole = parse(bytes);
    for end in [0, 1, 6, 12, 16, bytes.len() / 2, bytes.len().saturating_sub(1)] {
        let part = parse(&bytes[..end.min(bytes.len())]);
        if part != Found::Undecided {
            assert_eq!(part, whole, "decided after {end} bytes, and otherwise after all");
        }
    }
    let Found::Whole(read) = whole else { return };
    assert!(read.length <= bytes.len(), "{read:?} of {} bytes", bytes.len());
    let written = write(&Header { version: read.version, tlvs: Vec::new() }, read.ends);
    let Found::Whole(again) = parse(&written) else {
        panic!("{read:?} was written as {written:?}")
    };
    assert_eq!((again.ends, again.length), (read.ends, written.len()));
}
