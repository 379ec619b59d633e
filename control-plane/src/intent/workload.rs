//! `Workload`: one endpoint of a service.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::decode::{At, Context, Object, dns_label, port, text, whole};
use super::meta::{Meta, Name};

/// One running instance of a service: written as `pillion.io/v1alpha1 Workload`, or registered by its sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Namespace and name; a registered one is named after its instance.
    pub name: Name,
    /// Labels that `Service.spec.selector` looks at.
    pub labels: BTreeMap<String, String>,
    /// The service (of the same namespace) that it registered for. It belongs to that service whatever its
    /// labels are, and counts as labelled `app: <service>` unless it has an `app` label of its own.
    pub service: Option<String>,
    /// Where it is.
    pub address: IpAddr,
    /// Ports of the application by name.
    pub ports: BTreeMap<String, u16>,
    /// The application's only port, where it registered one; it stands for every port of its services.
    pub app_port: Option<u16>,
    /// Service account, the last part of its SPIFFE id. Default `default`.
    pub service_account: String,
    /// Where it runs.
    pub locality: Locality,
    /// Share of the traffic that it gets, relative to the others. Default 1.
    pub weight: u32,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Inbound port of its sidecar; `None` has no sidecar and speaks plain text.
    pub sidecar_port: Option<u16>,
    /// Every port of its address leads to its sidecar, so that peers connect to the application's own port.
    pub captured: bool,
    /// Of a captured one: the ports, first and last of each range, at which connections go past its sidecar, in plain text.
    pub open_ports: Vec<(u16, u16)>,
}

/// Where a workload runs. Empty parts are not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone of the region.
    pub zone: String,
    /// Part of the zone.
    pub sub_zone: String,
}

impl Workload {
    /// The value that a selector sees for `label`.
    #[must_use]
    pub fn label(&self, label: &str) -> Option<&str> {
        let own = self.labels.get(label).map(String::as_str);
        own.or_else(|| self.service.as_deref().filter(|_| label == "app"))
    }

    /// Whether connections to this port of its application go past its sidecar.
    #[must_use]
    pub fn is_open(&self, port: u16) -> bool {
        self.captured
            && self.open_ports.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    pub(crate) fn decode(cx: &mut Context, meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let address = object.required(cx, "address", |cx, at| {
            let written = text(cx, at)?;
            written.parse().ok().or_else(|| cx.expected(at, "an IPv4 or IPv6 address"))
        });
        let workload = Self {
            name: meta.name.clone(),
            labels: meta.labels.clone(),
            service: object.optional(cx, "service", dns_label),
            address: address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            ports: object.map(cx, "ports", port),
            app_port: None,
            service_account: object
                .optional(cx, "serviceAccount", dns_label)
                .unwrap_or_else(|| "default".to_owned()),
            locality: object.optional(cx, "locality", locality).unwrap_or_default(),
            weight: object.optional(cx, "weight", whole(1..=1_000_000)).unwrap_or(1),
            ready: true,
            sidecar_port: object.optional(cx, "sidecarPort", port),
            captured: false,
            open_ports: Vec::new(),
        };
        object.finish(cx);
        address.map(|_| workload)
    }
}

fn locality(cx: &mut Context, at: &At<'_>) -> Option<Locality> {
    let mut object = Object::open(cx, at)?;
    let locality = Locality {
        region: object.optional(cx, "region", text).unwrap_or_default(),
        zone: object.optional(cx, "zone", text).unwrap_or_default(),
        sub_zone: object.optional(cx, "subZone", text).unwrap_or_default(),
    };
    object.finish(cx);
    Some(locality)
}
