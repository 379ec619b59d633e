//! Listeners and filter chains (`envoy.config.listener.v3`).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Name;
use super::access_log::{AccessLog, LogMoments};
use super::balancing::SubsetMatch;
use super::http::HttpManager;
use super::network_filter::NetworkFilter;
use super::proxy_protocol;
use super::rbac::Matcher;
use super::tls::DownstreamTls;

/// Where a listener binds or a connection goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A TCP socket.
    Socket(SocketAddr),
    /// A Unix domain socket.
    Pipe(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Pipe(path) => path.display().fmt(f),
        }
    }
}

/// Which way the traffic of a listener flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Not said.
    #[default]
    Unspecified,
    /// From other sidecars to this one's application.
    Inbound,
    /// From this sidecar's application to the mesh.
    Outbound,
}

/// One listening socket and what happens to its connections.
#[derive(Debug)]
pub struct Listener {
    /// Unique name; metrics use `stat_prefix`.
    pub name: Name,
    /// Where it binds.
    pub address: Address,
    /// `::` takes IPv4 connections too (`ipv4_compat`).
    pub dual_stack: bool,
    /// Where it binds besides (`additional_addresses`), each with its own `dual_stack`.
    pub additional: Vec<(Address, bool)>,
    /// All of its configuration but the filter chains, as a number: listeners that agree on it differ in filter chains
    /// only.
    pub frame: u128,
    /// Connections to foreign addresses are taken (TPROXY), which needs CAP_NET_ADMIN.
    pub transparent: bool,
    /// Metric prefix: `listener.<stat_prefix>.`; Envoy's default is the address with `:` as `_`.
    pub stat_prefix: Name,
    /// False: never bound, only reached through another listener's `use_original_dst`.
    pub bind_to_port: bool,
    /// Hand redirected connections to the listener that owns their original destination.
    pub use_original_dst: bool,
    /// The overload manager leaves its connections and requests alone.
    pub bypass_overload: bool,
    /// Its connections do not count towards the limit of all.
    pub ignore_connection_limit: bool,
    /// Which way its traffic flows.
    pub direction: Direction,
    /// In order of configuration; the most specific match wins, as in Envoy.
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// Chooses the chain by name, in place of what chains ask for (`filter_chain_matcher`).
    pub chain_tree: Option<Matcher>,
    /// Used when no chain matches. None: such a connection is closed.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// What is read before a chain is chosen.
    pub inspect: Inspect,
    /// How long inspection may take. Zero: for ever. Envoy's default 15 s.
    pub inspect_timeout: Duration,
    /// After the timeout: go on with what is known (true) or close (false).
    pub continue_on_inspect_timeout: bool,
    /// A PROXY header says who the client is. None: connections have none.
    pub proxy_protocol: Option<proxy_protocol::Accept>,
    /// Connections of endpoints come from the client's address, their packets with this mark
    /// (`original_src`; 0: none).
    pub original_src: Option<u32>,
    /// Soft limit of bytes buffered per connection. Default 1 MiB.
    pub buffer_limit: u32,
    /// Length of the accept queue. Default 1024.
    pub backlog: u32,
    /// Written when a connection ends, whatever became of it.
    pub access_log: Vec<AccessLog>,
}

/// What listener filters find out before the filter chain is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inspect {
    /// Recover the destination from before an nftables REDIRECT (`SO_ORIGINAL_DST`).
    pub original_dst: bool,
    /// Recognise TLS and read SNI and ALPN from the ClientHello.
    pub tls: bool,
    /// Recognise HTTP/1 and HTTP/2 in plain text.
    pub http: bool,
}

/// What a connection must look like for a chain. Empty parts match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainMatch {
    /// Original destination port.
    pub destination_port: Option<u16>,
    /// Original destination address.
    pub prefix_ranges: Vec<IpNet>,
    /// SNI, lower case: exact or `*.suffix`.
    pub server_names: Vec<String>,
    /// `tls` or `raw_buffer`.
    pub transport_protocol: Option<Transport>,
    /// ALPN values or `http/1.1`, `h2c` as found by the HTTP inspector.
    pub application_protocols: Vec<String>,
    /// Address of the peer (before any PROXY protocol).
    pub direct_source_prefix_ranges: Vec<IpNet>,
    /// Same host or not.
    pub source_type: SourceType,
    /// Address of the peer.
    pub source_prefix_ranges: Vec<IpNet>,
    /// Port of the peer.
    pub source_ports: Vec<u16>,
}

/// What a connection speaks below the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// `tls`
    Tls,
    /// `raw_buffer`
    RawBuffer,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceType {
    /// From anywhere.
    #[default]
    Any,
    /// From this host: loopback, or source equals destination.
    SameIpOrLoopback,
    /// From another host.
    External,
}

/// What is done with the connections of one kind.
#[derive(Debug)]
pub struct FilterChain {
    /// For logs and dumps.
    pub name: Name,
    /// Which connections.
    pub matches: ChainMatch,
    /// Terminate TLS first. None: plain text.
    pub tls: Option<Arc<DownstreamTls>>,
    /// How long the TLS handshake may take. Zero: for ever. Envoy's default: no limit; ours 15 s.
    pub transport_connect_timeout: Duration,
    /// What is asked before the last filter has the connection, in order.
    pub filters: Vec<NetworkFilter>,
    /// The last filter.
    pub terminal: Terminal,
    /// All of its configuration, as a number: chains that agree on it are the same.
    pub fingerprint: u128,
}

/// The network filter that ends a chain.
#[derive(Clone, Debug, PartialEq)]
pub enum Terminal {
    /// `envoy.filters.network.http_connection_manager`
    Http(Arc<HttpManager>),
    /// `envoy.filters.network.tcp_proxy`
    Tcp(Arc<TcpProxy>),
}

/// `envoy.filters.network.tcp_proxy`
#[derive(Debug, PartialEq)]
pub struct TcpProxy {
    /// `tcp.<stat_prefix>.`
    pub stat_prefix: Name,
    /// Clusters with their weights; one entry for a plain `cluster`.
    pub clusters: Vec<TcpCluster>,
    /// The server name of the client's TLS hello decides instead, where there is one.
    pub by_sni: Option<BySni>,
    /// Ring hash and Maglev pick by the client's address (`hash_policy`).
    pub hash_source: bool,
    /// Close after so long without a byte either way. Default 1 h; None: never.
    pub idle_timeout: Option<Duration>,
    /// Close so long after the connection was made, whatever it does.
    pub max_connection_duration: Option<Duration>,
    /// So much longer at random, in percent of that.
    pub duration_jitter: f64,
    /// How many endpoints are tried. Default 1.
    pub max_connect_attempts: u32,
    /// Written when the connection ends.
    pub access_log: Vec<AccessLog>,
    /// When else.
    pub log_moments: LogMoments,
}

/// Where a TCP proxy goes.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpCluster {
    /// Its name.
    pub name: Name,
    /// Its share.
    pub weight: u32,
    /// What its endpoints have to have in their metadata (`metadata_match`).
    pub subset: Option<SubsetMatch>,
}

/// What the server name of a TLS hello means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BySni {
    /// It is the name of the cluster (`sni_cluster`).
    Cluster,
    /// It is the host to go to, at this port (`sni_dynamic_forward_proxy`); the cluster looks it up.
    Host(u16),
}

impl PartialEq for FilterChain {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl PartialEq for Listener {
    fn eq(&self, other: &Self) -> bool {
        self.frame == other.frame
            && self.filter_chains == other.filter_chains
            && self.default_filter_chain == other.default_filter_chain
    }
}
