//! The proxy's own ports: the admin endpoint and the health port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError};

use super::flags::Flags;
use super::health;
use super::hot_restart::Heritage;
use super::sidecar;
use super::state::State;
use crate::admin::{self, Source};
use crate::model::listener::Address;
use crate::net::{Acceptor, ListenOptions};
use crate::xds::translate::bootstrap::Bootstrap;

/// The admin endpoint.
///
/// # Errors
/// Its port cannot be bound.
pub(super) fn start_admin(
    state: &Arc<State>,
    bootstrap: &Bootstrap,
    heritage: &Heritage,
) -> Result<(), String> {
    let Some(address) = bootstrap.admin else { return Ok(()) };
    let acceptor = bind(state, "admin", address, heritage)?;
    let source: Arc<dyn Source> = state.clone();
    let state = Arc::clone(state);
    tokio::spawn(async move {
        state.in_charge.cancelled().await;
        let succeeded = state.succeeded.cancelled();
        if let Err(error) = admin::serve(acceptor, source, succeeded).await {
            tracing::error!(%error, "the admin endpoint ended");
        }
    });
    Ok(())
}

/// The health port, if there shall be one.
///
/// # Errors
/// Its port cannot be bound, or the probes cannot be read.
pub(super) fn start_health(
    state: &Arc<State>,
    flags: &Flags,
    plan: Option<&sidecar::Plan>,
    heritage: &Heritage,
) -> Result<(), String> {
    let probes = health::probes(&flags.app_probes)?;
    let Some(port) = flags.health_port else { return Ok(()) };
    let own = plan.map(|plan| plan.address).or(flags.sidecar.address);
    let address = own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let acceptor = bind(state, "health", (address, port).into(), heritage)?;
    let source: Arc<dyn Source> = state.clone();
    let state = Arc::clone(state);
    tokio::spawn(async move {
        state.in_charge.cancelled().await;
        let serving = health::serve(acceptor, source, probes);
        state.succeeded.run_until_cancelled(serving).await;
    });
    Ok(())
}

/// Bind one of the proxy's own ports, or go on with the socket of the process before this one.
fn bind(
    state: &State,
    name: &str,
    address: SocketAddr,
    heritage: &Heritage,
) -> Result<Acceptor, String> {
    let asked = Address::Socket(address);
    let bound = heritage.inherited.listen(name, &asked, &ListenOptions::default());
    let listener = Arc::new(bound.map_err(|error| format!("{name}: {error}"))?);
    tracing::info!(address = %listener.address(), "{name} endpoint");
    let acceptor = listener.acceptor().map_err(|error| format!("{name}: {error}"))?;
    let mut own = state.own_sockets.lock().unwrap_or_else(PoisonError::into_inner);
    own.push((name.to_owned(), asked, listener));
    Ok(acceptor)
}
