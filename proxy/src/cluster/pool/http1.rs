//! HTTP/1.1 connections: one request at a time.

use std::sync::Arc;
use std::time::Instant;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::connection::{Connection, Wire};
use super::{Home, Job};
use crate::http::body::RequestBody;

/// A connection between two requests.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) connection: Arc<Connection>,
    pub(super) since: Instant,
}

impl Idle {
    /// Whether a request may go onto it.
    pub(super) fn is_usable(&self) -> bool {
        self.sender.is_ready()
            && self.connection.expires(self.since).is_none_or(|end| Instant::now() < end)
    }
}

/// Runs a connection until it is closed.
pub(super) fn drive(
    job: &Job,
    connection: &Arc<Connection>,
    driver: http1::Connection<TokioIo<Wire>, RequestBody>,
) {
    let home = Home::of(job);
    let known = Arc::clone(connection);
    let task = tokio::spawn(async move {
        // How it ended, its last request knows. Upgrades take the stream out of it.
        drop(driver.with_upgrades().await);
        home.closed(&known);
    });
    // Nobody else sets it.
    drop(connection.driver.set(task.abort_handle()));
}
