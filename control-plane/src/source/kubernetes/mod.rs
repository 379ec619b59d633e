//! The Kubernetes API as a source of intent and workloads.
//!
//! `follow` watches, `table` (pure) holds what is known and makes documents and workloads of it, which go the same
//! way as those of a folder. What cannot be read any more stays in force as it was.

pub mod access;
mod addresses;
mod classes;
mod election;
pub mod feedback;
mod follow;
mod kept;
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

pub use kept::{Kept, Reach};
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
    url: String,
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
    /// How it stands with the API.
    pub reach: watch::Receiver<Reach>,
    /// What another process could go on with; `None` until everything was read once.
    pub kept: watch::Receiver<Option<Kept>>,
    _tasks: JoinSet<()>,
}

impl Followed {
    /// Waits until everything was read once, or cannot be read and there is a state that was kept. Before that, what is
    /// known would look as if half of the mesh were gone.
    pub async fn serves(&mut self) {
        // The sender lives as long as the task, which ends with this handle.
        let _ = self.reach.wait_for(Reach::serves).await;
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
        let url = config.cluster_url.to_string();
        Ok(Self { client: Client::try_from(config)?, namespace, url })
    }

    /// Namespace of our own objects.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Address of the API.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts to follow everything that concerns the mesh. `kept` is what an earlier process knew: it is in force when
    /// the API cannot be read, until it can.
    #[must_use]
    pub fn follow(&self, kept: Option<Kept>) -> Followed {
        let mut tasks = JoinSet::new();
        let (news, incoming) = mpsc::channel(QUEUE);
        for resource in Resource::ALL {
            let versions = resource.versions().into_iter();
            let apis = versions.map(|version| (self.all(&version), version)).collect();
            tasks.spawn(follow::resource(apis, resource, news.clone()));
        }
        let (view, view_out) = watch::channel(View::default());
        let (workloads, workloads_out) = watch::channel(Arc::default());
        let (reach, reach_out) = watch::channel(Reach::default());
        let (keep, kept_out) = watch::channel(None);
        let outlets = follow::Outlets { view, workloads, reach, keep };
        tasks.spawn(follow::gather(incoming, outlets, kept));
        Followed {
            view: view_out,
            workloads: workloads_out,
            reach: reach_out,
            kept: kept_out,
            _tasks: tasks,
        }
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
