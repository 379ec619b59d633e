//! `Workload`.

use serde_json::Value;

use super::fields::{address, dns_label, map, object, port, text, whole};

pub(super) fn spec() -> Value {
    object(
        "One endpoint of a service that is not a pod.",
        &["address"],
        [
            ("address", address("IPv4 or IPv6 address.")),
            ("ports", map("Ports of the application by name.", port("Port number."))),
            (
                "service",
                dns_label(
                    "Service of the same namespace that it belongs to, whatever its labels are.",
                ),
            ),
            (
                "serviceAccount",
                dns_label("Last part of its SPIFFE id. Default: the account default."),
            ),
            (
                "locality",
                object(
                    "Where it runs.",
                    &[],
                    [
                        ("region", text("Region.")),
                        ("zone", text("Zone of the region.")),
                        ("subZone", text("Part of the zone.")),
                    ],
                ),
            ),
            (
                "weight",
                whole("Share of the traffic, relative to the others. Default 1.", 1, 1_000_000),
            ),
            ("sidecarPort", port("Inbound port of its sidecar. Without, it speaks plain text.")),
        ],
    )
}
