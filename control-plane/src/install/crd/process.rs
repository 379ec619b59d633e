//! `Process`.

use serde_json::Value;

use super::fields::{
    any_text, boolean, choice, dns_label, duration, list, map, object, quantity, some_time, text,
    whole,
};

pub(super) fn spec() -> Value {
    let mut command = list(
        "Program and arguments. Without a slash it is looked for beside `pillion`, then in PATH.",
        1000,
        any_text("A word."),
    );
    command["minItems"] = 1.into();
    object(
        "A program and how to keep it running.",
        &["command"],
        [
            ("command", command),
            ("service", dns_label("The service that it belongs to. Default: its own name.")),
            ("serviceAccount", dns_label("Last part of its SPIFFE id. Default: the service.")),
            ("env", map("Added to the environment.", any_text("The value."))),
            ("workingDir", text("Where it runs. Default: where `pillion up` does.")),
            ("instances", whole("How many of them. Default 1.", 0, 100)),
            ("listens", boolean("It listens on the port that it finds in PORT. Default true.")),
            (
                "healthCheck",
                object(
                    "What says that it is well. Default: its port accepts connections.",
                    &["path"],
                    [
                        ("path", text("Path that answers 200.")),
                        ("interval", some_time("Between two checks, and for one. Default 2s.")),
                        (
                            "unhealthyThreshold",
                            whole("Failures in a row until it is out. Default 3.", 1, 1000),
                        ),
                    ],
                ),
            ),
            (
                "restart",
                choice(
                    "When it is started again. Default Always.",
                    &["Always", "OnFailure", "Never"],
                ),
            ),
            ("terminationGracePeriod", duration("From SIGTERM to SIGKILL. Default 5s.")),
            (
                "resources",
                object(
                    "What it may use.",
                    &[],
                    [(
                        "limits",
                        object(
                            "What an instance may use at most, where control groups are allowed.",
                            &[],
                            [
                                ("cpu", quantity("Processors, such as 500m or 2.")),
                                ("memory", quantity("Memory, such as 128Mi or 1G.")),
                            ],
                        ),
                    )],
                ),
            ),
        ],
    )
}
