//! Watches the API and keeps the table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, TypeMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::View;
use super::kept::{Kept, Reach};
use super::objects::Resource;
use super::table::{Table, Update};
use crate::intent::{Name, Workload};

/// Quiet time before the table is looked at again: changes come in bursts.
const QUIET: Duration = Duration::from_millis(50);
/// A kind that the cluster does not have is looked for again after this time, and later after twice as long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest pause between two looks for it.
const MAX_LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A state that was kept is in force after this time, if not everything was read by then.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait for quiet.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// What a watcher says.
#[derive(Debug)]
pub(super) enum News {
    /// It happened.
    Update(Resource, Update),
    /// The cluster has no such resource, or does not show it: the mesh works without.
    Without(Resource),
    /// It cannot be read at the moment, and why; or can again.
    Trouble(Resource, Option<String>),
}

/// Where the results go.
pub(super) struct Outlets {
    pub(super) view: watch::Sender<View>,
    pub(super) workloads: watch::Sender<Arc<BTreeMap<Name, Arc<Workload>>>>,
    pub(super) reach: watch::Sender<Reach>,
    pub(super) keep: watch::Sender<Option<Kept>>,
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
                    let error = reason(&error);
                    tracing::warn!(
                        resource = name,
                        error,
                        "cannot read the Kubernetes API; what is known stays in force"
                    );
                    if news.send(News::Trouble(resource, Some(error))).await.is_err() {
                        return Ended::NoListener;
                    }
                }
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            tracing::info!(resource = name, "the Kubernetes API can be read again");
            if news.send(News::Trouble(resource, None)).await.is_err() {
                return Ended::NoListener;
            }
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

/// Takes in what the watchers say, and publishes what comes of it: not before everything was read once. What was `kept`
/// is in force until then, as soon as something cannot be read, or reading takes long.
pub(super) async fn gather(
    mut incoming: mpsc::Receiver<News>,
    out: Outlets,
    mut kept: Option<Kept>,
) {
    let mut known = Known::default();
    let patience = Instant::now() + PATIENCE;
    loop {
        let first = match &kept {
            Some(_) => tokio::time::timeout_at(patience, incoming.recv()).await,
            None => Ok(incoming.recv().await),
        };
        let late = first.is_err();
        match first {
            Ok(Some(first)) => known.take_burst(first, &mut incoming).await,
            Ok(None) => return,
            Err(_) => {}
        }
        if known.waiting.is_empty() {
            kept = None;
            publish(&mut known.table, &out);
        } else if (late || !known.troubles.is_empty())
            && let Some(kept) = kept.take()
        {
            restore(&kept, &out);
        }
        known.tell(&out.reach);
    }
}

/// What the watchers said so far.
struct Known {
    table: Table,
    /// What was not read yet.
    waiting: BTreeSet<Resource>,
    /// What cannot be read at the moment: since when, and why.
    troubles: BTreeMap<Resource, (SystemTime, String)>,
}

impl Default for Known {
    fn default() -> Self {
        Self { table: Table::default(), waiting: Resource::ALL.into(), troubles: BTreeMap::new() }
    }
}

impl Known {
    async fn take_burst(&mut self, first: News, incoming: &mut mpsc::Receiver<News>) {
        self.take(first);
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            let quiet = (Instant::now() + QUIET).min(deadline);
            match tokio::time::timeout_at(quiet, incoming.recv()).await {
                Ok(Some(more)) => self.take(more),
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Update(resource, update) => {
                if matches!(update, Update::Reset(_)) && self.waiting.remove(&resource) {
                    tracing::debug!(resource = resource.api().plural, "was read");
                }
                self.table.apply(resource, update);
            }
            News::Without(resource) => {
                if self.waiting.remove(&resource) {
                    tracing::info!(resource = resource.api().plural, "goes on without");
                }
                self.troubles.remove(&resource);
                self.table.without(resource);
            }
            News::Trouble(resource, Some(why)) => {
                self.troubles.entry(resource).or_insert_with(|| (SystemTime::now(), why));
            }
            News::Trouble(resource, None) => drop(self.troubles.remove(&resource)),
        }
    }

    fn tell(&self, reach: &watch::Sender<Reach>) {
        let first = self.troubles.iter().min_by_key(|(_, (since, _))| *since);
        let away = first
            .map(|(resource, (since, why))| (*since, format!("{}: {why}", resource.api().plural)));
        let read = self.waiting.is_empty();
        reach.send_if_modified(|known| {
            let kept = known.kept.filter(|_| !read);
            if read && !known.read {
                tracing::info!("read the Kubernetes API");
            }
            let now = Reach { read, kept, away };
            let changed = *known != now;
            *known = now;
            changed
        });
    }
}

fn publish(table: &mut Table, out: &Outlets) {
    let workloads = table.workloads();
    out.workloads.send_if_modified(|known| {
        let changed = **known != workloads;
        if changed {
            *known = Arc::new(workloads);
        }
        changed
    });
    out.view.send_replace(table.view());
    let workloads = Arc::clone(&out.workloads.borrow());
    out.keep.send_replace(Some(table.kept(workloads, SystemTime::now())));
}

/// Puts in force what an earlier process knew. Nothing is said about its objects: they may be others by now.
fn restore(kept: &Kept, out: &Outlets) {
    out.workloads.send_replace(Arc::clone(&kept.workloads));
    out.view.send_replace(View { documents: kept.documents(), ..View::default() });
    out.reach.send_modify(|reach| reach.kept = Some(kept.at));
    tracing::warn!(
        at = super::time::rfc3339(kept.at),
        "cannot read the Kubernetes API; serves the last good state that was kept"
    );
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
