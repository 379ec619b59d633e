//! What a pod says about its sidecar, by labels and annotations `pillion.io/…`.

use serde_json::{Map, Value};

use crate::intent::nearest;

const PREFIX: &str = "pillion.io/";
const INJECT: &str = "pillion.io/inject";
const CAPTURE: &str = "pillion.io/capture";
const SERVICE: &str = "pillion.io/service";
const NOT_IN: &str = "pillion.io/exclude-inbound-ports";
const NOT_OUT: &str = "pillion.io/exclude-outbound-ports";
const NOT_TO: &str = "pillion.io/exclude-outbound-cidrs";
const ANNOTATIONS: [&str; 6] = [INJECT, CAPTURE, SERVICE, NOT_IN, NOT_OUT, NOT_TO];
/// Where the name of a pod's service is taken from, in this order, unless an annotation says it.
const SERVICE_LABELS: [&str; 3] = ["app.kubernetes.io/name", "app", "k8s-app"];

/// What the pod wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) wanted: bool,
    /// Its connections are redirected; else it names its proxy.
    pub(super) redirect: bool,
    pub(super) service: String,
    pub(super) exclude_inbound_ports: Option<String>,
    pub(super) exclude_outbound_ports: Option<String>,
    pub(super) exclude_outbound_cidrs: Option<String>,
}

/// Reads labels and annotations; the annotation wins.
pub(super) fn read(pod: &Value, owner: &str) -> Result<Settings, String> {
    let empty = Map::new();
    let map = |name: &str| pod["metadata"][name].as_object().unwrap_or(&empty);
    let (labels, annotations) = (map("labels"), map("annotations"));
    known("labels", labels, &[INJECT])?;
    known("annotations", annotations, &ANNOTATIONS)?;
    let one_of = |name: &str, yes: &str, no: &str| {
        let said = annotations.get(name).or_else(|| labels.get(name));
        match said.map(|value| value.as_str().unwrap_or_default()) {
            None => Ok(true),
            Some(text) if text == yes => Ok(true),
            Some(text) if text == no => Ok(false),
            Some(text) => Err(format!("{name}: `{text}`; expected `{yes}` or `{no}`")),
        }
    };
    let list = |name: &str, valid: fn(&str) -> bool, expected: &str| {
        let Some(text) = annotations.get(name) else { return Ok(None) };
        let text = text.as_str().unwrap_or_default();
        let items: Vec<&str> = text.split(',').map(str::trim).collect();
        match items.iter().find(|item| !valid(item)) {
            Some(bad) => Err(format!("{name}: `{bad}`; expected {expected}")),
            None => Ok(Some(items.join(","))),
        }
    };
    let ports = "ports or ranges, such as 22,8000-8099";
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let service = annotations
        .get(SERVICE)
        .or_else(|| SERVICE_LABELS.iter().find_map(|name| labels.get(*name)))
        .and_then(text)
        .unwrap_or_else(|| owner.to_owned());
    if service.is_empty() {
        return Err(format!("{SERVICE}: is missing, and there is no label `app` or name to use"));
    }
    Ok(Settings {
        wanted: one_of(INJECT, "enabled", "disabled")?,
        redirect: one_of(CAPTURE, "redirect", "none")?,
        service,
        exclude_inbound_ports: list(NOT_IN, is_ports, ports)?,
        exclude_outbound_ports: list(NOT_OUT, is_ports, ports)?,
        exclude_outbound_cidrs: list(NOT_TO, is_cidr, "networks, such as 10.0.0.0/8")?,
    })
}

fn known(place: &str, map: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    let Some(bad) =
        map.keys().find(|key| key.starts_with(PREFIX) && !names.contains(&key.as_str()))
    else {
        return Ok(());
    };
    let hint = match nearest(bad, names.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known are {}", names.join(", ")),
    };
    Err(format!("metadata.{place}: unknown `{bad}`; {hint}"))
}

fn is_ports(text: &str) -> bool {
    let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0);
    match text.split_once('-') {
        Some((first, last)) => port(first).is_some_and(|first| port(last) >= Some(first)),
        None => port(text).is_some(),
    }
}

fn is_cidr(text: &str) -> bool {
    text.parse::<ipnet::IpNet>().is_ok()
}
