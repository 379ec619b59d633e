//! Decisions, spans, and the second look.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::model::Name;
use crate::model::collector::{Collector, CollectorProtocol};
use crate::model::format::Template;
use crate::model::tracing::Tail;

fn tracer(random_sampling: f64) -> (Tracer, mpsc::Receiver<FinishedSpan>) {
    let (queue, spans) = SpanQueue::new(&Registry::new());
    let config = Tracing {
        exporter: Collector {
            cluster: "otel".into(),
            authority: "otel".into(),
            protocol: CollectorProtocol::Grpc,
            headers: Vec::new(),
        },
        service_name: "web.default".into(),
        resource: Vec::new(),
        client_sampling: 100.0,
        random_sampling,
        overall_sampling: 100.0,
        sampler: Sampler::Manager,
        tail: None,
        custom_tags: Vec::new(),
        spawn_upstream_span: false,
        max_path_tag_length: 256,
    };
    (Tracer::new(Arc::new(config), queue), spans)
}

#[test]
fn a_request_that_is_not_sampled_tells_so_to_the_next_hop_and_is_not_recorded() {
    let (tracer, mut spans) = tracer(0.0);
    let span = tracer.start(None, &mut || 7, UNIX_EPOCH, (false, true, true));
    let mut headers = HeaderMap::new();
    span.inject(&mut headers, true);
    let text = headers["traceparent"].to_str().unwrap().to_owned();
    assert!(text.ends_with("-00"), "{text}");
    span.finish(&Record::default(), UNIX_EPOCH, None);
    assert!(spans.try_recv().is_err());
    let next =
        tracer.start(TraceContext::extract(&headers), &mut || 9, UNIX_EPOCH, (false, true, true));
    assert!(!next.is_sampled());
    assert!(text.contains(&next.trace_id().to_string()));
}

#[test]
fn a_sampled_parent_is_followed() {
    let (tracer, mut spans) = tracer(0.0);
    let mut headers = HeaderMap::new();
    TraceContext::root(TraceId::new(1, 2), 3, true).inject(&mut headers);
    let span =
        tracer.start(TraceContext::extract(&headers), &mut || 4, UNIX_EPOCH, (false, true, false));
    span.finish(&Record { status: Some(200), ..Record::default() }, UNIX_EPOCH, None);
    let finished = spans.try_recv().unwrap();
    assert_eq!(finished.parent, Some(3));
    assert_eq!(finished.context.trace_id, TraceId::new(1, 2));
    assert!(!finished.error);
    let request = crate::telemetry::otlp::encode(&[finished]);
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(span.parent_span_id, 3_u64.to_be_bytes());
}

#[test]
fn why_a_request_is_traced() {
    let with = |name: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(name, "1".parse().unwrap());
        headers.insert("x-envoy-internal", "true".parse().unwrap());
        headers
    };
    let (tracer, _spans) = tracer(25.0);
    let reason = |headers: &HeaderMap, found, number| {
        let forced = headers.contains_key(names::X_ENVOY_FORCE_TRACE);
        let asks = headers.contains_key(names::X_CLIENT_TRACE_ID);
        tracer.reason(None, headers, (found, forced, asks), (number, 0))
    };
    let none = HeaderMap::new();
    assert_eq!(reason(&none, TraceReason::No, 2499), TraceReason::Sampled);
    assert_eq!(reason(&none, TraceReason::No, 2500), TraceReason::No);
    assert_eq!(reason(&none, TraceReason::Sampled, 2500), TraceReason::Sampled);
    assert_eq!(reason(&with("x-client-trace-id"), TraceReason::No, 9999), TraceReason::Client);
    assert_eq!(reason(&with("x-envoy-force-trace"), TraceReason::No, 9999), TraceReason::Forced);
    let mut outside = HeaderMap::new();
    outside.insert("x-envoy-force-trace", "1".parse().unwrap());
    assert_eq!(reason(&outside, TraceReason::No, 9999), TraceReason::No);
}

fn with_tail(per_second: u32, tags: &[&str]) -> (Tracer, mpsc::Receiver<FinishedSpan>) {
    let (tracer, spans) = tracer(0.0);
    let tag = |text: &&str| (Name::from("t"), Template::parse(text).unwrap());
    let config = Tracing {
        tail: Some(Tail { slower_than: Some(Duration::from_secs(1)), failed: true, per_second }),
        custom_tags: tags.iter().map(tag).collect(),
        ..(*tracer.0.config).clone()
    };
    (Tracer::new(Arc::new(config), tracer.0.queue.clone()), spans)
}

#[test]
fn what_failed_is_sent_though_the_next_hop_was_told_that_it_is_not_sampled() {
    let (tracer, mut spans) = with_tail(2, &[]);
    let begin = || tracer.start(None, &mut || 7, UNIX_EPOCH, (false, true, true));
    let mut onward = HeaderMap::new();
    begin().inject(&mut onward, true);
    assert!(onward["traceparent"].to_str().unwrap().ends_with("-00"));
    let end = |status: u16| {
        let span = begin();
        let outcome = Outcome { status: Some(status), ..Outcome::default() };
        let kept = span.look_again(&outcome, UNIX_EPOCH);
        let record = Record { status: Some(status), ..Record::default() };
        span.finish(&record, UNIX_EPOCH, kept);
        kept
    };
    assert_eq!(end(200), None);
    assert!(spans.try_recv().is_err());
    assert_eq!(end(503), Some(Why::Failed));
    let finished = spans.try_recv().unwrap();
    assert!(finished.error);
    assert!(finished.attributes.contains(&("pillion.tail", "failed".to_owned())));
    // Two in a second, and no more.
    assert_eq!((end(503), end(503)), (Some(Why::Failed), None));
    let (kept, over_limit) = &tracer.0.queue.tail;
    assert_eq!((kept.get(), over_limit.get()), (2, 1));
}

#[test]
fn a_sampled_span_needs_no_second_look() {
    let (tracer, _spans) = with_tail(1, &[]);
    let mut headers = HeaderMap::new();
    TraceContext::root(TraceId::new(1, 2), 3, true).inject(&mut headers);
    let span =
        tracer.start(TraceContext::extract(&headers), &mut || 4, UNIX_EPOCH, (false, true, true));
    assert_eq!(span.wants(), Wants::All);
    assert_eq!(span.look_again(&Outcome::default(), UNIX_EPOCH), None);
}

#[test]
fn no_more_is_kept_than_the_span_will_tell() {
    let wants = |tags: &[&str]| {
        let (tracer, _spans) = with_tail(1, tags);
        let span = tracer.start(None, &mut || 7, UNIX_EPOCH, (false, true, true));
        match span.wants() {
            Wants::Head(names) => Some(names.iter().any(|name| name == "x-user")),
            Wants::All => None,
            Wants::Nothing => panic!("there is a second look"),
        }
    };
    assert_eq!(wants(&[]), Some(false));
    assert_eq!(wants(&["%REQ(X-USER)%"]), Some(true));
    assert_eq!(wants(&["%REQ(X-USER)%", "%RESP(X-COST)%"]), None);
    let (tracer, _spans) = tracer(0.0);
    let span = tracer.start(None, &mut || 7, UNIX_EPOCH, (false, true, true));
    assert_eq!(span.wants(), Wants::Nothing);
}
