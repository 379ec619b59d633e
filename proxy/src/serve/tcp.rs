//! Opaque TCP (`envoy.filters.network.tcp_proxy`): pick, connect, copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use xxhash_rust::xxh64::xxh64;

use super::connection::{Ends, socket};
use super::listener::Tcp;
use super::record;
use crate::cluster::{Cluster, ConnectionPermit, Endpoint, Live, Outcome, PickContext};
use crate::model::balancing::SubsetMatch;
use crate::model::listener::{Address, BySni, TcpCluster};
use crate::net::Io;
use crate::net::copy::{self, CopyEnd, CopyOptions, Side};
use crate::net::drain::Watch;
use crate::telemetry::format::{self, LogKind, Record, Session, WireBytes};
use crate::telemetry::reason::{Reason, Refusal, Sent};

/// A connection to an endpoint.
pub(super) struct Upstream {
    io: Io,
    _permit: ConnectionPermit,
    told: Told,
}

/// When a connection began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    started: Instant,
    wall: SystemTime,
}

/// What the access log tells of a connection, besides its ends.
#[derive(Debug, Default)]
pub(super) struct Told {
    cluster: Option<Arc<Cluster>>,
    endpoint: Option<Arc<Endpoint>>,
    /// Our end of the upstream connection, and its TLS.
    upstream: Option<(String, Option<Session>)>,
    attempts: u32,
    flags: Vec<&'static str>,
    details: Option<&'static str>,
    /// Why it was closed, if a network filter did that.
    termination: Option<String>,
    failure: Option<String>,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Told {
    /// Of a connection that a network filter closed.
    pub(super) fn denied(why: String) -> Self {
        Self { termination: Some(why), ..Self::default() }
    }

    /// Of a connection that no filter chain is for.
    pub(super) fn without_chain() -> Self {
        let flags = vec![Reason::NoRoute.flag()];
        Self { flags, details: Some("filter_chain_not_found"), ..Self::default() }
    }
}

impl Upstream {
    /// Its bytes.
    pub(super) fn io(&self) -> &Io {
        &self.io
    }
}

impl Begun {
    pub(super) fn now() -> Self {
        Self { started: Instant::now(), wall: SystemTime::now() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Connect to an endpoint of the proxy's clusters, for a connection with these ends.
///
/// # Errors
/// There is no endpoint, or none took the connection.
pub(super) async fn dial(proxy: &Tcp, ends: &Ends) -> Result<Upstream, Refusal> {
    let mut told = Told::default();
    let (io, permit) = connect(proxy, ends, &mut told).await?;
    Ok(Upstream { io, _permit: permit, told })
}

/// Serve one connection until either side has gone. With `io` comes the upstream connection, where
/// there is one already.
pub(super) async fn serve(
    proxy: &Tcp,
    ends: &Ends,
    (io, ahead): (Io, Option<Box<Upstream>>),
    drain: Watch,
) -> Told {
    proxy.stats.downstream_cx_total.inc();
    let begun = Begun::now();
    let mut told = Told::default();
    let connected = match ahead.map(|ahead| *ahead) {
        Some(Upstream { io, _permit, told: before }) => {
            told = before;
            Ok((io, _permit))
        }
        None => connect(proxy, ends, &mut told).await,
    };
    match connected {
        Ok((upstream, _permit)) => {
            let local = upstream.local_address().map(|address| address.to_string());
            told.upstream = Some((local.unwrap_or_default(), upstream.tls_facts()));
            if proxy.config.log_moments.start {
                log(proxy, ends, &told, (begun, LogKind::TcpConnected));
            }
            copy(proxy, ends, &mut told, (io, upstream, &drain, begun)).await;
        }
        Err(refusal) => {
            proxy.stats.downstream_cx_no_route.add(u64::from(refusal.reason == Reason::NoCluster));
            told.flags.insert(0, refusal.reason.flag());
            told.failure = Some(refusal.to_string());
            tracing::debug!(%refusal, "no upstream for a TCP connection");
        }
    }
    log(proxy, ends, &told, (begun, LogKind::TcpEnd));
    told
}

/// A network filter did not let a connection pass.
pub(super) fn denied(proxy: &Tcp, ends: &Ends, told: &Told) {
    proxy.stats.downstream_cx_total.inc();
    log(proxy, ends, told, (Begun::now(), LogKind::TcpEnd));
}

/// What access logs show of a connection.
pub(super) fn record_of<'a>(ends: &'a Ends, told: &'a Told, begun: &Begun) -> Record<'a> {
    let (received, sent) =
        (told.received.load(Ordering::Relaxed), told.sent.load(Ordering::Relaxed));
    let upstream = told.upstream.as_ref().map(|(_, tls)| format::Upstream {
        connection_id: 0,
        protocol: None,
        tls: *tls,
        sni: None,
        peer: None,
        local: None,
        wire: Some(WireBytes { received: sent, sent: received }),
    });
    let since = begun.wall.duration_since(SystemTime::UNIX_EPOCH);
    Record {
        kind: LogKind::TcpEnd,
        start: Some(begun.wall),
        duration: Some(begun.elapsed()),
        bytes_received: received,
        bytes_sent: sent,
        wire: Some(WireBytes { received, sent }),
        flags: &told.flags,
        details: told.details,
        termination: told.termination.as_deref(),
        upstream_host: told.endpoint.as_ref().map(|endpoint| endpoint.address_text()),
        upstream_local: told.upstream.as_ref().map(|(local, _)| local.as_str()),
        upstream,
        upstream_cluster: told.cluster.as_ref().map(|cluster| &*cluster.config.name),
        upstream_attempts: told.attempts,
        upstream_transport_failure: told.failure.as_deref(),
        downstream_remote: socket(&ends.remote),
        downstream_direct_remote: socket(&ends.direct),
        downstream_local: ends.destination(),
        downstream_direct_local: socket(&ends.local),
        sni: ends.sni.as_deref(),
        tls: ends.tls,
        peer: ends.peer.as_ref().map(|peer| peer as _),
        filter_chain: Some(&ends.chain),
        listener: Some(&ends.listener),
        unique: since.map_or(0, |since| since.as_nanos()),
        ..Record::default()
    }
}

async fn connect(
    proxy: &Tcp,
    ends: &Ends,
    told: &mut Told,
) -> Result<(Io, ConnectionPermit), Refusal> {
    let live = proxy.context.clusters.load();
    let (cluster, subset) = cluster(proxy, ends, &live)?;
    told.cluster = Some(Arc::clone(&cluster));
    let cluster = live.leaf(&cluster, fastrand::u64(..));
    let destination = match (proxy.config.by_sni, &ends.sni) {
        (Some(BySni::Host(port)), Some(name)) => {
            let looked_up = cluster.forward_to(&format!("{name}:{port}")).await?;
            looked_up.filter(|address| Address::Socket(*address) != ends.local)
        }
        _ => ends.original_dst,
    };
    let client = socket(&ends.remote).filter(|_| proxy.config.hash_source);
    let hash = client.map(|client| xxh64(client.ip().to_string().as_bytes(), 0));
    let mut tried = Vec::new();
    loop {
        told.attempts += 1;
        let endpoint = cluster.pick(&PickContext {
            hash,
            avoid: &tried,
            attempts: 3,
            original_dst: destination,
            subset,
            random: fastrand::u64(..),
            ..PickContext::default()
        })?;
        told.endpoint = Some(Arc::clone(&endpoint));
        match cluster.connect(&endpoint, ends.behalf()).await {
            Ok((io, permit)) => {
                cluster.record(&endpoint, Outcome::Success);
                return Ok((io, permit));
            }
            Err(refusal) => {
                cluster.record(&endpoint, Outcome::LocalFailure(refusal.reason));
                if told.attempts >= proxy.config.max_connect_attempts.max(1) {
                    told.flags.push(Reason::RetryLimitExceeded.flag());
                    return Err(refusal);
                }
                tried.push(endpoint);
            }
        }
    }
}

fn cluster<'p>(
    proxy: &'p Tcp,
    ends: &Ends,
    live: &Live,
) -> Result<(Arc<Cluster>, Option<&'p SubsetMatch>), Refusal> {
    let drawn = draw(proxy, fastrand::u64(..));
    let subset = drawn.and_then(|drawn| drawn.subset.as_ref());
    let name = match (proxy.config.by_sni, &ends.sni) {
        (Some(BySni::Cluster), Some(name)) => name.as_str(),
        _ => drawn.map_or("", |drawn| &drawn.name),
    };
    let cluster = live.cluster(name).cloned().ok_or_else(|| {
        let detail = format!("cluster `{name}` does not exist");
        Refusal::upstream(Reason::NoCluster, Sent::No, detail)
    })?;
    Ok((cluster, subset))
}

fn draw(proxy: &Tcp, random: u64) -> Option<&TcpCluster> {
    let clusters = &proxy.config.clusters;
    let total: u64 = clusters.iter().map(|one| u64::from(one.weight)).sum();
    let mut at = random % total.max(1);
    for one in clusters {
        match at.checked_sub(u64::from(one.weight)) {
            Some(rest) => at = rest,
            None => return Some(one),
        }
    }
    clusters.last()
}

async fn copy(
    proxy: &Tcp,
    ends: &Ends,
    told: &mut Told,
    (mut io, mut upstream, drain, begun): (Io, Io, &Watch, Begun),
) {
    let config = &proxy.config;
    let stats = told.cluster.as_ref().map(|cluster| Arc::clone(&cluster.stats));
    let from_upstream = told.cluster.as_ref().map_or(u32::MAX, |one| one.config.buffer_limit);
    let options = CopyOptions {
        idle: config.idle_timeout,
        max_duration: config
            .max_connection_duration
            .map(|limit| limit.mul_f64(1.0 + fastrand::f64() * config.duration_jitter / 100.0)),
        buffers: Some((at_most(proxy.buffer_limit), at_most(from_upstream))),
    };
    let told_so_far = &*told;
    let progress = |from, bytes: usize| {
        let bytes = bytes as u64;
        match from {
            Side::Downstream => {
                told_so_far.received.fetch_add(bytes, Ordering::Relaxed);
                proxy.stats.downstream_cx_rx_bytes_total.add(bytes);
                if let Some(stats) = &stats {
                    stats.upstream_cx_tx_bytes_total.add(bytes);
                }
            }
            Side::Upstream => {
                told_so_far.sent.fetch_add(bytes, Ordering::Relaxed);
                proxy.stats.downstream_cx_tx_bytes_total.add(bytes);
                if let Some(stats) = &stats {
                    stats.upstream_cx_rx_bytes_total.add(bytes);
                }
            }
        }
    };
    // Bytes of an opaque protocol have no end that we could wait for: they go on until the drain
    // closes what is left.
    let copying = copy::bidirectional(&mut io, &mut upstream, options, drain.closing(), progress);
    let copied = record::every(config.log_moments.interval, copying, || {
        log(proxy, ends, told_so_far, (begun, LogKind::TcpPeriodic));
    })
    .await;
    match copied.end {
        CopyEnd::Idle => proxy.stats.idle_timeout.inc(),
        CopyEnd::MaxDuration => {
            proxy.stats.max_downstream_connection_duration.inc();
            told.flags.push("DT");
        }
        CopyEnd::Failed { error, .. } => told.failure = Some(error.to_string()),
        CopyEnd::Finished | CopyEnd::Stopped => {}
    }
}

/// Larger buffers than the copier's own are of no use.
fn at_most(limit: u32) -> usize {
    (limit as usize).clamp(1, 256 << 10)
}

fn log(proxy: &Tcp, ends: &Ends, told: &Told, (begun, kind): (Begun, LogKind)) {
    if proxy.logger.is_enabled() {
        let record = Record {
            kind,
            local: proxy.local.as_ref().map(|local| local as _),
            ..record_of(ends, told, &begun)
        };
        proxy.logger.log(&record);
    }
}
