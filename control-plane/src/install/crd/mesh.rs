//! `Mesh`.

use serde_json::Value;

use super::fields::{
    boolean, choice, dns_name, object, pattern, percent, rule, some_time, text, whole,
};

/// Host, or address in brackets if it is of IPv6, and perhaps a port.
const OTLP: &str = r"^http://([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?/*$";

pub(super) fn spec() -> Value {
    object(
        "What holds for the whole mesh.",
        &[],
        [
            (
                "trustDomain",
                dns_name("SPIFFE trust domain of every identity. Default cluster.local."),
            ),
            (
                "mtls",
                choice(
                    "Whether sidecars take plain text: Strict (the default) is mTLS only.",
                    &["Strict", "Permissive"],
                ),
            ),
            (
                "outbound",
                choice(
                    "What becomes of traffic to hosts that the mesh does not know: Passthrough (the default) lets it go \
                     where it was going, RegistryOnly refuses it.",
                    &["Passthrough", "RegistryOnly"],
                ),
            ),
            (
                "tracing",
                object(
                    "Where spans go. Default: nowhere.",
                    &["otlp"],
                    [
                        (
                            "otlp",
                            pattern(
                                "OTLP gRPC receiver, such as http://collector.tracing:4317.",
                                OTLP,
                            ),
                        ),
                        (
                            "samplingPercent",
                            percent("Share of new traces that is kept, in percent. Default 1."),
                        ),
                        ("tail", tail()),
                    ],
                ),
            ),
            (
                "accessLog",
                object(
                    "Access log of every sidecar. Default: none.",
                    &[],
                    [
                        ("file", text("Default /dev/stdout.")),
                        ("format", choice("Default Text.", &["Text", "Json"])),
                    ],
                ),
            ),
        ],
    )
}

fn tail() -> Value {
    let schema = object(
        "Spans that sidecars keep though their trace is not in the share, once they know what came of the request. \
         Default: none.",
        &[],
        [
            ("slowerThan", some_time("Keep what took longer. Default: nothing for being slow.")),
            ("failed", boolean("Keep what failed. Default true.")),
            (
                "perSecond",
                whole("Most of them in a second, for each sidecar. Default 100.", 1, 100_000),
            ),
        ],
    );
    rule(
        schema,
        "has(self.slowerThan) || !has(self.failed) || self.failed",
        "keeps nothing: expected slowerThan, or failed to be true",
    )
}
