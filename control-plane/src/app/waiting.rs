//! What a control plane answers before it can serve: that it lives, that it is not ready, and why.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpListener;

use super::{Listeners, Options, StartError, WebhookOptions, server_names};
use crate::admin::{self, Source, Status};
use crate::ca::{Ca, RootMaterial, ServerCertificate};
use crate::inject::webhook::Health;
use crate::intent::Problem;

/// A start that takes no longer needs no words.
const QUIET: Duration = Duration::from_millis(500);
/// How often the log says that it still waits.
const AGAIN: Duration = Duration::from_secs(30);

/// Answers `/healthz`, `/ready` and `/readyz` until `work` is done, so that nobody ends a process that only waits.
pub(super) async fn meanwhile<T>(
    (listeners, options): (&Listeners, &Options),
    work: impl Future<Output = T>,
) -> Result<T, StartError> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return Ok(done),
        () = tokio::time::sleep(QUIET) => {}
    }
    let waiting = Arc::new(Waiting { since: Instant::now() });
    let admin = admin::serve(again(&listeners.admin)?, waiting.clone());
    let web = web(listeners, options, Arc::clone(&waiting))?;
    tokio::select! {
        done = work => Ok(done),
        () = admin => std::future::pending().await,
        () = web => std::future::pending().await,
        () = waiting.tell() => std::future::pending().await,
    }
}

/// The same socket once more: what is not accepted here is accepted by whoever serves later.
pub(super) fn again(listener: &std::net::TcpListener) -> Result<TcpListener, StartError> {
    let address = listener.local_addr().map_err(StartError::Socket)?;
    tracing::trace!(%address, "serves");
    TcpListener::from_std(listener.try_clone().map_err(StartError::Socket)?)
        .map_err(StartError::Socket)
}

/// Over a certificate of this moment, which the kubelet does not look at.
fn web(
    listeners: &Listeners,
    options: &Options,
    waiting: Arc<Waiting>,
) -> Result<impl Future<Output = ()>, StartError> {
    let webhook: Option<(TcpListener, &WebhookOptions)> =
        match (&listeners.webhook, &options.webhook) {
            (Some(listener), Some(webhook)) => Some((again(listener)?, webhook)),
            _ => None,
        };
    let serving = match webhook {
        None => None,
        Some((listener, webhook)) => {
            let (domain, now) = ("starting.local".parse()?, SystemTime::now());
            let root = RootMaterial::generate(&domain, now)?;
            let ca = Arc::new(Ca::new(domain, &root, options.certificate_ttl, now)?);
            let certificate = Arc::new(ServerCertificate::new(ca, server_names(options), now)?);
            Some(webhook.serve(listener, Arc::new(certificate.web_tls()?), waiting))
        }
    };
    Ok(async move {
        match serving {
            Some(serving) => serving.await,
            None => std::future::pending().await,
        }
    })
}

struct Waiting {
    since: Instant,
}

impl Waiting {
    /// Tells the log, for ever.
    async fn tell(&self) {
        loop {
            tracing::warn!(
                seconds = self.since.elapsed().as_secs(),
                "waits for the Kubernetes API; answers health checks only, and sidecars go on with what they have"
            );
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn why(&self) -> String {
        format!("waits for the Kubernetes API since {} s", self.since.elapsed().as_secs())
    }
}

impl Health for Waiting {
    fn not_ready(&self) -> Option<String> {
        Some(self.why())
    }

    fn metrics(&self) -> String {
        String::new()
    }
}

impl Source for Waiting {
    fn not_ready(&self) -> Option<String> {
        Some(self.why())
    }

    fn status(&self) -> Status {
        Status { version: env!("CARGO_PKG_VERSION").to_owned(), ..Status::default() }
    }

    fn problems(&self) -> Arc<Vec<Problem>> {
        Arc::default()
    }

    fn metrics(&self) -> String {
        String::new()
    }

    fn node_config(&self, _: &str) -> Option<Result<serde_json::Value, String>> {
        None
    }
}
