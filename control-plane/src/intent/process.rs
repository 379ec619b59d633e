//! `Process`: a program that `pillion up` runs on this machine, with a sidecar beside each instance. The control plane
//! itself does nothing with it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decode::{
    At, Context, Object, any_text, boolean, choice, dns_label, duration, text, whole,
};
use super::meta::{Meta, Name};
use super::policy::some_time;
use super::yaml::Value;

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
    /// What says that it is well. Default: its port accepts connections.
    pub health: Option<Health>,
    /// When it is started again.
    pub restart: Restart,
    /// From SIGTERM to SIGKILL. Default 5 s.
    pub grace: Duration,
    /// What an instance may use at most.
    pub limits: Limits,
}

/// How an instance is asked whether it is well: first until it is, and from then on again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Path that answers 200 when it is well.
    pub path: String,
    /// Time between two checks of an instance that was well, and for one of them. Default 2 s.
    pub interval: Duration,
    /// So many failures in a row take it out of the endpoints. Default 3.
    pub unhealthy_threshold: u32,
}

/// What the control group of an instance may use; nothing said is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Share of the processors, in thousandths of one.
    pub cpu_millis: Option<u64>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
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
            health: object.optional(cx, "healthCheck", health),
            restart: object.optional(cx, "restart", choice(RESTARTS)).unwrap_or_default(),
            grace: object
                .optional(cx, "terminationGracePeriod", duration)
                .unwrap_or(Duration::from_secs(5)),
            limits: object.optional(cx, "resources", resources).unwrap_or_default(),
        };
        object.finish(cx);
        command.map(|_| process)
    }
}

fn health(cx: &mut Context, at: &At<'_>) -> Option<Health> {
    let mut check = Object::open(cx, at)?;
    let path = check.required(cx, "path", text);
    let interval = check.optional(cx, "interval", some_time).unwrap_or(Duration::from_secs(2));
    let threshold = check.optional(cx, "unhealthyThreshold", whole(1..=1000)).unwrap_or(3);
    check.finish(cx);
    Some(Health { path: path?, interval, unhealthy_threshold: threshold })
}

/// As on Kubernetes, of which a single machine knows `limits` only.
fn resources(cx: &mut Context, at: &At<'_>) -> Option<Limits> {
    let mut object = Object::open(cx, at)?;
    let limits = object.optional(cx, "limits", |cx, at| {
        let mut object = Object::open(cx, at)?;
        let limits = Limits {
            cpu_millis: object.optional(cx, "cpu", cpu),
            memory_bytes: object.optional(cx, "memory", memory),
        };
        object.finish(cx);
        Some(limits)
    });
    object.finish(cx);
    limits
}

/// `500m`, `0.5` or 2, in thousandths.
fn cpu(cx: &mut Context, at: &At<'_>) -> Option<u64> {
    let millis = match scalar(at) {
        Some(text) => match text.strip_suffix('m') {
            Some(millis) => millis.parse().ok(),
            None => decimal(&text, 1000),
        },
        None => None,
    };
    match millis.filter(|millis| *millis >= 10) {
        Some(millis) => Some(millis),
        None => cx.expected(at, "processors, such as 500m or 2, at least 10m"),
    }
}

/// `128Mi`, `1G`, `1.5Gi` or a number of bytes.
fn memory(cx: &mut Context, at: &At<'_>) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("k", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
    ];
    let bytes = scalar(at).and_then(|text| {
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (unit, factor) = unit.copied().unwrap_or(("", 1));
        decimal(text.strip_suffix(unit)?, factor)
    });
    match bytes.filter(|bytes| *bytes >= 1 << 20) {
        Some(bytes) => Some(bytes),
        None => cx.expected(at, "memory, such as 128Mi or 1G, at least 1Mi"),
    }
}

fn scalar(at: &At<'_>) -> Option<String> {
    match &at.node.value {
        Value::Text(text) => Some(text.clone()),
        Value::Int(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A number with at most three decimals, times `factor`, without rounding on the way.
fn decimal(text: &str, factor: u64) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let thousandths: u64 = format!("{part:0<3}").parse().ok()?;
    whole.checked_mul(factor)?.checked_add(factor.checked_mul(thousandths)? / 1000)
}

#[cfg(test)]
mod tests {
    use crate::intent;

    fn process(limits: &str) -> Result<super::Limits, String> {
        let text = format!(
            "apiVersion: pillion.io/v1alpha1\nkind: Process\nmetadata: {{name: web}}\n\
             spec: {{command: [web], resources: {{limits: {limits}}}}}\n"
        );
        let read = intent::read("mesh.yaml", &text);
        let parsed = intent::assemble(read.documents, read.problems);
        match parsed.problems.first() {
            Some(problem) => Err(problem.to_string()),
            None => Ok(parsed.intent.processes.values().next().unwrap().limits),
        }
    }

    #[test]
    fn limits_are_written_as_on_kubernetes() {
        let limits = process("{cpu: 500m, memory: 128Mi}").unwrap();
        assert_eq!((limits.cpu_millis, limits.memory_bytes), (Some(500), Some(128 << 20)));
        let limits = process("{cpu: 1.5, memory: 1.5G}").unwrap();
        assert_eq!((limits.cpu_millis, limits.memory_bytes), (Some(1500), Some(1_500_000_000)));
        let limits = process("{cpu: 2}").unwrap();
        assert_eq!((limits.cpu_millis, limits.memory_bytes), (Some(2000), None));
    }

    #[test]
    fn limits_that_are_none_are_refused_with_their_place() {
        for bad in ["{cpu: much}", "{cpu: -1}", "{memory: 128Mib}", "{memory: 12}", "{memory: [1]}"]
        {
            let error = process(bad).unwrap_err();
            assert!(error.contains("spec.resources.limits."), "{bad}: {error}");
        }
        assert!(process("{cores: 1}").unwrap_err().contains("cores"));
    }
}
