//! Resources from this very process, in place of a control plane's: the program around the proxy says everything
//! that there shall be, again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::kind::Kind;
use super::last_good::Kept;
use super::status::Status;
use super::store::Store;
use super::translate;
use crate::model::Name;

/// Everything that there shall be: each resource's kind, name, version and encoded message.
#[derive(Clone, Debug, Default)]
pub struct Everything(pub Vec<Given>);

/// One resource.
#[derive(Clone)]
pub struct Given {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Changes with its content.
    pub version: String,
    /// The encoded message.
    pub body: Bytes,
}

/// Secrets have bodies too, which no log shall show.
impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.kind, self.name, self.version)
    }
}

/// What was given and taken so far.
#[derive(Debug, Default)]
pub(super) struct Local {
    held: BTreeMap<(Kind, Name), String>,
}

impl Local {
    /// Take everything over into the store. A resource that is refused leaves its last good version in force.
    pub(super) fn take(&mut self, all: &Everything, store: &mut Store, status: &Status) {
        let mut gone: Vec<(Kind, Name)> = self.held.keys().cloned().collect();
        let mut refused = Vec::new();
        for given in &all.0 {
            let key = (given.kind, Name::from(given.name.as_str()));
            gone.retain(|known| *known != key);
            if self.held.get(&key) == Some(&given.version) {
                continue;
            }
            match translate::resource(given.kind, &given.body) {
                (_, Ok(resource)) => {
                    store.accept(resource);
                    status.hold(&kept(given), SystemTime::now());
                    self.held.insert(key, given.version.clone());
                }
                (_, Err(why)) => {
                    let reasons: Vec<String> = why.iter().map(ToString::to_string).collect();
                    tracing::error!(
                        kind = %given.kind, name = given.name, reasons = reasons.join("; "),
                        "it is refused; its last good version stays, if there is one"
                    );
                    refused.push((given.kind, given.name.clone(), reasons));
                }
            }
        }
        for (kind, name) in gone {
            store.remove(kind, &name);
            status.forget(kind, &name);
            self.held.remove(&(kind, Arc::clone(&name)));
        }
        status.refuse(refused);
    }
}

fn kept(given: &Given) -> Arc<Kept> {
    Arc::new(Kept {
        kind: given.kind,
        name: given.name.as_str().into(),
        version: given.version.as_str().into(),
        body: given.body.clone(),
    })
}

#[cfg(test)]
mod tests {
    use pillion_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
    use prost::Message;

    use super::*;

    fn cluster(name: &str, version: &str, kind: &str) -> Given {
        let text = format!(
            r#"{{"name": "{name}", "type": "{kind}", "connect_timeout": "1s",
                "load_assignment": {{"cluster_name": "{name}"}}}}"#
        );
        let message: pillion_xds::envoy::config::cluster::v3::Cluster =
            pillion_xds::json::from_text(&text).unwrap();
        Given {
            kind: Kind::Cluster,
            name: name.to_owned(),
            version: version.to_owned(),
            body: message.encode_to_vec().into(),
        }
    }

    #[test]
    fn what_is_refused_stays_as_it_was_and_what_is_left_out_goes() {
        let (mut local, mut store, status) =
            (Local::default(), Store::default(), Status::default());
        let mut take = |all: Vec<Given>| {
            local.take(&Everything(all), &mut store, &status);
            store.assemble().map(|(snapshot, _)| snapshot.clusters.size())
        };
        assert_eq!(take(vec![cluster("a", "1", "STATIC"), cluster("b", "1", "STATIC")]), Some(2));
        assert_eq!(take(vec![cluster("a", "1", "STATIC"), cluster("b", "1", "STATIC")]), None);
        let mut bad = cluster("a", "2", "STATIC");
        bad.body = ClusterLoadAssignment::default().encode_to_vec().into();
        assert_eq!(take(vec![bad, cluster("b", "1", "STATIC")]), None, "a stays");
        assert_eq!(status.refused(Kind::Cluster)[0].0, "a");
        assert_eq!(take(vec![cluster("b", "1", "STATIC")]), Some(1), "a goes");
        assert!(status.refused(Kind::Cluster).is_empty());
    }
}
