//! CONNECT: a request becomes a byte stream (RFC 9110 section 9.3.6, RFC 9113 section 8.5).
//!
//! The bytes go to an endpoint of the route's cluster as they are. Where that cluster speaks HTTP/2
//! over TLS (every HTTP service of a mesh), they have to be HTTP: they are served here like those of
//! any other connection, so that routes, retries and metrics hold inside of a tunnel too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::admit::Plan;
use super::attempt;
use super::body::ReplyBody;
use super::connection;
use super::exchange::Exchange;
use super::record;
use super::reply::Answer;
use super::upgrade;
use crate::cluster::{
    Cluster, ConnectionPermit, Outcome, PickContext, RequestPermit, ResponseBody,
};
use crate::http::meter::Meter;
use crate::http::upgraded::{OnUpgrade, Upgraded};
use crate::model::cluster::Protocol;
use crate::net::Io;
use crate::net::copy::{self, CopyEnd, CopyOptions, Side};
use crate::telemetry::reason::{Reason, Refusal, Sent};
use crate::telemetry::stats::GaugeGuard;

/// So many endpoints are tried.
const ATTEMPTS: usize = 3;

/// A tunnel that is about to be opened.
pub(super) struct Tunnel {
    /// What the downstream is told.
    pub(super) head: Response<()>,
    pub(super) upgrade: OnUpgrade,
    pub(super) _active: Option<GaugeGuard>,
    pub(super) inside: Inside,
    pub(super) options: CopyOptions,
    pub(super) _permit: Option<RequestPermit>,
}

/// What is at its other end.
pub(super) enum Inside {
    /// A connection of its own.
    Endpoint(Io, ConnectionPermit),
    /// An endpoint that agreed to an upgrade, and the answer that holds the connection.
    Switched(OnUpgrade, Box<ResponseBody>),
    /// This proxy.
    Http,
}

/// Connect to where the tunnel leads.
///
/// # Errors
/// There is nobody, or nobody takes the connection.
pub(super) async fn open(
    exchange: &mut Exchange,
    plan: Plan<'_>,
    authority: String,
) -> Result<Answer, Refusal> {
    let inside = if carries_http(&plan.cluster) {
        Inside::Http
    } else {
        let to = attempt::destination(exchange, &plan.cluster, &authority).await?;
        let leaf = exchange.live.leaf(&plan.cluster, fastrand::u64(..));
        let (io, permit) = dial(exchange, &leaf, to).await?;
        Inside::Endpoint(io, permit)
    };
    let options = upgrade::options(exchange, &plan);
    let Some(upgrade) = exchange.upgrade.take() else {
        let detail = "a request without a stream of bytes cannot become a tunnel";
        return Err(Refusal::local(Reason::UpgradeRefused, StatusCode::BAD_REQUEST, detail));
    };
    let (upgrade, _active) = upgrade.into_bytes();
    exchange.facts.status = Some(StatusCode::OK);
    Ok(Answer::Tunnel(Box::new(Tunnel {
        head: Response::new(()),
        upgrade,
        _active,
        inside,
        options,
        _permit: plan.permit,
    })))
}

/// Answer, and copy from then on.
pub(super) fn start(mut exchange: Box<Exchange>, mut tunnel: Tunnel) -> Response<ReplyBody> {
    let (head, ()) = std::mem::take(&mut tunnel.head).into_parts();
    exchange.meter.get_or_insert_with(|| Meter::new(Instant::now()));
    tokio::spawn(run(exchange, tunnel));
    Response::from_parts(head, ReplyBody::nothing())
}

fn carries_http(cluster: &Cluster) -> bool {
    cluster.config.tls.is_some() && cluster.config.protocol == Protocol::Http2
}

async fn dial(
    exchange: &mut Exchange,
    cluster: &Arc<Cluster>,
    original_dst: Option<SocketAddr>,
) -> Result<(Io, ConnectionPermit), Refusal> {
    let mut tried = Vec::new();
    let behalf = exchange.connection.ends.behalf();
    loop {
        exchange.facts.attempts += 1;
        let endpoint = cluster.pick(&PickContext {
            hash: None,
            avoid: &tried,
            attempts: 3,
            original_dst,
            random: fastrand::u64(..),
            ..PickContext::default()
        })?;
        exchange.facts.endpoint = Some(Arc::clone(&endpoint));
        match cluster.connect(&endpoint, behalf).await {
            Ok(connected) => {
                cluster.record(&endpoint, Outcome::Success);
                return Ok(connected);
            }
            Err(refusal) => {
                cluster.record(&endpoint, Outcome::LocalFailure(refusal.reason));
                tried.push(endpoint);
                if tried.len() >= ATTEMPTS {
                    return Err(refusal);
                }
            }
        }
    }
}

/// The exchange is over when the tunnel is.
async fn run(mut exchange: Box<Exchange>, tunnel: Tunnel) {
    let connection = Arc::clone(&exchange.connection);
    let _guard = connection.drain.guard();
    let mut downstream = match tunnel.upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, "a tunnel was not opened");
            exchange.flag(Reason::DownstreamTermination);
            return;
        }
    };
    let stop = connection.drain.closing();
    record::tunnel_established(&mut exchange);
    match tunnel.inside {
        Inside::Endpoint(mut upstream, _permit) => {
            let ends = (&mut downstream, &mut upstream);
            copy_counted(&mut exchange, ends, tunnel.options, stop).await;
        }
        Inside::Switched(upstream, mut body) => {
            match upstream.await {
                Ok(mut upstream) => {
                    let ends = (&mut downstream, &mut upstream);
                    copy_counted(&mut exchange, ends, tunnel.options, stop).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "an upgrade did not happen");
                    exchange.flag(Reason::ConnectionTermination);
                }
            }
            body.release();
        }
        Inside::Http => exchange.facts.bytes_sent = inside(&exchange, downstream).await,
    }
}

/// Copy until one side ends it, and note what the log tells about that.
async fn copy_counted<U: AsyncRead + AsyncWrite + Unpin>(
    exchange: &mut Exchange,
    (downstream, upstream): (&mut Upgraded, &mut U),
    options: CopyOptions,
    stop: impl Future<Output = ()>,
) {
    let meter = exchange.meter.clone();
    let mut sent = 0;
    let progress = |from, bytes: usize| match (from, &meter) {
        (Side::Downstream, Some(meter)) => meter.progress(bytes as u64, Instant::now()),
        (Side::Downstream, None) => {}
        (Side::Upstream, _) => sent += bytes as u64,
    };
    let copying = copy::bidirectional(downstream, upstream, options, stop, progress);
    let copied = record::meanwhile(exchange, copying).await;
    exchange.facts.bytes_sent = sent;
    match copied.end {
        CopyEnd::Finished | CopyEnd::Stopped => {}
        CopyEnd::Idle => exchange.flag(Reason::StreamIdleTimeout),
        CopyEnd::MaxDuration => exchange.flag(Reason::MaxDuration),
        CopyEnd::Failed { side: Side::Downstream, .. } => {
            exchange.flag(Reason::DownstreamTermination);
        }
        CopyEnd::Failed { side: Side::Upstream, .. } => {
            exchange.flag(Reason::ConnectionTermination);
        }
    }
}

/// Serve what comes through the tunnel as if it had come on a connection of its own.
async fn inside(exchange: &Exchange, mut downstream: Upgraded) -> u64 {
    let connection = &exchange.connection;
    let Ok((mut near, far)) = UnixStream::pair() else { return 0 };
    let (http, ends) = (Arc::clone(&connection.http), Box::new(connection.ends.clone()));
    let serving = connection::serve_http(http, ends, Io::Unix(far), connection.drain.clone());
    // Its requests have time limits of their own.
    let unlimited = CopyOptions { idle: None, max_duration: None, buffers: None };
    let stop = connection.drain.closing();
    let copying = copy::bidirectional(&mut downstream, &mut near, unlimited, stop, |_, _| {});
    let (copied, ()) = tokio::join!(copying, serving);
    copied.from_upstream
}

/// A refusal for a request that names this very proxy as its destination.
pub(super) fn leads_back(authority: &str) -> Refusal {
    Refusal {
        sent: Sent::No,
        ..Refusal::local(
            Reason::NoRoute,
            StatusCode::LOOP_DETECTED,
            format!("`{authority}` is this proxy itself"),
        )
    }
}
