//! Bootstrap files in YAML: read, or refused with a place.

use pillion_proxy::xds::translate::bootstrap::bootstrap;
use pillion_xds::envoy::config::bootstrap::v3::Bootstrap;
use pillion_xds::json::{self, UnknownFields};

pub(super) fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let parsed = json::parse::<Bootstrap>(text, UnknownFields::List);
    match parsed {
        Ok(parsed) => {
            let refused = bootstrap(&parsed.message).err().unwrap_or_default();
            for one in refused {
                assert!(!one.reason.is_empty(), "a refusal without a reason at {}", one.field);
            }
        }
        Err(error) => assert!(!error.to_string().is_empty(), "an error without words"),
    }
}
