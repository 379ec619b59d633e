//! A proxy that has nothing to serve.

use pillion_tests::client;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy};
use serde_json::Value;

/// Someone may start with an empty bootstrap and look at the admin endpoint first.
#[tokio::test]
async fn a_bootstrap_without_resources_is_ready_as_in_envoy() {
    for kind in [Kind::Envoy, Kind::Pillion] {
        let proxy = Proxy::start(kind, Bootstrap::of(vec![], vec![])).await.unwrap();
        let info = client::get(proxy.admin, "/server_info").await.unwrap();
        let info: Value = serde_json::from_slice(&info.body).unwrap();
        assert_eq!(info["state"], "LIVE", "{kind:?}");
    }
}
