//! Headers of a request, made fit to go on: nothing that is for one hop is left, and nobody says of himself what only the
//! proxy may say.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue};
use pillion_proxy::http::forwarded::{self, Hop};
use pillion_proxy::http::hop;
use pillion_proxy::http::presence::Presence;
use pillion_proxy::model::http::HttpManager;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));

/// The first byte chooses the settings, the rest is `name: value`, a line each.
pub(super) fn target(data: &[u8]) {
    let Some((choice, lines)) = data.split_first() else { return };
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else { continue };
        let (name, value) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    hop::strip(&mut headers);
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert!(!headers.contains_key(name), "{name} is for one hop");
    }
    let once = headers.clone();
    hop::strip(&mut headers);
    assert_eq!(headers, once, "what is stripped stays as it is");

    let manager = HttpManager {
        use_remote_address: choice & 1 != 0,
        skip_xff_append: choice & 2 != 0,
        append_x_forwarded_port: choice & 4 != 0,
        xff_num_trusted_hops: u32::from(choice >> 3 & 3),
        ..HttpManager::default()
    };
    let peer = Hop { peer: Some(PEER), port: Some(443), ..Hop::default() };
    let present = Presence::of(&headers);
    let client = forwarded::apply(&mut headers, present, &manager, &peer);
    if manager.use_remote_address && manager.xff_num_trusted_hops == 0 {
        assert_eq!(client, Some(PEER), "nobody in front is trusted");
        let proto = headers.get("x-forwarded-proto");
        assert!(proto.is_some_and(|scheme| scheme == "http"), "{proto:?} over plain text");
    }
    for name in ["x-forwarded-client-cert", "x-envoy-internal", "x-envoy-retry-on"] {
        assert!(!headers.contains_key(name), "a stranger said {name}");
    }
}
