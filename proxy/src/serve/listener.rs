//! Step one, accept: a listener as it lives, made from its configuration.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::filter::{self, Filter};
use super::listener_stats::ListenerStats;
use super::network_filter::{self, Gate};
use super::overload::Overload;
use super::server::Context;
use super::stats::{HttpStats, ProxyProtocolStats, TcpStats};
use crate::model::http::HttpManager;
use crate::model::listener::{self as model, Address, Direction};
use crate::model::{Map, Name, tls::Secret};
use crate::net::drain::Drain;
use crate::telemetry::access_log::Logger;
use crate::telemetry::trace::Tracer;
use crate::tls::{self, PeerIdentity, TlsError};

/// A listener that cannot be served.
#[derive(Debug)]
pub enum ListenerError {
    /// Its address cannot be bound.
    Bind {
        /// Name of the listener.
        name: Name,
        /// The address.
        address: Address,
        /// Why.
        error: std::io::Error,
    },
    /// Its TLS cannot be set up.
    Tls {
        /// Name of the listener.
        name: Name,
        /// Name of the filter chain.
        chain: Name,
        /// Why.
        error: TlsError,
    },
}

impl ListenerError {
    /// Name of the listener.
    pub fn listener(&self) -> &Name {
        match self {
            Self::Bind { name, .. } | Self::Tls { name, .. } => name,
        }
    }

    /// Whether a secret that has not arrived is the only trouble: then it is waited for.
    pub fn is_waiting(&self) -> bool {
        matches!(self, Self::Tls { error: TlsError::MissingSecret(_), .. })
    }
}

impl fmt::Display for ListenerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { name, address, error } => {
                write!(f, "listener `{name}`: cannot bind {address}: {error}")
            }
            Self::Tls { name, chain, error } => {
                write!(f, "listener `{name}`, filter chain `{chain}`: {error}")
            }
        }
    }
}

impl std::error::Error for ListenerError {}

/// A listener as it lives.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) config: Arc<model::Listener>,
    pub(super) stats: ListenerStats,
    /// What is written about every connection.
    pub(super) logger: Logger,
    pub(super) proxy_protocol: Option<ProxyProtocolStats>,
    /// As configured, and as it lives: longer than this version of the listener, if the next has the same.
    chains: Vec<(Arc<model::FilterChain>, Arc<Chain>)>,
    pub(super) overload: Arc<Overload>,
    /// Chains whose certificates cannot be used. Their connections are closed; those of the others are served.
    pub(super) broken: Vec<ListenerError>,
}

/// A filter chain as it lives.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) config: Arc<model::FilterChain>,
    /// Replaced when a certificate is renewed; connections keep what they began with.
    pub(super) tls: Option<ArcSwap<rustls::ServerConfig>>,
    pub(super) gates: Vec<Gate>,
    pub(super) terminal: Terminal,
    /// Of its connections. Begins when the chain goes.
    pub(super) drain: Arc<Drain>,
}

/// What serves the connections of a chain.
#[derive(Debug)]
pub(super) enum Terminal {
    Http(Arc<Http>),
    Tcp(Arc<Tcp>),
}

/// A connection manager as it lives.
#[derive(Debug)]
pub(crate) struct Http {
    pub(super) context: Arc<Context>,
    pub(super) manager: Arc<HttpManager>,
    /// What is asked of a request between its route and its admission.
    pub(super) filters: Vec<Filter>,
    pub(super) stats: HttpStats,
    pub(super) logger: Logger,
    pub(super) tracer: Option<Tracer>,
    /// The access log tells what RBAC decided: then it is noted.
    pub(super) tells_rbac: bool,
    /// What is done when things become scarce.
    pub(super) overload: Arc<Overload>,
    pub(super) direction: Direction,
    /// Our own certificate.
    pub(super) local: Option<PeerIdentity>,
}

/// A TCP proxy as it lives.
#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) context: Arc<Context>,
    pub(super) config: Arc<model::TcpProxy>,
    /// Of the listener: most bytes that are buffered from a client.
    pub(super) buffer_limit: u32,
    pub(super) stats: TcpStats,
    pub(super) logger: Logger,
    /// Our own certificate.
    pub(super) local: Option<PeerIdentity>,
}

impl Http {
    /// URI of our own certificate, for `x-forwarded-client-cert`.
    pub(super) fn local_uri(&self) -> Option<&str> {
        self.local.as_ref()?.uri_sans.first().map(String::as_str)
    }
}

impl Listener {
    /// Make everything that the listener's connections will need. Of an earlier version that differs in filter chains
    /// only, those stay that are the same. One bad certificate does not take the others with it.
    ///
    /// # Errors
    /// A secret is missing or unusable, and no chain can do without it.
    pub(super) fn new(
        config: Arc<model::Listener>,
        before: Option<&Self>,
        secrets: &Map<Arc<Secret>>,
        context: &Arc<Context>,
    ) -> Result<Self, ListenerError> {
        let before = before.filter(|before| before.config.frame == config.frame);
        let all = config.filter_chains.iter().chain(&config.default_filter_chain);
        let tls = all.clone().any(|chain| chain.tls.is_some());
        let (registry, prefix) = (&context.registry, &config.stat_prefix);
        let stats = ListenerStats::new(registry, prefix, context.clusters.workers(), tls);
        let (mut chains, mut broken) = (Vec::new(), Vec::new());
        for chain in all {
            if let Some(same) = before.and_then(|before| before.same_chain(chain)) {
                chains.push((Arc::clone(chain), same));
                continue;
            }
            match Chain::new(&config, chain, secrets, context) {
                Ok(made) => chains.push((Arc::clone(chain), Arc::new(made))),
                Err(error) => broken.push(error),
            }
        }
        if chains.is_empty() && !broken.is_empty() {
            return Err(broken.swap_remove(0));
        }
        let logger = Logger::new(&config.access_log, &context.sinks);
        let proxy_protocol = config
            .proxy_protocol
            .as_ref()
            .map(|accept| ProxyProtocolStats::new(&context.registry, &config.stat_prefix, accept));
        let overload = Arc::clone(context.overload_of(&config));
        Ok(Self { config, stats, logger, proxy_protocol, chains, overload, broken })
    }

    /// How many chains serve.
    pub(super) fn served(&self) -> usize {
        self.chains.len()
    }

    /// Whether all chains serve.
    pub(super) fn is_whole(&self) -> bool {
        let default = usize::from(self.config.default_filter_chain.is_some());
        self.chains.len() == self.config.filter_chains.len() + default
    }

    /// The chain for connections that show nothing, if it copies bytes in plain text.
    pub(super) fn blind_chain(&self) -> Option<&Arc<Chain>> {
        let default = self.config.default_filter_chain.as_ref()?;
        let (_, chain) = self.chains.iter().find(|(config, _)| Arc::ptr_eq(config, default))?;
        (chain.tls.is_none() && matches!(chain.terminal, Terminal::Tcp(_))).then_some(chain)
    }

    /// The living side of a chain of this listener's configuration.
    pub(super) fn chain(&self, config: &Arc<model::FilterChain>) -> Option<Arc<Chain>> {
        let (_, chain) = self.chains.iter().find(|(one, _)| Arc::ptr_eq(one, config))?;
        Some(Arc::clone(chain))
    }

    /// The living side of a chain that is configured the same.
    fn same_chain(&self, config: &model::FilterChain) -> Option<Arc<Chain>> {
        let (_, chain) = self.chains.iter().find(|(one, _)| **one == *config)?;
        Some(Arc::clone(chain))
    }

    /// What the connections of each chain wait for.
    pub(super) fn drains(&self) -> impl Iterator<Item = &Arc<Drain>> {
        self.chains.iter().map(|(_, chain)| &chain.drain)
    }

    /// Take renewed certificates into use. A chain whose secret is unusable goes on with what it has; the first of
    /// them is told.
    ///
    /// # Errors
    /// A secret is unusable.
    pub(super) fn renew(&self, secrets: &Map<Arc<Secret>>) -> Result<(), ListenerError> {
        let mut first = Ok(());
        for (_, chain) in &self.chains {
            if let (Some(config), Some(current)) = (&chain.config.tls, &chain.tls) {
                match tls::server_config(config, secrets) {
                    Ok(renewed) => current.store(renewed),
                    Err(error) if first.is_ok() => {
                        first = Err(tls_error(&self.config, &chain.config, error));
                    }
                    Err(_) => {}
                }
            }
        }
        first
    }
}

impl Chain {
    fn new(
        listener: &model::Listener,
        config: &Arc<model::FilterChain>,
        secrets: &Map<Arc<Secret>>,
        context: &Arc<Context>,
    ) -> Result<Self, ListenerError> {
        let server_config = config
            .tls
            .as_ref()
            .map(|context| tls::server_config(context, secrets))
            .transpose()
            .map_err(|error| tls_error(listener, config, error))?;
        let terminal = match &config.terminal {
            model::Terminal::Http(manager) => Terminal::Http(Arc::new(Http {
                context: Arc::clone(context),
                filters: {
                    let registry = &context.registry;
                    let filters = filter::all(&manager.filters, registry, &manager.stat_prefix);
                    filter::begin(&filters, &context.clusters);
                    filters
                },
                stats: HttpStats::new(
                    &context.registry,
                    (&manager.stat_prefix, &listener.stat_prefix),
                ),
                logger: Logger::new(&manager.access_log, &context.sinks),
                tracer: manager
                    .tracing
                    .as_ref()
                    .map(|tracing| Tracer::new(Arc::clone(tracing), context.spans.clone())),
                overload: Arc::clone(context.overload_of(listener)),
                tells_rbac: manager.access_log.iter().any(|log| log.reads(filter::RBAC)),
                direction: listener.direction,
                local: local(config, secrets),
                manager: Arc::clone(manager),
            })),
            model::Terminal::Tcp(proxy) => Terminal::Tcp(Arc::new(Tcp {
                context: Arc::clone(context),
                stats: TcpStats::new(&context.registry, &proxy.stat_prefix),
                logger: Logger::new(&proxy.access_log, &context.sinks),
                buffer_limit: listener.buffer_limit,
                config: Arc::clone(proxy),
                local: local(config, secrets),
            })),
        };
        Ok(Self {
            config: Arc::clone(config),
            tls: server_config.map(ArcSwap::new),
            gates: network_filter::all(&config.filters, &context.registry),
            terminal,
            drain: Arc::default(),
        })
    }
}

fn local(chain: &model::FilterChain, secrets: &Map<Arc<Secret>>) -> Option<PeerIdentity> {
    tls::own_identity(&chain.tls.as_ref()?.common, secrets)
}

fn tls_error(
    listener: &model::Listener,
    chain: &model::FilterChain,
    error: TlsError,
) -> ListenerError {
    ListenerError::Tls { name: Arc::clone(&listener.name), chain: Arc::clone(&chain.name), error }
}
