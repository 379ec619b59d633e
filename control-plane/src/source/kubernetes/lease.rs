//! Takes part in the election, over the API.

use std::time::{Duration, SystemTime};

use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::LEASE as NAME;
use super::election::{Election, LEASE, RETRY, Record, Step};
use super::objects::api_resource;
use super::{Cluster, time};

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(3);

/// Whether this control plane is the one that writes.
#[derive(Debug, Clone)]
pub struct Leadership(watch::Receiver<Option<std::time::Instant>>);

impl Leadership {
    /// At this moment.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.0.borrow().is_some_and(|until| until > std::time::Instant::now())
    }

    /// Waits for news; for ever, when there will be none.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// A part in the election that is not played yet.
#[derive(Debug)]
pub struct Candidate {
    election: Election,
    api: Api<DynamicObject>,
    news: watch::Sender<Option<std::time::Instant>>,
}

impl Cluster {
    /// Stands for election under this name, which no other control plane has.
    #[must_use]
    pub fn candidate(&self, identity: String) -> (Candidate, Leadership) {
        let (news, leadership) = watch::channel(None);
        let api = self.own(&api_resource("coordination.k8s.io", "v1", "Lease", "leases"));
        (Candidate { election: Election::new(identity), api, news }, Leadership(leadership))
    }
}

impl Candidate {
    /// Plays its part until `stop`, then gives the lease back, so that another one need not wait.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let was = self.leads();
            if let Err(error) = self.turn().await {
                tracing::debug!(%error, "cannot renew the lease");
            }
            let until = self.election.leads_until();
            self.news.send_if_modified(|known| std::mem::replace(known, until) != until);
            if was != self.leads() {
                let identity = &self.election.identity;
                tracing::info!(identity, leader = !was, "the leader of the control planes");
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = stop.cancelled() => break,
            }
        }
        if self.leads() {
            self.news.send_replace(None);
            if let Err(error) = self.release().await {
                tracing::warn!(%error, "cannot give the lease back");
            }
        }
    }

    fn leads(&self) -> bool {
        self.election.leads_until().is_some_and(|until| until > std::time::Instant::now())
    }

    async fn turn(&mut self) -> Result<(), String> {
        let found = within(self.api.get_opt(NAME)).await?;
        let step = self.election.observe(Instant::now().into_std(), found.as_ref().map(record));
        let asked = Instant::now().into_std();
        let lease = |acquired: Option<String>, transitions| {
            self.lease(&self.election.identity, acquired, transitions)
        };
        let seen = self.election.seen();
        match step {
            Step::Wait => return Ok(()),
            Step::Create => {
                let lease = lease(None, 0);
                within(self.api.create(&PostParams::default(), &lease)).await?;
            }
            Step::Renew | Step::Take => {
                let transitions = seen.map_or(0, |seen| seen.transitions);
                let lease = match step {
                    Step::Renew => lease(seen.map(|seen| seen.acquired.clone()), transitions),
                    _ => lease(None, transitions + 1),
                };
                self.replace(lease).await?;
            }
        }
        self.election.written(asked);
        Ok(())
    }

    async fn release(&mut self) -> Result<(), String> {
        let transitions = self.election.seen().map_or(0, |seen| seen.transitions);
        // The version is that of before our last renewal.
        let now = within(self.api.get(NAME)).await?;
        if record(&now).holder != self.election.identity {
            return Ok(());
        }
        let mut lease = self.lease("", None, transitions);
        lease.metadata.resource_version = now.metadata.resource_version;
        self.election.released();
        within(self.api.replace(NAME, &PostParams::default(), &lease)).await.map(drop)
    }

    /// Fails when somebody else wrote since we looked.
    async fn replace(&self, mut lease: DynamicObject) -> Result<(), String> {
        lease.metadata.resource_version = self.election.seen().map(|seen| seen.version.clone());
        within(self.api.replace(NAME, &PostParams::default(), &lease)).await.map(drop)
    }

    fn lease(&self, holder: &str, acquired: Option<String>, transitions: i64) -> DynamicObject {
        let now = time::micro(SystemTime::now());
        let acquired = acquired.filter(|acquired| !acquired.is_empty());
        let resource = api_resource("coordination.k8s.io", "v1", "Lease", "leases");
        DynamicObject::new(NAME, &resource).data(json!({"spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": if holder.is_empty() { 1 } else { LEASE.as_secs() },
            "acquireTime": acquired.unwrap_or_else(|| now.clone()),
            "renewTime": now,
            "leaseTransitions": transitions,
        }}))
    }
}

fn record(lease: &DynamicObject) -> Record {
    let spec = &lease.data["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Record {
        holder: text(&spec["holderIdentity"]),
        duration: spec["leaseDurationSeconds"].as_u64().map_or(LEASE, Duration::from_secs),
        acquired: text(&spec["acquireTime"]),
        renewed: text(&spec["renewTime"]),
        transitions: spec["leaseTransitions"].as_i64().unwrap_or_default(),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(LIMIT, request).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}
