//! The last good state of a cluster, to be served by a control plane that starts while the API is away. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Documents;
use crate::intent::{Name, Workload, read_object};

/// Version of the form. A file of another one is not read.
const FORM: u32 = 1;

/// A good document as it was written: its place, and its JSON.
pub(super) type Written = (Arc<str>, Arc<str>);

/// Everything that was known of a cluster at some time, apart from what is wrong there.
#[derive(Debug, Clone)]
pub struct Kept {
    pub(super) at: SystemTime,
    pub(super) written: Arc<Vec<Written>>,
    pub(super) without_gateways: bool,
    pub(super) workloads: Arc<BTreeMap<Name, Arc<Workload>>>,
}

/// As it stands in a file.
#[derive(Serialize, Deserialize)]
struct Form {
    form: u32,
    /// The API that it is of.
    api: String,
    /// Seconds since 1970.
    at: u64,
    without_gateways: bool,
    objects: Vec<(String, Value)>,
    workloads: Vec<Arc<Workload>>,
}

impl Kept {
    /// As JSON. `api` is the address of the API that it is of.
    ///
    /// # Errors
    /// None in practice: everything in it came out of JSON.
    pub fn to_json(&self, api: &str) -> Result<Vec<u8>, serde_json::Error> {
        let objects = self
            .written
            .iter()
            .map(|(place, text)| Ok((place.to_string(), serde_json::from_str(text)?)));
        serde_json::to_vec(&Form {
            form: FORM,
            api: api.to_owned(),
            at: self.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            without_gateways: self.without_gateways,
            objects: objects.collect::<Result<_, serde_json::Error>>()?,
            workloads: self.workloads.values().cloned().collect(),
        })
    }

    /// Reads it back.
    ///
    /// # Errors
    /// In words: it is not what [`Kept::to_json`] wrote, or is of another API.
    pub fn from_json(text: &[u8], api: &str) -> Result<Self, String> {
        let form: Form = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if form.form != FORM {
            return Err(format!("it is of form {}, expected {FORM}", form.form));
        }
        if form.api != api {
            return Err(format!("it is of the cluster {}, this one is {api}", form.api));
        }
        let objects = form.objects.into_iter();
        let written = objects.map(|(place, one)| (place.into(), one.to_string().into()));
        Ok(Self {
            at: UNIX_EPOCH + Duration::from_secs(form.at),
            written: Arc::new(written.collect()),
            without_gateways: form.without_gateways,
            workloads: Arc::new(
                form.workloads.into_iter().map(|one| (one.name.clone(), one)).collect(),
            ),
        })
    }

    /// The documents. What this version does not understand any more is left out, and told.
    pub(super) fn documents(&self) -> Documents {
        let (mut good, mut problems) = (Vec::new(), Vec::new());
        for (place, text) in self.written.iter() {
            let Ok(object) = serde_json::from_str(text) else { continue };
            let mut found = read_object(place, &object);
            match found.documents.pop() {
                Some(document) if self.without_gateways => good.push(document.without_gateways()),
                Some(document) => good.push(document),
                None => problems.append(&mut found.problems),
            }
        }
        Documents::new(good, problems)
    }
}

/// How the control plane stands with the API.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Everything was read once.
    pub read: bool,
    /// Nothing was read yet; what is in force was kept at this time by an earlier process.
    pub kept: Option<SystemTime>,
    /// What cannot be read at the moment: since when, and why. It is in force as it was.
    pub away: Option<(SystemTime, String)>,
}

impl Reach {
    /// Whether there is something to serve.
    pub(super) fn serves(&self) -> bool {
        self.read || self.kept.is_some()
    }

    /// What is not as it should be, in one line.
    #[must_use]
    pub fn remark(&self, now: SystemTime) -> Option<String> {
        let ago = |then: SystemTime| now.duration_since(then).unwrap_or_default().as_secs();
        let why = match &self.away {
            Some((since, why)) => {
                format!("the Kubernetes API cannot be read since {} s ({why})", ago(*since))
            }
            None if self.kept.is_some() => "the Kubernetes API was not read whole yet".to_owned(),
            None => return None,
        };
        Some(match self.kept {
            Some(at) => format!(
                "serves the last good state of {} ({} s ago): {why}",
                super::time::rfc3339(at),
                ago(at)
            ),
            None => format!("serves what it knew: {why}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::intent::Locality;

    fn kept() -> Kept {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]},
        });
        let workload = Workload {
            name: Name::new("shop", "a-1"),
            labels: [("app".to_owned(), "a".to_owned())].into(),
            service: None,
            address: "10.0.0.7".parse().unwrap(),
            ports: [("http".to_owned(), 8080)].into(),
            app_port: None,
            service_account: "a".to_owned(),
            locality: Locality { zone: "eu-1".to_owned(), ..Locality::default() },
            weight: 1,
            ready: true,
            sidecar_port: Some(15006),
            captured: true,
            open_ports: vec![(9000, 9001)],
        };
        Kept {
            at: UNIX_EPOCH + Duration::from_secs(1_000_000),
            written: Arc::new(vec![("services/shop/a".into(), service.to_string().into())]),
            without_gateways: false,
            workloads: Arc::new([(workload.name.clone(), Arc::new(workload))].into()),
        }
    }

    #[test]
    fn what_was_kept_comes_back() {
        let before = kept();
        let after = Kept::from_json(&before.to_json("https://a/").unwrap(), "https://a/").unwrap();
        assert_eq!((after.at, &after.written), (before.at, &before.written));
        assert_eq!(after.workloads, before.workloads);
        let documents = after.documents();
        assert_eq!(documents.good().next().unwrap().id.to_string(), "Service shop/a");
        assert!(documents.problems().next().is_none());
    }

    #[test]
    fn what_is_of_another_cluster_or_form_or_broken_is_not_taken() {
        let text = kept().to_json("https://a/").unwrap();
        let wrong = Kept::from_json(&text, "https://b/").unwrap_err();
        assert!(wrong.contains("https://a/") && wrong.contains("https://b/"), "{wrong}");
        assert!(Kept::from_json(&text[..text.len() / 2], "https://a/").is_err());
        let text = String::from_utf8(text).unwrap().replace("\"form\":1", "\"form\":2");
        assert!(Kept::from_json(text.as_bytes(), "https://a/").unwrap_err().contains("form 2"));
    }

    #[test]
    fn it_says_how_old_it_is_and_why() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let mut reach = Reach { kept: Some(at(100)), ..Reach::default() };
        reach.away = Some((at(150), "connection refused".to_owned()));
        let said = reach.remark(at(160)).unwrap();
        for part in ["1970-01-01T00:01:40", "60 s ago", "since 10 s", "connection refused"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert_eq!(Reach { read: true, ..Reach::default() }.remark(at(0)), None);
    }
}
