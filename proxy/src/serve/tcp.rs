//! Opaque TCP (`envoy.filters.network.tcp_proxy`): pick, connect, copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use super::connection::Ends;
use super::listener::Tcp;
use super::record;
use crate::cluster::{Cluster, ConnectionPermit, Endpoint, Outcome, PickContext};
use crate::model::listener::Address;
use crate::net::Io;
use crate::net::copy::{self, CopyEnd, CopyOptions, Side};
use crate::net::drain::Watch;
use crate::telemetry::format::{self, LogKind, Record, Session, WireBytes};
use crate::telemetry::reason::{Reason, Refusal};

/// A connection to an endpoint.
pub(super) struct Upstream {
    io: Io,
    _permit: ConnectionPermit,
    told: Told,
}

impl Upstream {
    /// Its bytes.
    pub(super) fn io(&self) -> &Io {
        &self.io
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
    (io, ahead): (Io, Option<Upstream>),
    drain: Watch,
) {
    proxy.stats.downstream_cx_total.inc();
    let (started, wall) = (Instant::now(), SystemTime::now());
    let mut told = Told::default();
    let connected = match ahead {
        Some(Upstream { io, _permit, told: before }) => {
            told = before;
            Ok((io, _permit))
        }
        None => connect(proxy, ends, &mut told).await,
    };
    match connected {
        Ok((upstream, _permit)) => {
            told.connected(&upstream);
            let begun = (started, wall);
            if proxy.config.log_moments.start {
                log(proxy, ends, &told, (begun, LogKind::TcpConnected));
            }
            copy(proxy, ends, (io, upstream), &drain, (&mut told, begun)).await;
        }
        Err(refusal) => {
            proxy.stats.downstream_cx_no_route.inc();
            told.flags.insert(0, refusal.reason.flag());
            told.failure = Some(refusal.to_string());
            tracing::debug!(%refusal, "no upstream for a TCP connection");
        }
    }
    log(proxy, ends, &told, ((started, wall), LogKind::TcpEnd));
}

/// What the access log tells.
#[derive(Default)]
struct Told {
    cluster: Option<Arc<Cluster>>,
    endpoint: Option<Arc<Endpoint>>,
    attempts: u32,
    flags: Vec<&'static str>,
    failure: Option<String>,
    received: u64,
    sent: u64,
    /// Our end of the upstream connection, and its TLS.
    upstream: Option<(String, Option<Session>)>,
}

impl Told {
    fn connected(&mut self, upstream: &Io) {
        let local = upstream.local_address().map(|address| address.to_string());
        self.upstream = Some((local.unwrap_or_default(), upstream.tls_facts()));
    }
}

async fn connect(
    proxy: &Tcp,
    ends: &Ends,
    told: &mut Told,
) -> Result<(Io, ConnectionPermit), Refusal> {
    let live = proxy.context.clusters.load();
    let name = draw(proxy, fastrand::u64(..));
    let cluster = live.cluster(name).cloned().ok_or_else(|| {
        let detail = format!("cluster `{name}` does not exist");
        Refusal::upstream(Reason::NoCluster, crate::telemetry::reason::Sent::No, detail)
    })?;
    told.cluster = Some(Arc::clone(&cluster));
    let cluster = live.leaf(&cluster, fastrand::u64(..));
    let mut tried = Vec::new();
    loop {
        told.attempts += 1;
        let endpoint = cluster.pick(&PickContext {
            hash: None,
            avoid: &tried,
            attempts: 3,
            original_dst: ends.original_dst,
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

fn draw(proxy: &Tcp, random: u64) -> &str {
    let clusters = &proxy.config.clusters;
    let total: u64 = clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut at = random % total.max(1);
    for (name, weight) in clusters {
        match at.checked_sub(u64::from(*weight)) {
            Some(rest) => at = rest,
            None => return name,
        }
    }
    clusters.last().map_or("", |(name, _)| name)
}

async fn copy(
    proxy: &Tcp,
    ends: &Ends,
    (mut io, mut upstream): (Io, Io),
    drain: &Watch,
    (told, begun): (&mut Told, Begun),
) {
    let options = CopyOptions {
        idle: proxy.config.idle_timeout,
        max_duration: proxy.config.max_connection_duration,
    };
    // Bytes of an opaque protocol have no end that we could wait for: they go on until the drain
    // closes what is left.
    let (received, sent) = (AtomicU64::new(0), AtomicU64::new(0));
    let count = |from, bytes: usize| {
        let counter = if from == Side::Downstream { &received } else { &sent };
        counter.fetch_add(bytes as u64, Ordering::Relaxed);
    };
    let copying = copy::bidirectional(&mut io, &mut upstream, options, drain.closing(), count);
    let copied = record::every(proxy.config.log_moments.interval, copying, || {
        told.received = received.load(Ordering::Relaxed);
        told.sent = sent.load(Ordering::Relaxed);
        log(proxy, ends, told, (begun, LogKind::TcpPeriodic));
    })
    .await;
    told.received = copied.from_downstream;
    told.sent = copied.from_upstream;
    proxy.stats.downstream_cx_rx_bytes_total.add(copied.from_downstream);
    proxy.stats.downstream_cx_tx_bytes_total.add(copied.from_upstream);
    match &copied.end {
        CopyEnd::Idle => proxy.stats.idle_timeout.inc(),
        CopyEnd::MaxDuration => proxy.stats.max_downstream_connection_duration.inc(),
        CopyEnd::Failed { error, .. } => told.failure = Some(error.to_string()),
        CopyEnd::Finished | CopyEnd::Stopped => {}
    }
}

/// When a connection was accepted.
type Begun = (Instant, SystemTime);

fn log(proxy: &Tcp, ends: &Ends, told: &Told, ((started, wall), kind): (Begun, LogKind)) {
    if !proxy.logger.is_enabled() {
        return;
    }
    let socket = |address: &Address| match address {
        Address::Socket(address) => Some(*address),
        Address::Pipe(_) => None,
    };
    let address = told.endpoint.as_ref().map(|endpoint| Arc::clone(&endpoint.address_text));
    let bytes = WireBytes { received: told.received, sent: told.sent };
    let upstream = told.upstream.as_ref().map(|(_, tls)| format::Upstream {
        connection_id: 0,
        protocol: None,
        tls: *tls,
        sni: None,
        peer: None,
        local: None,
        wire: Some(WireBytes { received: told.sent, sent: told.received }),
    });
    proxy.logger.log(&Record {
        kind,
        start: Some(wall),
        duration: Some(started.elapsed()),
        bytes_received: told.received,
        bytes_sent: told.sent,
        wire: Some(bytes),
        flags: &told.flags,
        upstream_host: address.as_deref(),
        upstream_local: told.upstream.as_ref().map(|(local, _)| local.as_str()),
        upstream,
        upstream_cluster: told.cluster.as_ref().map(|cluster| &*cluster.config.name),
        upstream_attempts: told.attempts,
        upstream_transport_failure: told.failure.as_deref(),
        downstream_remote: socket(&ends.remote),
        downstream_direct_remote: socket(&ends.direct),
        downstream_local: ends.original_dst.or_else(|| socket(&ends.local)),
        downstream_direct_local: socket(&ends.local),
        sni: ends.sni.as_deref(),
        tls: ends.tls,
        peer: ends.peer.as_ref().map(|peer| peer as _),
        local: proxy.local.as_ref().map(|local| local as _),
        filter_chain: Some(&ends.chain),
        listener: Some(&ends.listener),
        unique: wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos()),
        ..Record::default()
    });
}
