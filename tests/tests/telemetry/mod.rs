//! What the proxy tells others: access logs, spans and metrics, as they arrive at their sinks. Where
//! the real Envoy is there, it is told the same things.

mod logs;
mod spans;
mod tail;

use std::net::SocketAddr;

use anyhow::Context;
use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client::{self, Ask};
use pillion_tests::collector::{Collector, Message};
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, envoy, socket_address};
use pillion_tests::venv::optional;
use pillion_tests::wait;
use pillion_tests::yaml;
use serde_json::{Value, json};

/// A proxy with one listener, a backend behind it, and a collector beside it.
pub(crate) struct World {
    pub(crate) proxy: Proxy,
    pub(crate) listener: SocketAddr,
    pub(crate) collector: Collector,
    _backend: Backend,
}

impl World {
    /// `manager` is laid over the connection manager. Clusters: `a`, and `collector`.
    pub(crate) async fn start(kind: Kind, manager: &str) -> anyhow::Result<Self> {
        let backend = Backend::start("a", Speaks::Http1).await?;
        let collector = Collector::start().await?;
        let port = Port::reserve()?;
        let mut http = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "http",
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
                {"name": "teapot", "match": {"prefix": "/teapot"}, "direct_response": {"status": 418}},
                {"name": "r", "match": {"prefix": "/"}, "route": {"cluster": "a"}}]}]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        });
        yaml::merge(&mut http, yaml::parse(manager)?);
        let name = "envoy.filters.network.http_connection_manager";
        let listener = json!({
            "name": "l",
            "address": socket_address(port.address()),
            "filter_chains": [{"filters": [{"name": name, "typed_config": http}]}],
        });
        let cluster = |name: &str, address: SocketAddr| {
            json!({"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment":
                {"cluster_name": name, "endpoints": [{"lb_endpoints":
                    [{"endpoint": {"address": socket_address(address)}}]}]}})
        };
        let mut to_collector = cluster("collector", collector.address);
        yaml::merge(&mut to_collector, yaml::parse(H2)?);
        let plain = cluster("collector-http", collector.address);
        let clusters = vec![cluster("a", backend.address), to_collector, plain];
        let (address, mut bootstrap) = (port.address(), Bootstrap::of(vec![listener], clusters));
        bootstrap.hold(port);
        let proxy = Proxy::start(kind, bootstrap).await?;
        Ok(Self { proxy, listener: address, collector, _backend: backend })
    }

    /// A GET with these headers.
    pub(crate) async fn get(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<client::Answer> {
        let mut ask = Ask::new(Method::GET, path);
        ask.host = "shop.test".to_owned();
        let pairs = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        ask.headers.extend(pairs);
        client::send(self.listener, &ask).await
    }

    /// Waits for what a collector makes of the messages at this path.
    pub(crate) async fn collected<T>(
        &self,
        path: &str,
        read: impl Fn(&[Message]) -> Option<T>,
    ) -> anyhow::Result<T> {
        let what = format!("messages at {path} have arrived");
        let found = || async { read(&self.collector.messages(path)) };
        wait::until(&what, found).await
    }
}

const H2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}";

/// Ours, and the real Envoy where it is there.
pub(crate) fn kinds() -> anyhow::Result<Vec<Kind>> {
    let theirs = optional("Envoy", envoy())?.map(|_| Kind::Envoy);
    Ok(theirs.into_iter().chain([Kind::Pillion]).collect())
}

/// Both sides are to say the same.
pub(crate) fn same(said: &[Value]) -> anyhow::Result<()> {
    let (first, rest) = said.split_first().context("nobody said anything")?;
    let mut different = Vec::new();
    for other in rest {
        differ("", first, other, &mut different);
    }
    assert!(different.is_empty(), "Envoy | ours:\n{}", different.join("\n"));
    Ok(())
}

fn differ(place: &str, one: &Value, other: &Value, out: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let (a, b) = (a.get(key).unwrap_or(&GONE), b.get(key).unwrap_or(&GONE));
                differ(&format!("{place}.{key}"), a, b, out);
            }
        }
        (Value::Array(a), Value::Array(b)) => {
            for index in 0..a.len().max(b.len()) {
                let (a, b) = (a.get(index).unwrap_or(&GONE), b.get(index).unwrap_or(&GONE));
                differ(&format!("{place}[{index}]"), a, b, out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => out.push(format!("{place}: {a} | {b}")),
    }
}

const GONE: Value = Value::Null;
