//! `TrafficPolicy.spec.healthCheck`.

use std::time::Duration;

use super::decode::{At, Context, Object, text, whole};
use super::policy::some_time;

/// How endpoints are asked whether they are well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Time between two checks. Default 10 s.
    pub interval: Duration,
    /// For one check. Default 1 s.
    pub timeout: Duration,
    /// Failures in a row until an endpoint is out. Default 3.
    pub unhealthy_threshold: u32,
    /// Successes in a row until it is back. Default 2.
    pub healthy_threshold: u32,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A `GET` that has to be answered with a status from 200 to 299.
    Http {
        /// Of the request.
        path: String,
        /// `Host` of the request. Default: the service's name.
        host: Option<String>,
    },
    /// `grpc.health.v1.Health/Check` of this service; empty: of the server.
    Grpc(String),
    /// A connection.
    Tcp,
}

pub(super) fn decode(cx: &mut Context, at: &At<'_>) -> Option<HealthCheck> {
    let mut object = Object::open(cx, at)?;
    object.exactly_one(cx, &["http", "grpc", "tcp"]);
    let http = object.optional(cx, "http", http);
    let grpc = object.optional(cx, "grpc", grpc);
    let tcp = object.optional(cx, "tcp", |cx, at| {
        Object::open(cx, at)?.finish(cx);
        Some(Probe::Tcp)
    });
    let second = Duration::from_secs(1);
    let interval = object.optional(cx, "interval", some_time).unwrap_or(second * 10);
    let timeout = object.optional(cx, "timeout", some_time).unwrap_or(second);
    let threshold = whole(1..=1000);
    let unhealthy = object.optional(cx, "unhealthyThreshold", &threshold).unwrap_or(3);
    let healthy = object.optional(cx, "healthyThreshold", &threshold).unwrap_or(2);
    object.finish(cx);
    Some(HealthCheck {
        probe: http.or(grpc).or(tcp)?,
        interval,
        timeout,
        unhealthy_threshold: unhealthy,
        healthy_threshold: healthy,
    })
}

fn http(cx: &mut Context, at: &At<'_>) -> Option<Probe> {
    let mut object = Object::open(cx, at)?;
    let path = object.required(cx, "path", |cx, at| match text(cx, at)? {
        path if path.starts_with('/') => Some(path),
        _ => cx.expected(at, "a path that starts with `/`"),
    });
    let host = object.optional(cx, "host", text);
    object.finish(cx);
    Some(Probe::Http { path: path?, host })
}

fn grpc(cx: &mut Context, at: &At<'_>) -> Option<Probe> {
    let mut object = Object::open(cx, at)?;
    let service = object.optional(cx, "service", text).unwrap_or_default();
    object.finish(cx);
    Some(Probe::Grpc(service))
}
