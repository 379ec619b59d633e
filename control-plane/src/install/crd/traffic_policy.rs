//! `TrafficPolicy`.

use serde_json::{Value, json};

use super::fields::{
    choice, dns_name, duration, list, object, pattern, percent, rule, some_time, text, whole,
};
use crate::intent::RETRY_ON;

/// RFC 9110, `token`.
const HEADER_NAME: &str = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";

pub(super) fn spec() -> Value {
    let spec = object(
        "How a service is called. What is not said keeps its default.",
        &["targetRefs"],
        [
            ("targetRefs", targets()),
            ("loadBalancer", load_balancer()),
            ("circuitBreaker", circuit_breaker()),
            ("outlierDetection", outlier_detection()),
            ("healthCheck", health_check()),
            ("retry", retry()),
            ("rateLimit", rate_limit()),
            (
                "timeout",
                object(
                    "0s is none.",
                    &[],
                    [
                        (
                            "request",
                            duration("For the whole request with its retries. Default none."),
                        ),
                        ("idle", duration("Without a byte either way.")),
                        ("connect", some_time("For a TCP connection to an endpoint. Default 2s.")),
                    ],
                ),
            ),
        ],
    );
    let spec = rule(
        spec,
        "!has(self.rateLimit) || !self.targetRefs.exists(one, one.kind == 'Service')",
        "rateLimit holds for a Gateway, or for a route at gateways",
    );
    rule(
        spec,
        "!self.targetRefs.exists(one, one.kind == 'Gateway') || !(has(self.loadBalancer) || \
         has(self.circuitBreaker) || has(self.outlierDetection) || has(self.healthCheck) || has(self.retry) || \
         (has(self.timeout) && (has(self.timeout.request) || has(self.timeout.idle) || has(self.timeout.connect))))",
        "for a Gateway only rateLimit holds; the rest is for Services and routes",
    )
}

fn targets() -> Value {
    let target = object(
        "An object of the same namespace.",
        &["kind", "name"],
        [
            (
                "group",
                choice(
                    "Empty (the default) for a Service, else gateway.networking.k8s.io.",
                    &["", "gateway.networking.k8s.io"],
                ),
            ),
            ("kind", choice("Kind.", &["Service", "Gateway", "HTTPRoute", "GRPCRoute"])),
            ("name", dns_name("Name.")),
        ],
    );
    let target = rule(
        target,
        "(has(self.group) && self.group != '') == (self.kind != 'Service')",
        "expected a Service (group \"\"), or a Gateway, HTTPRoute or GRPCRoute (group gateway.networking.k8s.io)",
    );
    let mut targets = list(
        "What it holds for. On a Service: loadBalancer, circuitBreaker, outlierDetection, healthCheck and timeout.connect hold for \
         its endpoints, the rest for requests to its host name. On a route: the rest, for that route.",
        1000,
        target,
    );
    targets["minItems"] = 1.into();
    targets
}

fn rate_limit() -> Value {
    let mut address =
        json!({"type": "boolean", "description": "Its address; of IPv6, its network of 64 bits."});
    address["enum"] = json!([true]);
    let by = rule(
        object(
            "Each client has a limit of its own, told apart by one of these. Default: all share one.",
            &[],
            [
                ("clientAddress", address),
                (
                    "header",
                    pattern(
                        "The value of a header. Requests without it are one client together.",
                        HEADER_NAME,
                    ),
                ),
            ],
        ),
        "[has(self.clientAddress), has(self.header)].filter(one, one).size() == 1",
        "expected exactly one of clientAddress, header",
    );
    let per = rule(
        duration("Default 1s; at least 50ms."),
        "duration(self) >= duration('50ms')",
        "expected a duration of 50ms or more",
    );
    object(
        "How many requests a gateway takes; for a Gateway, or for a route at gateways.",
        &["requests"],
        [
            ("requests", whole("So many in each `per`.", 1, 1_000_000_000)),
            ("per", per),
            ("burst", whole("So many at once. Default: requests.", 1, 1_000_000_000)),
            ("by", by),
            (
                "maxClients",
                whole("Clients that are told apart at a time. Default 10000.", 1, 1_000_000),
            ),
        ],
    )
}

fn load_balancer() -> Value {
    let cookie = object(
        "A cookie, made by the proxy if there is none and a life is given.",
        &["name"],
        [("name", text("Its name.")), ("ttl", duration("Its life; 0s is a session cookie."))],
    );
    let mut source_ip = json!({"type": "boolean", "description": "The client's address."});
    source_ip["enum"] = json!([true]);
    let hash_on = object(
        "What the hash of RingHash and Maglev is made of: one of these.",
        &[],
        [
            ("header", pattern("A request header.", HEADER_NAME)),
            ("cookie", cookie),
            ("sourceIp", source_ip),
        ],
    );
    let hash_on = rule(
        hash_on,
        "[has(self.header), has(self.cookie), has(self.sourceIp)].filter(one, one).size() == 1",
        "expected exactly one of header, cookie, sourceIp",
    );
    object(
        "How an endpoint is chosen.",
        &[],
        [
            (
                "type",
                choice(
                    "Default LeastRequest.",
                    &["RoundRobin", "LeastRequest", "PeakEwma", "Random", "RingHash", "Maglev"],
                ),
            ),
            ("hashOn", hash_on),
        ],
    )
}

fn circuit_breaker() -> Value {
    let limit = |description: &str| whole(description, 0, u32::MAX);
    object(
        "Limits of what is under way at once, per sidecar. Default: none.",
        &[],
        [
            ("maxConnections", limit("Connections.")),
            ("maxPendingRequests", limit("Requests that wait for a connection.")),
            ("maxRequests", limit("Requests.")),
            (
                "maxRetries",
                limit("Retries; takes the place of the retry budget if none is written."),
            ),
        ],
    )
}

fn outlier_detection() -> Value {
    let count = |description: &str| whole(description, 0, u32::MAX);
    let detection = object(
        "When an endpoint is taken out, and for how long.",
        &[],
        [
            ("consecutive5xx", count("5xx in a row. 0 is never.")),
            ("consecutiveGatewayErrors", count("502, 503 or 504 in a row. 0 is never.")),
            (
                "consecutiveLocalOriginFailures",
                count("Failed connects, resets or timeouts in a row. 0 is never."),
            ),
            ("interval", some_time("Time between two looks.")),
            ("baseEjectionTime", some_time("Time out, multiplied by how often it was out before.")),
            ("maxEjectionTime", some_time("Longest time out.")),
            (
                "maxEjectionPercent",
                whole("Share of the endpoints that may be out at once, in percent.", 0, 100),
            ),
        ],
    );
    rule(
        detection,
        "!has(self.baseEjectionTime) || !has(self.maxEjectionTime) || \
         duration(self.baseEjectionTime) <= duration(self.maxEjectionTime)",
        "baseEjectionTime is longer than maxEjectionTime",
    )
}

fn health_check() -> Value {
    let http = object(
        "A GET that has to be answered with a status from 200 to 299. A port that speaks no HTTP is checked by \
         connecting.",
        &["path"],
        [
            ("path", pattern("Of the request.", "^/")),
            ("host", text("Host of the request. Default: the service's name.")),
        ],
    );
    let grpc = object(
        "A call of grpc.health.v1.Health/Check. A port that does not speak HTTP/2 is checked by connecting.",
        &[],
        [("service", text("Which service. Default: the server as a whole."))],
    );
    let check = object(
        "How endpoints are asked whether they are well, by everybody who calls them.",
        &[],
        [
            ("http", http),
            ("grpc", grpc),
            ("tcp", object("A connection.", &[], [])),
            (
                "interval",
                some_time("Time between two checks. Default 10s; a minute while nobody calls."),
            ),
            ("timeout", some_time("For one check. Default 1s.")),
            (
                "unhealthyThreshold",
                whole("Failures in a row until an endpoint is out. Default 3.", 1, 1000),
            ),
            (
                "healthyThreshold",
                whole(
                    "Successes in a row until it is back. Default 2; the first one needs 1.",
                    1,
                    1000,
                ),
            ),
        ],
    );
    rule(
        check,
        "[has(self.http), has(self.grpc), has(self.tcp)].filter(one, one).size() == 1",
        "expected exactly one of http, grpc, tcp",
    )
}

fn retry() -> Value {
    let budget = object(
        "How many retries there may be, relative to the requests under way.",
        &[],
        [
            ("percent", percent("Share of the requests under way, in percent. Default 20.")),
            (
                "minPerSecond",
                whole("Retries a second that there may be in any case. Default 10.", 0, 1_000_000),
            ),
        ],
    );
    let retry = object(
        "What is tried again. Default: only what provably was not processed.",
        &[],
        [
            (
                "on",
                list(
                    "Conditions, in the words of Envoy's retry_on.",
                    100,
                    choice("A condition.", &RETRY_ON),
                ),
            ),
            ("codes", list("Answers that are tried again.", 200, whole("HTTP status.", 400, 599))),
            ("attempts", whole("How many times more; 0 turns retries off. Default 2.", 0, 100)),
            ("perTryTimeout", some_time("For one try.")),
            ("backoff", some_time("Shortest pause between two tries.")),
            ("budget", budget),
        ],
    );
    rule(
        retry,
        "(has(self.on) && self.on.size() > 0) || (has(self.codes) && self.codes.size() > 0) || \
         (has(self.attempts) && self.attempts == 0)",
        "expected on or codes: else nothing would be tried again",
    )
}
