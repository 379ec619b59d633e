//! The Kubernetes API as a source of intent and workloads.
//!
//! `follow` watches, `table` (pure) holds what is known and makes documents and workloads of it, which go the same
//! way as those of a folder. What cannot be read any more stays in force as it was.

pub mod access;
mod classes;
mod election;
pub mod feedback;
mod follow;
mod lease;
mod objects;
mod pods;
mod replicas;
mod report;
mod review;
mod root;
pub mod status;
mod table;
mod time;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, Config};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Documents;
use crate::intent::{Name, Workload};

pub use lease::{Candidate, Leadership};
pub use objects::{Resource, Subject};
pub use review::Account;
pub use root::SharedRoot;

/// Watch events that wait to be taken in.
const QUEUE: usize = 1024;

/// A Kubernetes API and who we are there.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
}

/// Why the Kubernetes API cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is neither a kubeconfig nor a service account.
    #[error("--kubernetes: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// No client can be made of it.
    #[error("--kubernetes: {0}")]
    Client(#[from] kube::Error),
}

/// What the cluster says about the mesh, apart from workloads.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The objects as documents.
    pub documents: Documents,
    /// Those that have a status to be written.
    pub subjects: Arc<Vec<Subject>>,
    /// Namespaces that are part of the mesh.
    pub namespaces: Arc<BTreeSet<String>>,
}

/// A cluster being followed. Ends when it is dropped.
#[derive(Debug)]
pub struct Followed {
    /// Documents and subjects.
    pub view: watch::Receiver<View>,
    /// Pods, and endpoints that are no pods.
    pub workloads: watch::Receiver<Arc<BTreeMap<Name, Arc<Workload>>>>,
    synced: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
}

impl Followed {
    /// Waits until everything was read once. Before that, what is known would look as if half of the mesh were gone.
    pub async fn synced(&mut self) {
        // The sender lives as long as the task, which ends with this handle.
        let _ = self.synced.wait_for(|synced| *synced).await;
    }
}

impl Cluster {
    /// Finds the API by kubeconfig (`KUBECONFIG`, `~/.kube/config`) or, in a pod, by its service account. Does not
    /// talk to it yet. `namespace` is where our own objects are; without one, that of the pod or of the kubeconfig.
    ///
    /// # Errors
    /// [`ClusterError`]
    pub async fn find(namespace: Option<String>) -> Result<Self, ClusterError> {
        let config = Config::infer().await?;
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        tracing::info!(api = %config.cluster_url, namespace, "uses the Kubernetes API");
        Ok(Self { client: Client::try_from(config)?, namespace })
    }

    /// Namespace of our own objects.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Starts to follow everything that concerns the mesh.
    #[must_use]
    pub fn follow(&self) -> Followed {
        let mut tasks = JoinSet::new();
        let (news, incoming) = mpsc::channel(QUEUE);
        for resource in Resource::ALL {
            let versions = resource.versions().into_iter();
            let apis = versions.map(|version| (self.all(&version), version)).collect();
            tasks.spawn(follow::resource(apis, resource, news.clone()));
        }
        let (view, view_out) = watch::channel(View::default());
        let (workloads, workloads_out) = watch::channel(Arc::default());
        let (synced, synced_out) = watch::channel(false);
        tasks.spawn(follow::gather(incoming, follow::Outlets { view, workloads, synced }));
        Followed { view: view_out, workloads: workloads_out, synced: synced_out, _tasks: tasks }
    }

    /// Objects of our own namespace.
    fn own(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, resource)
    }

    /// Objects of the whole cluster.
    fn all(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), resource)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
