//! `Process`: a program that `pillion up` runs on this machine, with a sidecar beside each instance. The control plane
//! itself does nothing with it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decode::{
    At, Context, Object, any_text, boolean, choice, dns_label, duration, text, whole,
};
use super::meta::{Meta, Name};

/// A program and how to keep it running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Namespace and name.
    pub name: Name,
    /// Labels of its instances, which services select them by.
    pub labels: BTreeMap<String, String>,
    /// The service that it belongs to. Default: its own name.
    pub service: String,
    /// Service account, the last part of its SPIFFE id. Default: the service.
    pub service_account: String,
    /// Program and arguments; at least the program. Without a slash it is looked for beside `pillion`, then in `PATH`.
    pub command: Vec<String>,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// Where it runs. Default: where `pillion up` does.
    pub working_dir: Option<String>,
    /// How many of them. Default 1.
    pub instances: u32,
    /// It listens on the port that it finds in `PORT`. Default true; without it is a client.
    pub listens: bool,
    /// Path that answers 200 when it is well. Default: its port accepts connections.
    pub health_path: Option<String>,
    /// When it is started again.
    pub restart: Restart,
    /// From SIGTERM to SIGKILL. Default 5 s.
    pub grace: Duration,
}

/// When a process that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Restart {
    /// Whenever it ends.
    #[default]
    Always,
    /// When it ends with a code other than zero, or by a signal.
    OnFailure,
    /// Never.
    Never,
}

const RESTARTS: &[(&str, Restart)] =
    &[("Always", Restart::Always), ("OnFailure", Restart::OnFailure), ("Never", Restart::Never)];

impl Process {
    pub(crate) fn decode(cx: &mut Context, meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let service = object.optional(cx, "service", dns_label);
        let service = service.unwrap_or_else(|| meta.name.name.clone());
        let command = object.required(cx, "command", |cx, at| {
            let items = at.items(cx)?;
            let words: Vec<_> = items.iter().filter_map(|at| any_text(cx, at)).collect();
            if words.is_empty() {
                cx.expected(at, "a program, and its arguments")
            } else {
                Some(words)
            }
        });
        let health = object.optional(cx, "healthCheck", |cx, at| {
            let mut check = Object::open(cx, at)?;
            let path = check.required(cx, "path", text);
            check.finish(cx);
            path
        });
        let process = Self {
            name: meta.name.clone(),
            labels: meta.labels.clone(),
            service_account: object
                .optional(cx, "serviceAccount", dns_label)
                .unwrap_or_else(|| service.clone()),
            service,
            command: command.clone().unwrap_or_default(),
            env: object.map(cx, "env", any_text),
            working_dir: object.optional(cx, "workingDir", text),
            instances: object.optional(cx, "instances", whole(0..=100)).unwrap_or(1),
            listens: object.optional(cx, "listens", boolean).unwrap_or(true),
            health_path: health,
            restart: object.optional(cx, "restart", choice(RESTARTS)).unwrap_or_default(),
            grace: object
                .optional(cx, "terminationGracePeriod", duration)
                .unwrap_or(Duration::from_secs(5)),
        };
        object.finish(cx);
        command.map(|_| process)
    }
}
