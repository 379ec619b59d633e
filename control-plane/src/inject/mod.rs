//! Sidecars for Kubernetes pods. Pure: an object goes in, the same object with a sidecar comes out.
//!
//! The sidecar is a native one (an init container with `restartPolicy: Always`, Kubernetes 1.29 and later): it starts
//! before the application, ends after it, and a Job ends without waiting for it.
//! <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>

mod admission;
pub mod emit;
mod probes;
mod settings;
mod sidecar;
pub mod webhook;

use serde_json::Value;

pub use admission::review;

/// Name of the sidecar's container. A pod that has it is left as it is.
pub const CONTAINER: &str = "pillion-proxy";
/// Name of the init container that redirects connections.
pub const REDIRECT_CONTAINER: &str = "pillion-redirect";
/// User id of the sidecar; the redirect lets its connections through.
pub const PROXY_UID: u32 = 1337;
/// Port that the kubelet asks, in plain HTTP.
pub const HEALTH_PORT: u16 = 15021;
/// Outbound port of the sidecar, on loopback.
pub const OUTBOUND_PORT: u16 = 15001;

/// What every injected sidecar is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Image of the sidecar: `/pillion-proxy`, as `pillion image` makes it.
    pub image: String,
    /// Image of the container that redirects: the same, and `nft` in its PATH. `None`: that of the sidecar has it.
    pub redirect_image: Option<String>,
    /// Where sidecars reach the control plane, `HOST:PORT`.
    pub control_plane: String,
    /// How sidecars prove who they are, the first time.
    pub join: Join,
}

/// How a sidecar proves who it is, before it has a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// By the token of the pod's service account, which the control plane shows to the Kubernetes API; the root
    /// certificate comes from a ConfigMap that the control plane keeps in every namespace of the mesh.
    ServiceAccount,
    /// By a join token: the Secret, in the namespace of the pod, with the token at its key `join-token`.
    Secret(String),
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It got a sidecar.
    Injected,
    /// It has one already.
    Already,
    /// It says that it wants none.
    OptedOut,
    /// It has no pods.
    NoPods,
}

/// Gives the pods of `object` their sidecar: a Pod, anything with a pod template, or a List of these.
///
/// # Errors
/// The pod cannot have one, or an annotation is not understood; the object is left as it was. The text names the
/// object and the field.
pub fn inject(object: &mut Value, options: &Options) -> Result<Vec<Outcome>, String> {
    let mut changed = object.clone();
    let outcomes = inject_each(&mut changed, options)?;
    *object = changed;
    Ok(outcomes)
}

fn inject_each(object: &mut Value, options: &Options) -> Result<Vec<Outcome>, String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = text(&object["kind"]).unwrap_or_default();
    let name = text(&object["metadata"]["name"])
        .or_else(|| text(&object["metadata"]["generateName"]))
        .unwrap_or_default();
    let template = match kind.as_str() {
        "List" => {
            let items = object["items"].as_array_mut().ok_or("List: items: expected a list")?;
            let mut outcomes = Vec::new();
            for item in items {
                outcomes.extend(inject_each(item, options)?);
            }
            return Ok(outcomes);
        }
        "Pod" => "",
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => "/spec/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return Ok(vec![Outcome::NoPods]),
    };
    let place = format!("{kind} {name}");
    let Some(pod) = object.pointer_mut(template) else {
        return Err(format!("{place}: {}: is missing", template[1..].replace('/', ".")));
    };
    inject_pod(pod, &name, options)
        .map(|one| vec![one])
        .map_err(|error| format!("{place}: {error}"))
}

/// Gives one pod, or pod template, its sidecar. `owner` is the name of what it belongs to.
///
/// # Errors
/// As [`inject`]; the pod may be half changed.
pub fn inject_pod(pod: &mut Value, owner: &str, options: &Options) -> Result<Outcome, String> {
    let settings = settings::read(pod, owner)?;
    if !settings.wanted {
        return Ok(Outcome::OptedOut);
    }
    if named(&pod["spec"]["initContainers"], CONTAINER)
        || named(&pod["spec"]["containers"], CONTAINER)
    {
        return Ok(Outcome::Already);
    }
    refuse(&pod["spec"], &settings)?;
    let app_probes = if settings.redirect { probes::rewrite(&mut pod["spec"])? } else { None };
    sidecar::add(pod, &settings, app_probes, options);
    Ok(Outcome::Injected)
}

/// Why this pod cannot have a sidecar, whatever its settings are.
pub(crate) fn stays_out(spec: &Value) -> Option<&'static str> {
    if spec["hostNetwork"] == true {
        return Some(
            "spec.hostNetwork: a pod in the network of its node cannot have a sidecar of its own",
        );
    }
    (spec["os"]["name"] == "windows").then_some("spec.os.name: there is no sidecar for windows")
}

fn refuse(spec: &Value, settings: &settings::Settings) -> Result<(), String> {
    if let Some(why) = stays_out(spec) {
        return Err(format!("{why}; set the label pillion.io/inject: disabled"));
    }
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        return Err("spec.containers: expected at least one container".to_owned());
    }
    let pod_uid = &spec["securityContext"]["runAsUser"];
    for container in spec["containers"].as_array().into_iter().flatten() {
        let own = &container["securityContext"]["runAsUser"];
        let uid = if own.is_null() { pod_uid } else { own };
        if settings.redirect && *uid == PROXY_UID {
            let name = container["name"].as_str().unwrap_or_default();
            return Err(format!(
                "container {name}: runAsUser {PROXY_UID} is the sidecar's: its connections would not be redirected"
            ));
        }
    }
    Ok(())
}

fn named(containers: &Value, name: &str) -> bool {
    containers.as_array().into_iter().flatten().any(|container| container["name"] == name)
}

#[cfg(test)]
mod tests;
