//! Writes what is to be said in the status of objects, while this control plane leads.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::feedback::Feedback;
use super::objects::Subject;
use super::{Cluster, Leadership, status};
use crate::intent::Problem;
use crate::source::Combined;

/// What could not be written is tried again after this time.
const AGAIN: Duration = Duration::from_secs(10);
/// Changes come in bursts: one status for all of them.
const QUIET: Duration = Duration::from_millis(100);

/// The version that a status was written on: until the watch shows the next one, there is nothing to add.
type Written = HashMap<String, String>;

impl Cluster {
    /// For ever.
    pub async fn report(
        &self,
        mut combined: watch::Receiver<Combined>,
        mut feedback: watch::Receiver<Option<Feedback>>,
        mut leadership: Leadership,
    ) {
        let mut written = Written::new();
        loop {
            let said = feedback.borrow_and_update().clone();
            // Before anybody was heard, it would seem that no proxy runs.
            if let Some(said) = said.filter(|_| leadership.is_leader()) {
                let now = combined.borrow_and_update().clone();
                written.retain(|place, _| now.subjects.iter().any(|one| one.place == *place));
                self.write_all((&now, &said), &leadership, &mut written).await;
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = leadership.changed() => {}
                Ok(()) = feedback.changed() => {}
                Ok(()) = combined.changed() => tokio::time::sleep(QUIET).await,
            }
        }
    }

    async fn write_all(
        &self,
        (combined, feedback): (&Combined, &Feedback),
        leadership: &Leadership,
        written: &mut Written,
    ) {
        let mut problems: HashMap<&str, Vec<Problem>> = HashMap::new();
        for problem in &combined.parsed.problems {
            problems.entry(&problem.file).or_default().push(problem.clone());
        }
        for subject in combined.subjects.iter() {
            if written.get(&subject.place) == Some(&subject.resource_version) {
                continue;
            }
            let own = problems.get(subject.place.as_str()).map_or(&[][..], Vec::as_slice);
            let known = status::Known { intent: &combined.parsed.intent, problems: own, feedback };
            let Some(wanted) = status::wanted(subject, known, SystemTime::now()) else { continue };
            if !leadership.is_leader() {
                return;
            }
            match self.write(subject, wanted).await {
                Ok(()) => {
                    written.insert(subject.place.clone(), subject.resource_version.clone());
                }
                // Somebody changed or deleted it meanwhile: the watch tells.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => {
                    tracing::warn!(object = subject.place, %error, "cannot write its status");
                }
            }
        }
    }

    async fn write(&self, subject: &Subject, status: Value) -> kube::Result<()> {
        let mut resource = subject.resource.api();
        resource.api_version.clone_from(&subject.api_version);
        if let Some((_, version)) = subject.api_version.split_once('/') {
            version.clone_into(&mut resource.version);
        }
        let api: Api<DynamicObject> = if subject.namespaced {
            Api::namespaced_with(self.client.clone(), &subject.name.namespace, &resource)
        } else {
            self.all(&resource)
        };
        // Lists are replaced as a whole, so only on the version that they were made from.
        let patch = json!({
            "metadata": {"resourceVersion": subject.resource_version}, "status": status,
        });
        let params = PatchParams::default();
        api.patch_status(&subject.name.name, &params, &Patch::Merge(&patch)).await.map(drop)
    }
}
