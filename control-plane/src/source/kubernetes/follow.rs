//! Watches the API and keeps the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, TypeMeta};
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
/// A kind that the cluster does not have is looked for again after this time, and later after twice as long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest pause between two looks for it.
const MAX_LOOK_AGAIN: Duration = Duration::from_secs(30);
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

/// Follows one resource for ever, in the first of its versions that the cluster has, through errors and lost connections;
/// lists again when its place in the stream is too old for the server (410).
pub(super) async fn resource(
    apis: Vec<(Api<DynamicObject>, ApiResource)>,
    resource: Resource,
    news: mpsc::Sender<News>,
) {
    let mut pause = LOOK_AGAIN;
    loop {
        for (api, version) in &apis {
            match version_of(api.clone(), version, resource, &news).await {
                Ended::NoListener => return,
                Ended::Missing => {}
            }
        }
        if news.send(News::Without(resource)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_LOOK_AGAIN);
    }
}

/// Why a version is followed no more.
enum Ended {
    /// Nobody wants to know.
    NoListener,
    /// The cluster does not have it, or does not show it.
    Missing,
}

async fn version_of(
    api: Api<DynamicObject>,
    version: &ApiResource,
    resource: Resource,
    news: &mpsc::Sender<News>,
) -> Ended {
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let name = &version.plural;
    let mut listed: Vec<DynamicObject> = Vec::new();
    let mut failing = false;
    // Items of a list do not say what they are.
    let typed = |mut object: DynamicObject| {
        let (api_version, kind) = (version.api_version.clone(), version.kind.clone());
        object.types = Some(TypeMeta { api_version, kind });
        object
    };
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) if is_without(resource, &error) => return Ended::Missing,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        resource = name,
                        error = reason(&error),
                        "cannot read the Kubernetes API; what is known stays in force"
                    );
                }
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            tracing::info!(resource = name, "the Kubernetes API can be read again");
        }
        let update = match event {
            Event::Init => {
                listed.clear();
                continue;
            }
            Event::InitApply(object) => {
                listed.push(typed(object));
                continue;
            }
            Event::InitDone => Update::Reset(std::mem::take(&mut listed)),
            Event::Apply(object) => Update::Put(Box::new(typed(object))),
            Event::Delete(object) => Update::Delete(Box::new(object)),
        };
        if news.send(News::Update(resource, update)).await.is_err() {
            return Ended::NoListener;
        }
    }
    Ended::NoListener
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
            if matches!(update, Update::Reset(_)) && waiting.remove(&resource) {
                tracing::debug!(resource = resource.api().plural, "was read");
            }
            table.apply(resource, update);
        }
        News::Without(resource) => {
            if waiting.remove(&resource) {
                tracing::info!(resource = resource.api().plural, "goes on without");
            }
            table.without(resource);
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
