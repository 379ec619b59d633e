//! What the proxies of all replicas say, brought together where the status of objects is written.
//!
//! Every control plane that has something to say keeps a Lease of its own, with an annotation, and renews it; the one
//! that leads reads them all. So no two of them write the same object. A Lease that is not renewed any more is deleted.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::feedback::Feedback;
use super::objects::api_resource;
use super::{Cluster, Leadership, time};

/// How often a replica looks for news of its proxies, and the leader for news of the others.
const LOOK: Duration = Duration::from_secs(2);
/// How often a Lease is renewed without news.
const RENEW: Duration = Duration::from_secs(20);
/// A Lease that was not renewed for so long is forgotten.
const LIFE: Duration = Duration::from_secs(60);
/// Label of these Leases.
const LABEL: &str = "pillion.io/feedback";
/// Annotation with what is said, in JSON.
const ANNOTATION: &str = "pillion.io/feedback";
/// Largest annotation, in bytes; Kubernetes takes 256 KiB of all of them.
const MAX_SAID: usize = 128 << 10;
/// Who the fields that we set belong to.
const MANAGER: &str = "pillion-control-plane";

impl Cluster {
    /// For ever: says what `own` returns, and, while this control plane leads, sends on what all say together.
    pub async fn exchange(
        &self,
        identity: &str,
        own: impl Fn() -> Feedback,
        (leadership, all): (Leadership, watch::Sender<Option<Feedback>>),
    ) {
        let mut mouth = Mouth::new(identity);
        let mut ears = Ears::default();
        loop {
            let said = own();
            if let Err(error) = mouth.say(self, &said).await {
                tracing::debug!(%error, "cannot write what the proxies say");
            }
            if !leadership.is_leader() {
                all.send_if_modified(|known| known.take().is_some());
            } else {
                match ears.hear(self, &mouth.name).await {
                    Ok(others) => {
                        let mut together = said;
                        others.into_iter().for_each(|one| together.merge(one));
                        all.send_if_modified(|known| {
                            let together = Some(together);
                            let changed = *known != together;
                            *known = together;
                            changed
                        });
                    }
                    Err(error) => tracing::debug!(%error, "cannot read what other proxies say"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Our own Lease.
struct Mouth {
    name: String,
    identity: String,
    /// What stands there, and since when.
    said: Option<(Feedback, Instant)>,
}

impl Mouth {
    fn new(identity: &str) -> Self {
        // Pod names are DNS labels; the rest of an identity is `_` and hexadecimal.
        let name = format!("pillion-feedback-{}", identity.to_lowercase().replace('_', "-"));
        Self { name, identity: identity.to_owned(), said: None }
    }

    async fn say(&mut self, cluster: &Cluster, feedback: &Feedback) -> kube::Result<()> {
        let leases = cluster.own(&resource());
        let known = self.said.as_ref();
        if feedback.is_empty() {
            if known.is_some() {
                match leases.delete(&self.name, &DeleteParams::default()).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(error),
                }
                self.said = None;
            }
            return Ok(());
        }
        if known.is_some_and(|(said, at)| said == feedback && at.elapsed() < RENEW) {
            return Ok(());
        }
        let mut text = json!(feedback).to_string();
        if text.len() > MAX_SAID {
            let gateways = feedback.gateways.clone();
            text = json!(Feedback { gateways, ..Feedback::default() }).to_string();
            tracing::warn!("the proxies refuse too much to be told to the other replicas");
        }
        let now = time::micro(SystemTime::now());
        let mut lease = DynamicObject::new(&self.name, &resource()).data(json!({"spec": {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": LIFE.as_secs(),
            "renewTime": now,
        }}));
        lease.metadata.labels = Some([(LABEL.to_owned(), "true".to_owned())].into());
        lease.metadata.annotations = Some([(ANNOTATION.to_owned(), text)].into());
        let params = PatchParams::apply(MANAGER).force();
        leases.patch(&self.name, &params, &Patch::Apply(&lease)).await?;
        self.said = Some((feedback.clone(), Instant::now()));
        Ok(())
    }
}

/// The Leases of the others.
#[derive(Default)]
struct Ears {
    /// The version of each, and since when it is that one: clocks need not agree.
    seen: BTreeMap<String, (String, Instant)>,
}

impl Ears {
    async fn hear(&mut self, cluster: &Cluster, own: &str) -> kube::Result<Vec<Feedback>> {
        let leases = cluster.own(&resource());
        let found = leases.list(&ListParams::default().labels(LABEL)).await?;
        let mut said = Vec::new();
        let mut seen = BTreeMap::new();
        for lease in found {
            let name = lease.metadata.name.clone().unwrap_or_default();
            let version = lease.metadata.resource_version.clone().unwrap_or_default();
            if name == own || !is_feedback(&lease) {
                continue;
            }
            let since = match self.seen.get(&name) {
                Some((known, since)) if *known == version => *since,
                _ => Instant::now(),
            };
            if since.elapsed() >= LIFE {
                let preconditions =
                    Preconditions { resource_version: Some(version), ..Preconditions::default() };
                let params = DeleteParams::default().preconditions(preconditions);
                // If it fails, the next look comes soon.
                let _ = leases.delete(&name, &params).await;
                continue;
            }
            seen.insert(name, (version, since));
            let text = lease.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION));
            match text.map(|text| serde_json::from_str(text)) {
                Some(Ok(feedback)) => said.push(feedback),
                Some(Err(error)) => {
                    tracing::debug!(%error, "what a replica says is not understood")
                }
                None => {}
            }
        }
        self.seen = seen;
        Ok(said)
    }
}

fn is_feedback(lease: &DynamicObject) -> bool {
    lease.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL))
}

fn resource() -> kube::api::ApiResource {
    api_resource("coordination.k8s.io", "v1", "Lease", "leases")
}
