//! The root of the mesh's certificates, where all replicas and all sidecars find it.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::access::{CA_SECRET, ROOT_CONFIG_MAP, ROOT_KEY, WEBHOOK};
use super::objects::api_resource;
use super::{Cluster, Leadership, View};

/// Key of the root's private key in the Secret (PKCS#8, PEM).
const PRIVATE_KEY: &str = "root.key";
/// Key of the join token in the Secret.
const JOIN_TOKEN: &str = "join-token";
/// Everything is looked at again this often: somebody may have deleted or changed it.
const AGAIN: Duration = Duration::from_secs(60);
/// Who the fields that we set belong to.
const MANAGER: &str = "pillion-control-plane";

/// What the Secret holds.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedRoot {
    /// The certificate in PEM.
    pub certificate: String,
    /// Its key, PKCS#8 in PEM.
    pub key: Zeroizing<String>,
    /// The join token, for workloads off Kubernetes. A Secret that somebody else made may have none.
    pub join_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for SharedRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRoot").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reads the Secret. `None`: there is none yet.
    ///
    /// # Errors
    /// The API server cannot be asked, or the Secret is not what it should be; in words.
    pub async fn shared_root(&self) -> Result<Option<SharedRoot>, String> {
        let found = self.own(&secrets()).get_opt(CA_SECRET).await;
        match found.map_err(|error| self.failed("read", &error))? {
            Some(secret) => self.read(&secret.data).map(Some),
            None => Ok(None),
        }
    }

    /// Keeps `root` unless another replica was quicker, and returns the one that is kept.
    ///
    /// # Errors
    /// As [`Cluster::shared_root`].
    pub async fn keep_root(&self, root: SharedRoot) -> Result<SharedRoot, String> {
        let mut data = json!({
            ROOT_KEY: STANDARD.encode(&root.certificate),
            PRIVATE_KEY: STANDARD.encode(root.key.as_bytes()),
        });
        if let Some(token) = &root.join_token {
            data[JOIN_TOKEN] = STANDARD.encode(token.as_bytes()).into();
        }
        let secret = DynamicObject::new(CA_SECRET, &secrets())
            .data(json!({"type": "Opaque", "immutable": false, "data": data}));
        match self.own(&secrets()).create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(root),
            Err(kube::Error::Api(status)) if status.code == 409 => self
                .shared_root()
                .await?
                .ok_or_else(|| format!("Secret {CA_SECRET}: comes and goes")),
            Err(error) => Err(self.failed("write", &error)),
        }
    }

    /// While this control plane leads: keeps the root in a ConfigMap of every namespace of the mesh, and in the
    /// webhook's configuration, for ever.
    pub async fn publish_root(
        &self,
        certificate: String,
        mut view: watch::Receiver<View>,
        mut leadership: Leadership,
    ) {
        let mut done: BTreeSet<String> = BTreeSet::new();
        let mut again = tokio::time::interval(AGAIN);
        loop {
            tokio::select! {
                _ = again.tick() => done.clear(),
                () = leadership.changed() => {}
                Ok(()) = view.changed() => {}
            }
            if !leadership.is_leader() {
                done.clear();
                continue;
            }
            let namespaces = view.borrow_and_update().namespaces.clone();
            if done.is_empty()
                && let Err(error) = self.set_ca_bundle(&certificate).await
            {
                tracing::warn!(webhook = WEBHOOK, error, "cannot write the webhook's caBundle");
            }
            for namespace in namespaces.difference(&done.clone()) {
                match self.set_config_map(namespace, &certificate).await {
                    Ok(()) => drop(done.insert(namespace.clone())),
                    Err(error) => tracing::warn!(namespace, error, "cannot write the root there"),
                }
            }
        }
    }

    async fn set_config_map(&self, namespace: &str, certificate: &str) -> Result<(), String> {
        let resource = api_resource("", "v1", "ConfigMap", "configmaps");
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &resource);
        let wanted = DynamicObject::new(ROOT_CONFIG_MAP, &resource)
            .within(namespace)
            .data(json!({"data": {ROOT_KEY: certificate}}));
        let params = PatchParams::apply(MANAGER).force();
        let applied = api.patch(ROOT_CONFIG_MAP, &params, &Patch::Apply(&wanted)).await;
        applied.map(drop).map_err(|error| error.to_string())
    }

    async fn set_ca_bundle(&self, certificate: &str) -> Result<(), String> {
        let resource = api_resource(
            "admissionregistration.k8s.io",
            "v1",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
        );
        let api = self.all(&resource);
        let Some(found) = api.get_opt(WEBHOOK).await.map_err(|error| error.to_string())? else {
            return Ok(());
        };
        let bundle = Value::from(STANDARD.encode(certificate));
        let mut webhooks = found.data["webhooks"].clone();
        let mut changed = false;
        for webhook in webhooks.as_array_mut().into_iter().flatten() {
            let config = &mut webhook["clientConfig"];
            changed |= config["caBundle"] != bundle;
            config["caBundle"] = bundle.clone();
        }
        if !changed {
            return Ok(());
        }
        // A list is replaced as a whole: only if nobody changed it since.
        let patch = json!({
            "metadata": {"resourceVersion": found.metadata.resource_version}, "webhooks": webhooks,
        });
        let patched = api.patch(WEBHOOK, &PatchParams::default(), &Patch::Merge(&patch)).await;
        patched.map(drop).map_err(|error| error.to_string())
    }

    fn read(&self, secret: &Value) -> Result<SharedRoot, String> {
        let text = |key: &str| {
            let bytes = STANDARD.decode(secret["data"][key].as_str()?).ok().map(Zeroizing::new)?;
            String::from_utf8(bytes.to_vec()).ok().map(Zeroizing::new)
        };
        let needed = |key: &str| {
            let place = format!("Secret {}/{CA_SECRET}: data[{key:?}]", self.namespace);
            text(key).ok_or_else(|| format!("{place}: is missing, or is no base64 of a text"))
        };
        Ok(SharedRoot {
            certificate: needed(ROOT_KEY)?.to_string(),
            key: needed(PRIVATE_KEY)?,
            join_token: text(JOIN_TOKEN),
        })
    }

    fn failed(&self, what: &str, error: &kube::Error) -> String {
        format!("cannot {what} Secret {}/{CA_SECRET}: {error}", self.namespace)
    }
}

fn secrets() -> kube::api::ApiResource {
    api_resource("", "v1", "Secret", "secrets")
}
