//! What becomes of a new snapshot, and of certificate files that change.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::state::State;
use crate::model::{Changes, Name, Snapshot};
use crate::serve::ListenerError;
use crate::tls::files;
use crate::xds::client::Publish;
use crate::xds::translate::Resource;
use crate::xds::translate::bootstrap::Bootstrap;

/// What is done with every new snapshot: clusters first, then the listeners that use them.
pub(super) fn publisher(state: Arc<State>) -> Publish {
    let server = state.registry.scope("server", None);
    let initialization = server.histogram("initialization_time_ms");
    Box::new(move |snapshot: Snapshot, changes: &Changes| {
        state.clusters.publish(snapshot, changes);
        let errors = state.server.apply(&state.clusters.load(), changes);
        let first = !state.published.swap(true, Ordering::AcqRel);
        if first && let Some(error) = errors.iter().find(|error| is_fatal(&state, error)) {
            *state.fatal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            state.quit.notify_one();
            return;
        }
        if first {
            initialization.record(state.started.elapsed().as_secs_f64() * 1000.0);
        }
        report(&state, &errors);
    })
}

/// As in Envoy, what the bootstrap itself asks for must be there from the start.
fn is_fatal(state: &State, error: &ListenerError) -> bool {
    !error.is_waiting() && state.fixed.contains(error.listener())
}

/// Names of the listeners that the bootstrap itself asks for.
pub(super) fn static_listeners(bootstrap: &Bootstrap) -> Vec<Name> {
    let name = |resource: &Resource| match resource {
        Resource::Listener(listener) => Some(Arc::clone(&listener.name)),
        _ => None,
    };
    bootstrap.resources.iter().filter_map(name).collect()
}

fn report(state: &State, errors: &[ListenerError]) {
    for error in errors {
        if error.is_waiting() {
            tracing::info!(%error, "the listener waits");
        } else {
            tracing::error!(%error, "the listener cannot be served; the others go on");
        }
    }
    let mut trouble = state.trouble.lock().unwrap_or_else(PoisonError::into_inner);
    *trouble = errors.iter().map(ToString::to_string).collect();
}

/// Certificates in files are read again when they change, and when they are new: between loading and the first look
/// they may have changed as well.
pub(super) async fn watch_files(state: Arc<State>) {
    let mut watch = files::FileWatch::new([]);
    loop {
        let known: Vec<PathBuf> = watch.paths().map(Path::to_owned).collect();
        watch.set(certificate_files(&state.clusters.load().snapshot));
        let is_new = watch.paths().any(|path| !known.iter().any(|one| one == path));
        let changed = watch.poll();
        for path in &changed {
            tracing::info!(path = %path.display(), "a certificate file changed");
        }
        if is_new || !changed.is_empty() {
            state.clusters.reload_tls();
            let live = state.clusters.load();
            let mut errors = state.server.renew(&live.snapshot);
            errors.extend(state.server.start_missing(&live));
            report(&state, &errors);
        }
        tokio::time::sleep(files::DEFAULT_INTERVAL).await;
    }
}

fn certificate_files(snapshot: &Snapshot) -> Vec<PathBuf> {
    let clusters = snapshot.clusters.values().flat_map(|one| one.tls_contexts());
    let upstream = clusters.flat_map(|tls| files::of_context(&tls.common, &snapshot.secrets));
    let listeners = snapshot.listeners.values();
    let chains =
        listeners.flat_map(|one| one.filter_chains.iter().chain(&one.default_filter_chain));
    let downstream = chains
        .filter_map(|chain| chain.tls.as_ref())
        .flat_map(|tls| files::of_context(&tls.common, &snapshot.secrets));
    upstream.chain(downstream).collect()
}
