//! Watches the API and keeps the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::View;
use super::objects::Resource;
use super::table::{Table, Update};
use crate::intent::{Name, Workload};

/// Quiet time before the table is looked at again: changes come in bursts.
const QUIET: Duration = Duration::from_millis(50);
/// Longest wait for quiet.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// What a watcher says.
#[derive(Debug)]
pub(super) enum News {
    /// It happened.
    Update(Resource, Update),
    /// The cluster has no such resource, or does not show it: the mesh works without.
    Without(Resource),
}

/// Where the results go.
pub(super) struct Outlets {
    pub(super) view: watch::Sender<View>,
    pub(super) workloads: watch::Sender<Arc<BTreeMap<Name, Arc<Workload>>>>,
    pub(super) synced: watch::Sender<bool>,
}

/// Follows one resource for ever, through errors and lost connections; lists again when its place in the stream is
/// too old for the server (410).
pub(super) async fn resource(
    api: Api<DynamicObject>,
    resource: Resource,
    news: mpsc::Sender<News>,
) {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let name = resource.api().plural;
    let mut listed: Vec<DynamicObject> = Vec::new();
    let mut failing = false;
    while let Some(event) = events.next().await {
        let said = match event {
            Ok(event) => {
                if std::mem::take(&mut failing) {
                    tracing::info!(resource = name, "the Kubernetes API can be read again");
                }
                match event {
                    Event::Init => {
                        listed.clear();
                        continue;
                    }
                    Event::InitApply(object) => {
                        listed.push(object);
                        continue;
                    }
                    Event::InitDone => {
                        News::Update(resource, Update::Reset(std::mem::take(&mut listed)))
                    }
                    Event::Apply(object) => News::Update(resource, Update::Put(Box::new(object))),
                    Event::Delete(object) => {
                        News::Update(resource, Update::Delete(Box::new(object)))
                    }
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        resource = name,
                        error = reason(&error),
                        "cannot read the Kubernetes API; what is known stays in force"
                    );
                }
                if !is_without(resource, &error) {
                    continue;
                }
                News::Without(resource)
            }
        };
        if news.send(said).await.is_err() {
            return;
        }
    }
}

/// Takes in what the watchers say, and publishes what comes of it: not before everything was read once.
pub(super) async fn gather(mut incoming: mpsc::Receiver<News>, out: Outlets) {
    let mut table = Table::default();
    let mut waiting: BTreeSet<Resource> = Resource::ALL.into();
    while let Some(first) = incoming.recv().await {
        take(&mut table, &mut waiting, first);
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            let quiet = (Instant::now() + QUIET).min(deadline);
            match tokio::time::timeout_at(quiet, incoming.recv()).await {
                Ok(Some(more)) => take(&mut table, &mut waiting, more),
                Ok(None) | Err(_) => break,
            }
        }
        if !waiting.is_empty() {
            continue;
        }
        let workloads = table.workloads();
        out.workloads.send_if_modified(|known| {
            let changed = **known != workloads;
            if changed {
                *known = Arc::new(workloads);
            }
            changed
        });
        out.view.send_replace(table.view());
        if !out.synced.send_replace(true) {
            tracing::info!("read the Kubernetes API");
        }
    }
}

fn take(table: &mut Table, waiting: &mut BTreeSet<Resource>, news: News) {
    match news {
        News::Update(resource, update) => {
            if matches!(update, Update::Reset(_)) {
                waiting.remove(&resource);
            }
            table.apply(resource, update);
        }
        News::Without(resource) => {
            if waiting.remove(&resource) {
                tracing::info!(resource = resource.api().plural, "goes on without");
            }
        }
    }
}

/// Whether the mesh can do without what could not be listed: a kind that nobody installed, or nodes.
fn is_without(resource: Resource, error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else { return false };
    match status.code {
        404 => resource.may_be_missing(),
        403 => resource.may_be_forbidden(),
        _ => false,
    }
}

/// An error with what is behind it, in one line.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = inner.source();
    }
    text
}
