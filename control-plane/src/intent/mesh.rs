//! `Mesh`: what holds for the whole mesh.

use std::time::Duration;

use super::decode::{At, Context, Object, boolean, choice, dns_name, percent, text, whole};
use super::meta::Meta;
use super::policy::some_time;

/// `pillion.io/v1alpha1 Mesh`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mesh {
    /// SPIFFE trust domain of every identity of the mesh. Default `cluster.local`.
    pub trust_domain: String,
    /// Whether sidecars take plain text. Default `Strict`.
    pub mtls: Mtls,
    /// What becomes of traffic to hosts that the mesh does not know. Default `Passthrough`.
    pub outbound: Outbound,
    /// Where spans go. Default: nowhere.
    pub tracing: Option<Tracing>,
    /// Access log of every sidecar. Default: none.
    pub access_log: Option<AccessLog>,
}

impl Default for Mesh {
    fn default() -> Self {
        Self {
            trust_domain: "cluster.local".to_owned(),
            mtls: Mtls::Strict,
            outbound: Outbound::Passthrough,
            tracing: None,
            access_log: None,
        }
    }
}

/// Whether sidecars take plain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mtls {
    /// mTLS only.
    Strict,
    /// mTLS and plain text, so that workloads without a sidecar take part.
    Permissive,
}

/// What becomes of traffic to unknown hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outbound {
    /// It goes where it was going.
    Passthrough,
    /// It is refused.
    RegistryOnly,
}

/// Where spans go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// Host of the OTLP gRPC receiver: an IP address or a DNS name.
    pub host: String,
    /// Its port, 4317 if the URL has none.
    pub port: u16,
    /// Share of new traces that is kept, in percent. Default 1.
    pub sampling_percent: f64,
    /// Which further spans sidecars of ours keep, once they know what came of the request. Default: none.
    pub tail: Option<Tail>,
}

/// Spans that are kept though their trace is not in the share: by each sidecar, when the exchange is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// Of exchanges that took longer. Default: none for being slow.
    pub slower_than: Option<Duration>,
    /// Of exchanges that failed. Default: true.
    pub failed: bool,
    /// Most of them in a second, for each sidecar. Default 100.
    pub per_second: u32,
}

/// An access log that every sidecar writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// File, such as `/dev/stdout` (the default).
    pub file: String,
    /// Default `Text`.
    pub format: AccessLogFormat,
}

/// How an access log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// Envoy's default format string.
    Text,
    /// One JSON object a line.
    Json,
}

impl Mesh {
    pub(crate) fn decode(cx: &mut Context, _meta: &Meta, spec: &At<'_>) -> Option<Self> {
        let mut object = Object::open(cx, spec)?;
        let default = Self::default();
        let mesh = Self {
            trust_domain: object
                .optional(cx, "trustDomain", dns_name)
                .unwrap_or(default.trust_domain),
            mtls: object
                .optional(
                    cx,
                    "mtls",
                    choice(&[("Strict", Mtls::Strict), ("Permissive", Mtls::Permissive)]),
                )
                .unwrap_or(default.mtls),
            outbound: object
                .optional(
                    cx,
                    "outbound",
                    choice(&[
                        ("Passthrough", Outbound::Passthrough),
                        ("RegistryOnly", Outbound::RegistryOnly),
                    ]),
                )
                .unwrap_or(default.outbound),
            tracing: object.optional(cx, "tracing", tracing),
            access_log: object.optional(cx, "accessLog", access_log),
        };
        object.finish(cx);
        Some(mesh)
    }
}

impl Tracing {
    /// Reads `http://HOST[:PORT]` as host and port.
    #[must_use]
    pub fn endpoint(url: &str) -> Option<(String, u16)> {
        let authority = url.strip_prefix("http://")?.trim_end_matches('/');
        let authority: http::uri::Authority = authority.parse().ok()?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Some((host, authority.port_u16().unwrap_or(4317)))
    }
}

fn tracing(cx: &mut Context, at: &At<'_>) -> Option<Tracing> {
    let mut object = Object::open(cx, at)?;
    let endpoint = object.required(cx, "otlp", |cx, at| {
        let url = text(cx, at)?;
        let endpoint = Tracing::endpoint(&url);
        endpoint.or_else(|| {
            cx.expected(at, "the URL of an OTLP gRPC receiver, such as `http://127.0.0.1:4317`")
        })
    });
    let sampling_percent = object.optional(cx, "samplingPercent", percent).unwrap_or(1.0);
    let tail = object.optional(cx, "tail", tail);
    object.finish(cx);
    let (host, port) = endpoint?;
    Some(Tracing { host, port, sampling_percent, tail })
}

fn tail(cx: &mut Context, at: &At<'_>) -> Option<Tail> {
    let mut object = Object::open(cx, at)?;
    let slower_than = object.optional(cx, "slowerThan", some_time);
    let failed = object.optional(cx, "failed", boolean).unwrap_or(true);
    let per_second = object.optional(cx, "perSecond", whole(1..=100_000)).unwrap_or(100);
    object.finish(cx);
    if !failed && slower_than.is_none() {
        return cx.error(at, "keeps nothing: expected `slowerThan`, or `failed` to be true");
    }
    Some(Tail { slower_than, failed, per_second })
}

fn access_log(cx: &mut Context, at: &At<'_>) -> Option<AccessLog> {
    let mut object = Object::open(cx, at)?;
    let file = object.optional(cx, "file", text).unwrap_or_else(|| "/dev/stdout".to_owned());
    let names = choice(&[("Text", AccessLogFormat::Text), ("Json", AccessLogFormat::Json)]);
    let format = object.optional(cx, "format", names).unwrap_or(AccessLogFormat::Text);
    object.finish(cx);
    Some(AccessLog { file, format })
}
