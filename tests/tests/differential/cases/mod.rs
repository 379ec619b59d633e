//! The tables. A theme with filters, clusters or listeners of its own is a [`Part`] with a test of
//! its own in its file; what needs none of these is one part together.

mod access_log;
mod access_log_shapes;
mod balancing;
mod chains;
mod compressor;
mod concurrency;
mod ext_authz;
mod failures;
mod faults;
mod filters;
mod forwarding;
mod grpc_web;
mod handshakes;
mod header_mutation;
mod header_operators;
mod headers;
mod health;
mod inside;
mod jwt;
mod local_replies;
mod metadata;
mod names;
mod noted_routes;
mod overload;
mod protection;
mod protocols;
mod rate_limits;
mod rbac;
mod rbac_matcher;
mod retries;
mod retry_policies;
mod route_details;
mod routing;
mod tls;
mod tracing;

use super::part::{OnPurpose, Part};

const ON_PURPOSE: OnPurpose = &[
    (
        "hop-by-hop-headers-of-the-answer.0",
        "headers: only envoy {x-hop: 1} | only ours {}",
        "what `connection` names stays on this hop (RFC 9110 section 7.6.1); Envoy passes it on",
    ),
    (
        "no-host.0",
        "access log: envoy 400 - - - | ours 400 DPE - -",
        "the flag says that the client broke the protocol; Envoy keeps that for its parser",
    ),
    (
        "http-1-0.0",
        "",
        "refused by Envoy's parser and not logged, refused and logged here; closing goes without \
         saying in HTTP/1.0",
    ),
    (
        "http-1-0-if-it-is-allowed.0",
        "headers: only envoy {connection: close} | only ours {}",
        "closing goes without saying in HTTP/1.0",
    ),
    (
        "bad-requests.0",
        "",
        "both lengths: the chunks count and the other length is dropped (RFC 9112 section 6.3), \
         where Envoy refuses",
    ),
    (
        "bad-requests",
        "headers: only envoy {server: …} | only ours {}",
        "said by the parser, which does not know our name",
    ),
];

#[tokio::test]
async fn the_common_part() -> anyhow::Result<()> {
    let parts = [
        routing::cases(),
        headers::cases(),
        failures::cases(),
        retries::cases(),
        protocols::cases(),
        tls::cases(),
    ];
    super::same(Part {
        cases: parts.into_iter().flatten().collect(),
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}
