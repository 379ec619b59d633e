//! One proxy, its servers, and what was heard; and the same on both sides.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::BoxFuture;
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, DIR, Kind, Proxy, envoy, socket_address};
use pillion_tests::venv::optional;
use pillion_tests::{client, yaml};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How long what should come is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves one connection.
pub(super) type Serve = fn(TcpStream) -> BoxFuture<'static, anyhow::Result<()>>;

/// What both proxies are started with. In YAML, `@name@` is the address of a server.
#[derive(Clone, Copy, Default)]
pub(super) struct Setup {
    /// Laid over the connection manager.
    pub(super) manager: &'static str,
    /// `routes` of the one virtual host.
    pub(super) routes: &'static str,
    /// Laid over every cluster, one a server, of the same name.
    pub(super) clusters: &'static str,
    /// Servers.
    pub(super) servers: &'static [(&'static str, Serve)],
    /// A line of the access log; compared when it is asked for.
    pub(super) log: &'static str,
    /// A line that Envoy's side says, what ours says instead, and why. Where ours is empty: the
    /// beginning of a line that is not compared.
    pub(super) on_purpose: &'static [(&'static str, &'static str, &'static str)],
}

/// One side.
pub(super) struct World {
    pub(super) address: SocketAddr,
    pub(super) proxy: Proxy,
    _servers: JoinSet<()>,
}

/// To route everything to the server `up`.
pub(super) const TO_UP: &str = "[{match: {prefix: /}, route: {cluster: up}}]";

/// Plays a scene on both sides and compares what was noted.
pub(super) async fn same<F>(setup: Setup, play: F) -> anyhow::Result<()>
where
    F: AsyncFn(&World) -> anyhow::Result<Vec<String>>,
{
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let run = async |kind| {
        let world = World::start(kind, setup).await?;
        play(&world).await.with_context(|| format!("{kind:?}"))
    };
    let (theirs, ours) = tokio::try_join!(run(Kind::Envoy), run(Kind::Pillion))?;
    let meant = |line: &String| {
        let found = setup.on_purpose.iter().find(|(envoy, _, _)| line == envoy);
        found.map_or_else(|| line.clone(), |(_, own, _)| (*own).to_owned())
    };
    let expected: Vec<_> = theirs.iter().map(meant).collect();
    let skipped = |line: &str| {
        let start = |entry: &&(&str, &str, &str)| entry.1.is_empty() && line.starts_with(entry.0);
        setup.on_purpose.iter().any(|entry| start(&entry))
    };
    let pairs = (0..expected.len().max(ours.len())).filter_map(|i| {
        let (envoy, own) = (expected.get(i), ours.get(i));
        let skip = envoy.is_some_and(|line| skipped(line));
        (envoy != own && !skip).then(|| format!("{i}:\n  envoy {envoy:?}\n  ours  {own:?}"))
    });
    let pairs: Vec<_> = pairs.collect();
    assert!(pairs.is_empty(), "{} of {}:\n{}", pairs.len(), ours.len(), pairs.join("\n"));
    Ok(())
}

impl World {
    pub(super) async fn start(kind: Kind, setup: Setup) -> anyhow::Result<Self> {
        let mut servers = JoinSet::new();
        let mut clusters = Vec::new();
        for (name, serve) in setup.servers {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            clusters.push(cluster(name, listener.local_addr()?, setup.clusters)?);
            servers.spawn(accept(listener, *serve));
        }
        let port = Port::reserve()?;
        let address = port.address();
        let listener = json!({
            "name": "http",
            "address": socket_address(address),
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": manager(setup)?,
            }]}],
        });
        let mut bootstrap = Bootstrap::of(vec![listener], clusters);
        bootstrap.hold(port);
        let proxy = Proxy::start(kind, bootstrap).await?;
        Ok(Self { address, proxy, _servers: servers })
    }

    pub(super) async fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Lines of the access log, once there are so many.
    pub(super) async fn log(&self, lines: usize) -> anyhow::Result<Vec<String>> {
        let path = self.proxy.dir().join("access.log");
        // Lines that never come are a difference as any other.
        let deadline = Instant::now() + PATIENCE;
        while read_lines(&path).len() < lines && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(read_lines(&path))
    }

    /// Metrics that are not zero, `name: value`, of those named.
    pub(super) async fn stats(&self, names: &[&str]) -> anyhow::Result<Vec<String>> {
        let answer = client::get(self.proxy.admin, "/stats?format=json").await?;
        let answer: Value = serde_json::from_slice(&answer.body)?;
        let all = answer["stats"].as_array().context("no stats")?;
        let all: BTreeMap<&str, u64> = all
            .iter()
            .filter_map(|stat| Some((stat["name"].as_str()?, stat["value"].as_u64()?)))
            .collect();
        Ok(names.iter().map(|name| format!("{name}: {}", all.get(name).unwrap_or(&0))).collect())
    }

    /// The same, once the first of them has this value.
    pub(super) async fn stats_when(
        &self,
        first: u64,
        names: &[&str],
    ) -> anyhow::Result<Vec<String>> {
        let wanted = format!("{}: {first}", names.first().context("a name")?);
        let deadline = Instant::now() + PATIENCE;
        // What is there in the end is compared anyway.
        while self.stats(names).await?.first() != Some(&wanted) && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        self.stats(names).await
    }
}

fn read_lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn accept(listener: TcpListener, serve: Serve) {
    let mut open = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // How it ended is seen on its other side.
        open.spawn(async move { drop(serve(stream).await) });
        while open.try_join_next().is_some() {}
    }
}

fn cluster(name: &str, address: SocketAddr, more: &str) -> anyhow::Result<Value> {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": socket_address(address)}}]},
        ]},
    });
    if !more.is_empty() {
        yaml::merge(&mut cluster, yaml::parse(more)?);
    }
    Ok(cluster)
}

fn manager(setup: Setup) -> anyhow::Result<Value> {
    let routes = if setup.routes.is_empty() { TO_UP } else { setup.routes };
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "generate_request_id": false,
        "route_config": {"name": "table", "virtual_hosts": [
            {"name": "all", "domains": ["*"], "routes": yaml::parse(routes)?},
        ]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    if !setup.log.is_empty() {
        manager["access_log"] = json!([{
            "name": "file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": format!("{DIR}/access.log"),
                "log_format": {"text_format_source": {"inline_string": format!("{}\n", setup.log)}},
            },
        }]);
    }
    if !setup.manager.is_empty() {
        yaml::merge(&mut manager, yaml::parse(setup.manager)?);
    }
    Ok(manager)
}

/// For clusters that speak HTTP/2.
pub(super) const HTTP2: &str = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {allow_connect: true}}";
