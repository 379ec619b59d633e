//! `ExternalService`.

use serde_json::Value;

use super::fields::{choice, dns_label, dns_name, list, object, port, text};

pub(super) fn spec() -> Value {
    let mut hosts = list("Names that programs ask for.", 100, dns_name("A whole host name."));
    hosts["minItems"] = 1.into();
    let mut ports = list("Ports.", 100, external_port());
    ports["minItems"] = 1.into();
    object(
        "A host outside of the mesh that its workloads may call.",
        &["hosts", "ports"],
        [
            ("hosts", hosts),
            (
                "addresses",
                list(
                    "Where it is: addresses or DNS names. Default: the first host, by DNS.",
                    100,
                    text("Address or name."),
                ),
            ),
            ("ports", ports),
            (
                "via",
                object(
                    "Its HTTP leaves through a gateway.",
                    &["gateway"],
                    [
                        ("gateway", dns_name("Name of the Gateway.")),
                        ("namespace", dns_label("Its namespace. Default: the same.")),
                    ],
                ),
            ),
        ],
    )
}

fn external_port() -> Value {
    let tls = object(
        "TLS begins at the proxy, so that programs speak plain text.",
        &[],
        [
            ("sni", dns_name("Server name that is asked for. Default: the first host.")),
            ("caFile", text("PEM file with the trusted roots, on the machine of the proxy.")),
            (
                "subjectAltNames",
                list(
                    "DNS names of which the certificate bears one. Default: sni.",
                    100,
                    dns_name("A name."),
                ),
            ),
        ],
    );
    object(
        "A port.",
        &["port"],
        [
            ("name", text("For people.")),
            ("port", port("Port that programs name.")),
            ("targetPort", port("Port that is connected to. Default: port.")),
            (
                "appProtocol",
                choice(
                    "What programs speak. Default http; tls on 443.",
                    &["http", "http2", "h2c", "grpc", "tls", "tcp", "https"],
                ),
            ),
            ("tls", tls),
        ],
    )
}
