//! The last good state of a cluster in the data directory, for a start while its API is away.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::files::write_atomically;
use crate::source::kubernetes::Kept;

/// The state as JSON, mode 0600.
pub(crate) const KEPT_FILE: &str = "kubernetes.json";
/// Changes of this long are written together.
const PAUSE: Duration = Duration::from_secs(2);

/// What an earlier process kept of the API at `api`. What cannot be read is told, and nothing.
pub(crate) fn load(data_dir: &Path, api: &str) -> Option<Kept> {
    let path = data_dir.join(KEPT_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the state that was kept");
            return None;
        }
    };
    let read = Kept::from_json(&text, api);
    read.inspect_err(|error| {
        tracing::warn!(path = %path.display(), error, "the state that was kept is of no use");
    })
    .ok()
}

/// Writes every new state there, for ever.
pub(crate) async fn keep(
    data_dir: PathBuf,
    api: String,
    mut states: watch::Receiver<Option<Kept>>,
) {
    let path = data_dir.join(KEPT_FILE);
    let mut failing = false;
    loop {
        let state = states.borrow_and_update().clone();
        if let Some(state) = state {
            let (path, api) = (path.clone(), api.clone());
            let write = move || {
                let text = state.to_json(&api).map_err(io::Error::other)?;
                write_atomically(&path, &text, 0o600)
            };
            let written = tokio::task::spawn_blocking(write).await.map_err(io::Error::other);
            match written.and_then(|written| written) {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        let place = data_dir.join(KEPT_FILE);
                        tracing::warn!(path = %place.display(), %error, "cannot keep the state of the cluster");
                    }
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
        if states.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
