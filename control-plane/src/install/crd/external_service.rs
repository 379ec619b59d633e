//! `ExternalService`.

use serde_json::Value;

use super::fields::{
    choice, dns_label, dns_name, host, host_or_address, list, object, port, rule, text,
};

/// As for the ports of a Service.
const PROTOCOLS: [&str; 15] = [
    "http",
    "kubernetes.io/ws",
    "http2",
    "h2c",
    "kubernetes.io/h2c",
    "grpc",
    "tcp",
    "tls",
    "https",
    "mongo",
    "mysql",
    "redis",
    "postgres",
    "postgresql",
    "amqp",
];

pub(super) fn spec() -> Value {
    let mut hosts = list("Names that programs ask for.", 100, host("A whole host name."));
    hosts["minItems"] = 1.into();
    let ports = list("Ports.", 100, external_port());
    let mut ports = rule(
        ports,
        "self.all(one, self.exists_one(other, other.port == one.port))",
        "a port stands twice in it",
    );
    ports["minItems"] = 1.into();
    let spec = object(
        "A host outside of the mesh that its workloads may call.",
        &["hosts", "ports"],
        [
            ("hosts", hosts),
            (
                "addresses",
                list(
                    "Where it is: addresses or DNS names. Default: the first host, by DNS.",
                    100,
                    host_or_address("Address or name."),
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
    );
    rule(
        spec,
        "!has(self.via) || self.ports.all(one, has(one.appProtocol) ? \
         one.appProtocol in ['http', 'http2', 'h2c', 'grpc', 'kubernetes.io/ws', 'kubernetes.io/h2c'] : \
         one.port != 443 || has(one.tls))",
        "only HTTP can leave through a gateway",
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
            ("appProtocol", choice("What programs speak. Default http; tls on 443.", &PROTOCOLS)),
            ("tls", tls),
        ],
    )
}
