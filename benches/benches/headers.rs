//! What is done to heads on their way through.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use anyhow::anyhow;
use bytes::{Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion};
use http::HeaderMap;
use http::request::Parts;
use pillion_proxy::http::date::Date;
use pillion_proxy::http::forwarded::{self, Hop};
use pillion_proxy::http::guard::{self, Rules};
use pillion_proxy::http::h1::encode::{self, Reply, RequestHead};
use pillion_proxy::http::h1::{Framing, head};
use pillion_proxy::http::path::normalize;
use pillion_proxy::http::presence::Presence;
use pillion_proxy::http::{hop, request_id};
use pillion_proxy::telemetry::trace::TraceReason;

use crate::compiled::manager;

/// What a browser sends, about.
const REQUEST: &[u8] = b"GET /catalog/items/1234?page=2 HTTP/1.1\r\nhost: shop.example\r\n\
user-agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\naccept: text/html,application/json\r\n\
accept-language: en\r\naccept-encoding: gzip, br\r\ncookie: session=0123456789abcdef; theme=dark\r\n\
x-request-id: 01234567-89ab-4def-8123-456789abcdef\r\n\
traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1024\r\n\
cache-control: no-store\r\nvary: accept\r\nx-envoy-upstream-service-time: 3\r\nserver: pillion\r\n\r\n";

type Group<'a> = BenchmarkGroup<'a, WallTime>;

pub(crate) fn benches(criterion: &mut Criterion) -> anyhow::Result<()> {
    let mut group = criterion.benchmark_group("headers");
    let rules = Rules {
        max_head: 60 * 1024,
        max_lines: 100,
        accept_http_10: false,
        allow_chunked_length: false,
    };
    guard::check(REQUEST, &rules).map_err(|verdict| anyhow!("{verdict:?}"))?;
    group.bench_function("guard", |bench| {
        bench.iter(|| guard::check(black_box(REQUEST), &rules).is_ok());
    });
    let bytes = Bytes::from_static(REQUEST);
    group.bench_function("parse", |bench| bench.iter(|| head::request(bytes.clone()).is_ok()));
    let request = head::request(bytes.clone())?;
    on_copies(&mut group, "strip_hop", &request, hop::strip);
    let mut more = head::request(bytes.clone())?;
    for (name, value) in [("connection", "keep-alive, x-own"), ("x-own", "1"), ("te", "trailers")] {
        more.headers.insert(name, http::HeaderValue::from_static(value));
    }
    on_copies(&mut group, "strip_hop_with_connection", &more, hop::strip);
    let manager = manager()?;
    let peer = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
    let from = Hop { peer, port: Some(80), ..Hop::default() };
    on_copies(&mut group, "forwarded", &request, |headers| {
        let present = Presence::of(headers);
        black_box(forwarded::apply(headers, present, &manager, &from));
    });
    for (name, path) in [("clean", "/catalog/items/1234?page=2"), ("dots", "/a//b/../c/./d%41?x=1")]
    {
        group.bench_function(format!("path_{name}"), |bench| {
            bench.iter(|| normalize(black_box(path), manager.path));
        });
    }
    let mut random = 1_u128;
    group.bench_function("request_id", |bench| {
        bench.iter(|| {
            random = random.wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645) | 1;
            request_id::generate(random, TraceReason::No)
        });
    });
    encoding(&mut group, &request)?;
    group.finish();
    Ok(())
}

fn encoding(group: &mut Group<'_>, request: &Parts) -> anyhow::Result<()> {
    let mut out = BytesMut::with_capacity(4096);
    group.bench_function("encode_request", |bench| {
        bench.iter(|| {
            out.clear();
            encode::request(&RequestHead::from(request), Framing::None, &mut out);
            out.len()
        });
    });
    let response = head::response(Bytes::from_static(RESPONSE))?;
    let mut date = Date::default();
    group.bench_function("encode_response", |bench| {
        bench.iter(|| {
            out.clear();
            let reply = Reply {
                framing: Framing::Length(1024),
                http_10: false,
                connection: None,
                title_case: false,
                date: Some(date.at(SystemTime::UNIX_EPOCH).as_bytes()),
            };
            encode::response(&response, reply, &mut out);
            out.len()
        });
    });
    Ok(())
}

fn on_copies(group: &mut Group<'_>, name: &str, request: &Parts, change: impl Fn(&mut HeaderMap)) {
    group.bench_function(name, |bench| {
        bench.iter_batched_ref(|| request.headers.clone(), &change, BatchSize::SmallInput);
    });
}
