//! Compression of answers and requests, and the other way round.

use crate::differential::case::{Case, Request, get, post};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

const FILTERS: &str = "
- name: gzip
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
    response_direction_config: {common_config: {min_content_length: 100, content_type: [text/plain, application/octet-stream, application/json]}}
    compressor_library: {name: fast, typed_config: {
      '@type': type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip, compression_level: BEST_SPEED}}
- name: brotli
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
    response_direction_config: {common_config: {min_content_length: 100}, disable_on_etag_header: true}
    compressor_library: {name: small, typed_config: {
      '@type': type.googleapis.com/envoy.extensions.compression.brotli.compressor.v3.Brotli}}
- name: zstd
  disabled: true
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
    response_direction_config: {common_config: {min_content_length: 100}, remove_accept_encoding_header: true,
      uncompressible_response_codes: [404]}
    compressor_library: {name: new, typed_config: {
      '@type': type.googleapis.com/envoy.extensions.compression.zstd.compressor.v3.Zstd}}
- name: pack
  disabled: true
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
    request_direction_config: {common_config: {enabled: {default_value: true}, content_type: [text/plain]}}
    response_direction_config: {common_config: {enabled: {default_value: false}}}
    compressor_library: {name: pack, typed_config: {
      '@type': type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}}
- name: unpack
  disabled: true
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.decompressor.v3.Decompressor
    request_direction_config: {advertise_accept_encoding: false}
    decompressor_library: {name: unpack, typed_config: {
      '@type': type.googleapis.com/envoy.extensions.compression.gzip.decompressor.v3.Gzip}}";

const ON_PURPOSE: OnPurpose = &[
    (
        "headers-about-the-representation.4",
        "headers: only envoy {vary: accept-encoding, Accept-Encoding} | only ours",
        "names of headers are the same in any case (RFC 9110 section 5.1): it is said already",
    ),
    (
        "",
        "metric http.http.compressor.fast.gzip.response.total_compressed_bytes",
        "another library",
    ),
];

#[tokio::test]
async fn compressor() -> anyhow::Result<()> {
    same(Part {
        cases: [answers(), routes()].into_iter().flatten().collect(),
        filters: FILTERS,
        metrics: &["http.http.compressor.fast.gzip", "http.http.compressor.small.brotli.header"],
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

fn asks(accept: &str) -> Request {
    get("/").header("accept-encoding", accept)
}

fn answers() -> Vec<Case> {
    const ROUTE: &str = "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}";
    vec![
        Case::new("the coding that the client likes best", ROUTE)
            .ask(get("/"), "200 - r a")
            .ask(asks("gzip"), "200 - r a")
            .ask(asks("gzip").http2(), "200 - r a")
            .ask(asks("deflate, gzip;q=1.0, *;q=0.5"), "200 - r a")
            .ask(asks("gzip;q=0"), "200 - r a")
            .ask(asks("identity"), "200 - r a")
            .ask(asks("identity, gzip;q=0.5"), "200 - r a")
            .ask(asks("*"), "200 - r a")
            .ask(asks("deflate"), "200 - r a")
            .ask(asks("gzip, br;q=0.9"), "200 - r a"),
        Case::new("answers worth compressing", ROUTE)
            .ask(asks("gzip").does("size=99 header=content-type:text/plain"), "200 - r a")
            .ask(asks("gzip").does("size=100 header=content-type:text/plain"), "200 - r a")
            .ask(asks("gzip").does("size=50 chunked header=content-type:text/plain"), "200 - r a")
            .ask(
                asks("gzip").does("size=50000 header=content-type:text/plain;charset=utf-8"),
                "200 - r a",
            )
            .ask(asks("gzip").does("size=50000 header=content-type:image/png"), "200 - r a")
            .ask(asks("gzip").does("size=500 header=content-type:text/html"), "200 - r a")
            .ask(asks("br").does("size=500 header=content-type:text/html"), "200 - r a")
            .ask(asks("br, gzip").does("size=500 header=content-type:text/html"), "200 - r a")
            .ask(asks("gzip").does("size=500 header=content-encoding:br"), "200 - r a")
            .ask(asks("gzip").does("size=500 header=cache-control:no-transform"), "200 - r a")
            .ask(asks("gzip").does("size=500 status=404"), "404 - r a"),
        Case::new("headers about the representation", ROUTE)
            .ask(asks("gzip").does("header=etag:\"strong\""), "200 - r a")
            .ask(asks("gzip").does("header=etag:W/\"weak\""), "200 - r a")
            .ask(asks("br").does("header=etag:W/\"weak\""), "200 - r a")
            .ask(asks("gzip").does("header=vary:Origin"), "200 - r a")
            .ask(asks("gzip").does("header=vary:accept-encoding"), "200 - r a")
            .ask(asks("deflate").does("header=vary:Origin"), "200 - r a"),
    ]
}

fn routes() -> Vec<Case> {
    vec![
        Case::new(
            "compression by routes",
            "{routes: [
                {name: 'off', match: {prefix: /off}, route: {cluster: a}, typed_per_filter_config: {
                    gzip: {'@type': type.googleapis.com/envoy.extensions.filters.http.compressor.v3.CompressorPerRoute, disabled: true}}},
                {name: keep, match: {prefix: /keep}, route: {cluster: a}, typed_per_filter_config: {
                    gzip: {'@type': type.googleapis.com/envoy.extensions.filters.http.compressor.v3.CompressorPerRoute,
                        overrides: {response_direction_config: {remove_accept_encoding_header: true}}}}},
                {name: zstd, match: {prefix: /zstd}, route: {cluster: a}, typed_per_filter_config: {
                    zstd: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}}]}",
        )
        .ask(get("/off").header("accept-encoding", "gzip"), "200 - off a")
        .ask(get("/keep").header("accept-encoding", "gzip"), "200 - keep a")
        .ask(get("/zstd").header("accept-encoding", "zstd"), "200 - zstd a")
        .ask(get("/zstd").header("accept-encoding", "zstd").does("status=404"), "404 - zstd a"),
        Case::new(
            "own answers are compressed too",
            "{routes: [{name: direct, match: {prefix: /}, direct_response: {status: 200, body: {inline_string:
                'a text that is long enough to be worth the while of compressing it, with some words, and some more words, \
                 so that there is something to gain by it'}}}]}",
        )
        .ask(get("/").header("accept-encoding", "gzip"), "200 - direct -"),
        Case::new(
            "bodies packed on one hop and unpacked on the next",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}, typed_per_filter_config: {
                pack: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}},
                unpack: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {}}}}]}",
        )
        .ask(
            post("/", &"text and text and text ".repeat(20)).header("content-type", "text/plain"),
            "200 - r a",
        )
        .ask(post("/", "short").header("content-type", "text/plain"), "200 - r a")
        .ask(post("/", &"text ".repeat(20)).header("content-type", "image/png"), "200 - r a"),
    ]
}
