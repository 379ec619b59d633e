//! Command operators whose values cannot be equal on both sides (times, addresses, ids) or that no
//! other part has: each is compared by itself, by value or by shape.

use std::collections::BTreeSet;
use std::sync::Arc;

use pillion_tests::proxy::{Kind, envoy};
use pillion_tests::venv::optional;

use crate::differential::case::{Case, Client, get, grpc, post};
use crate::differential::part::Part;
use crate::differential::world::Trust;
use crate::differential::{play, surprises};

/// How a value is compared.
#[derive(Clone, Copy)]
enum As {
    /// To the letter.
    Is,
    /// A number, whichever; or nothing.
    Number,
    /// Something, or nothing.
    Something,
    /// Digits, whichever, and everything else to the letter.
    Digits,
    /// Hexadecimal digits, whichever, and everything else to the letter.
    Hex,
}

use As::{Digits, Hex, Is, Number, Something};

const OPERATORS: &[(&str, As)] = &[
    ("%START_TIME%", Digits),
    ("%START_TIME(%Y/%m/%dT%H:%M:%S%z)%", Digits),
    ("%START_TIME(%s.%3f)%", Digits),
    ("%START_TIME(%s%6f)%", Digits),
    ("%EMIT_TIME%", Digits),
    ("%EMIT_TIME(%H:%M)%", Digits),
    ("%DURATION%", Number),
    ("%REQUEST_DURATION%", Number),
    ("%REQUEST_TX_DURATION%", Number),
    ("%RESPONSE_DURATION%", Number),
    ("%RESPONSE_TX_DURATION%", Number),
    ("%COMMON_DURATION(DS_RX_BEG:DS_RX_END)%", Number),
    ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", Number),
    ("%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:ms)%", Number),
    ("%COMMON_DURATION(US_TX_BEG:US_TX_END:ns)%", Number),
    ("%COMMON_DURATION(US_TX_END:US_RX_BEG:us)%", Number),
    ("%COMMON_DURATION(US_RX_BEG:US_RX_END)%", Number),
    ("%COMMON_DURATION(US_RX_BEG:DS_TX_BEG)%", Number),
    ("%COMMON_DURATION(DS_TX_BEG:DS_TX_END)%", Number),
    ("%STREAM_ID%", Hex),
    ("%UNIQUE_ID%", Hex),
    ("%REQ(X-REQUEST-ID)%", Hex),
    ("%TRACE_ID%", Hex),
    ("%SPAN_ID%", Hex),
    ("%CONNECTION_ID%", Number),
    ("%UPSTREAM_CONNECTION_ID%", Number),
    ("%PROTOCOL%", Is),
    ("%RESPONSE_CODE%", Is),
    ("%CONNECTION_TERMINATION_DETAILS%", Is),
    ("%ROUTE_NAME%", Is),
    ("%VIRTUAL_CLUSTER_NAME%", Is),
    ("%REQUEST_HEADERS_BYTES%", Number),
    ("%RESPONSE_HEADERS_BYTES%", Number),
    ("%RESPONSE_TRAILERS_BYTES%", Number),
    ("%BYTES_RECEIVED%", Is),
    ("%BYTES_SENT%", Is),
    ("%DOWNSTREAM_WIRE_BYTES_RECEIVED%", Number),
    ("%DOWNSTREAM_WIRE_BYTES_SENT%", Number),
    ("%UPSTREAM_WIRE_BYTES_RECEIVED%", Number),
    ("%UPSTREAM_WIRE_BYTES_SENT%", Number),
    ("%UPSTREAM_HOST%", Digits),
    ("%UPSTREAM_HOST_NAME%", Digits),
    ("%UPSTREAM_HOST_NAME_WITHOUT_PORT%", Digits),
    ("%UPSTREAM_REMOTE_ADDRESS%", Digits),
    ("%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", Is),
    ("%UPSTREAM_REMOTE_PORT%", Number),
    ("%UPSTREAM_LOCAL_ADDRESS%", Digits),
    ("%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", Is),
    ("%UPSTREAM_LOCAL_PORT%", Number),
    ("%UPSTREAM_CLUSTER%", Is),
    ("%UPSTREAM_CLUSTER_RAW%", Is),
    ("%UPSTREAM_REQUEST_ATTEMPT_COUNT%", Is),
    ("%UPSTREAM_TRANSPORT_FAILURE_REASON%", Something),
    ("%UPSTREAM_TLS_VERSION%", Is),
    ("%UPSTREAM_TLS_CIPHER%", Something),
    ("%UPSTREAM_PEER_CERT%", Something),
    ("%UPSTREAM_PEER_SUBJECT%", Is),
    ("%UPSTREAM_PEER_ISSUER%", Is),
    ("%UPSTREAM_PEER_URI_SAN%", Is),
    ("%UPSTREAM_PEER_DNS_SAN%", Is),
    ("%UPSTREAM_PEER_IP_SAN%", Is),
    ("%UPSTREAM_LOCAL_URI_SAN%", Is),
    ("%UPSTREAM_LOCAL_DNS_SAN%", Is),
    ("%UPSTREAM_PEER_CERT_V_START%", Is),
    ("%UPSTREAM_PEER_CERT_V_END(%Y-%m-%d)%", Is),
    ("%DOWNSTREAM_REMOTE_ADDRESS%", Digits),
    ("%DOWNSTREAM_REMOTE_PORT%", Number),
    ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", Digits),
    ("%DOWNSTREAM_DIRECT_REMOTE_PORT%", Number),
    ("%DOWNSTREAM_LOCAL_ADDRESS%", Digits),
    ("%DOWNSTREAM_LOCAL_PORT%", Number),
    ("%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%", Digits),
    ("%DOWNSTREAM_DIRECT_LOCAL_PORT%", Number),
    ("%DOWNSTREAM_TLS_VERSION%", Is),
    ("%DOWNSTREAM_TLS_CIPHER%", Something),
    ("%DOWNSTREAM_TLS_SESSION_ID%", Something),
    ("%DOWNSTREAM_TRANSPORT_FAILURE_REASON%", Something),
    ("%DOWNSTREAM_PEER_SUBJECT%", Is),
    ("%DOWNSTREAM_PEER_ISSUER%", Is),
    ("%DOWNSTREAM_PEER_SERIAL%", Is),
    ("%DOWNSTREAM_PEER_CHAIN_SERIALS%", Is),
    ("%DOWNSTREAM_PEER_URI_SAN%", Is),
    ("%DOWNSTREAM_PEER_DNS_SAN%", Is),
    ("%DOWNSTREAM_PEER_IP_SAN%", Is),
    ("%DOWNSTREAM_PEER_EMAIL_SAN%", Is),
    ("%DOWNSTREAM_PEER_FINGERPRINT_1%", Is),
    ("%DOWNSTREAM_PEER_FINGERPRINT_256%", Is),
    ("%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1%", Is),
    ("%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256%", Is),
    ("%DOWNSTREAM_PEER_CERT%", Is),
    ("%DOWNSTREAM_PEER_CERT_V_START%", Is),
    ("%DOWNSTREAM_PEER_CERT_V_START(%b %e %H:%M:%S %Y %Z)%", Is),
    ("%DOWNSTREAM_PEER_CERT_V_END%", Is),
    ("%DOWNSTREAM_PEER_CERT_V_END(%s)%", Is),
    ("%DOWNSTREAM_LOCAL_SUBJECT%", Is),
    ("%DOWNSTREAM_LOCAL_URI_SAN%", Is),
    ("%DOWNSTREAM_LOCAL_DNS_SAN%", Is),
    ("%DOWNSTREAM_LOCAL_IP_SAN%", Is),
    ("%DOWNSTREAM_LOCAL_EMAIL_SAN%", Is),
    ("%REQUESTED_SERVER_NAME%", Is),
    ("%REQUESTED_SERVER_NAME(SNI_ONLY)%", Is),
    ("%REQUESTED_SERVER_NAME(SNI_FIRST)%", Is),
    ("%REQUESTED_SERVER_NAME(HOST_FIRST)%", Is),
    ("%FILTER_CHAIN_NAME%", Is),
    ("%HOSTNAME%", Is),
    ("%ENVIRONMENT(HOME)%", Is),
    ("%ENVIRONMENT(NO_SUCH_VARIABLE)%", Is),
    ("%ENVIRONMENT(HOME):2%", Is),
    ("%PATH(WQ:PATH)%", Is),
    ("%PATH(NQ:ORIG)%", Is),
    ("%PATH(:ORIG)%", Is),
    ("%QUERY_PARAMS(ORIG)%", Is),
    ("%QUERY_PARAM(a):1%", Is),
    ("%GRPC_STATUS(CAMEL_STRING)%", Is),
    ("%DYNAMIC_METADATA(no.such.filter)%", Is),
    ("%METADATA(DYNAMIC:no.such.filter)%", Is),
    ("%UPSTREAM_METADATA(shelf:book)%", Is),
    ("%UPSTREAM_METADATA(shelf:book:title)%", Is),
    ("%UPSTREAM_METADATA(shelf)%", Is),
    ("%METADATA(UPSTREAM_HOST:shelf:book:pages)%", Is),
    ("%UPSTREAM_METADATA(no.such.shelf)%", Is),
    ("%FILTER_STATE(no.such.key)%", Is),
    ("%LOCAL_REPLY_BODY%", Something),
];

/// Between two values; in none of them.
const BETWEEN: &str = " ~ ";

const WIRE: &str = "hyper writes an answer after its line of the log; bytes of an HTTP/2 connection are of all its streams";
const NAME: &str = "the handshake tells the name, with or without an inspector";
const OURS: &str = "a refusal of ours has another text";

/// Operator, start of the request's name, and why it differs.
const ON_PURPOSE: &[(&str, &str, &str)] = &[
    ("%DOWNSTREAM_WIRE_BYTES_RECEIVED%", "", WIRE),
    ("%DOWNSTREAM_WIRE_BYTES_SENT%", "", WIRE),
    ("%UPSTREAM_WIRE_BYTES_RECEIVED%", "shapes-of-operators.15", WIRE),
    ("%UPSTREAM_WIRE_BYTES_SENT%", "shapes-of-operators.15", WIRE),
    ("%UPSTREAM_TLS_VERSION%", "shapes-of-operators.8", "TLS 1.3 is the newest by default"),
    ("%UPSTREAM_TLS_VERSION%", "shapes-of-operators.9", "the same"),
    ("%REQUESTED_SERVER_NAME%", "shapes-with-a-certificate", NAME),
    ("%REQUESTED_SERVER_NAME(SNI_ONLY)%", "shapes-with-a-certificate", NAME),
    ("%REQUESTED_SERVER_NAME(SNI_FIRST)%", "shapes-with-a-certificate", NAME),
    ("%BYTES_SENT%", "shapes-of-operators.10", OURS),
    ("%BYTES_SENT%", "shapes-of-operators.11", OURS),
    ("%BYTES_SENT%", "shapes-of-operators.12", OURS),
    ("%BYTES_SENT%", "shapes-of-operators.14", OURS),
];

/// Its endpoint has metadata.
const CLUSTERS: &str = "
- name: told
  type: STATIC
  load_assignment:
    cluster_name: told
    endpoints:
    - lb_endpoints:
      - endpoint: {address: @a@}
        metadata: {filter_metadata: {shelf: {book: {title: tea, pages: 12}}}}
";

fn shape(value: &str, by: As) -> String {
    let any = |is: fn(&char) -> bool| value.chars().map(|c| if is(&c) { '#' } else { c }).collect();
    match by {
        Is => value.to_owned(),
        _ if value == "-" => "-".to_owned(),
        Number if value.bytes().all(|byte| byte.is_ascii_digit()) => "a number".to_owned(),
        Number => value.to_owned(),
        Something => "something".to_owned(),
        // How long a number is, is chance too.
        Digits => {
            let marked: String = any(char::is_ascii_digit);
            let mut out = String::new();
            for c in marked.chars() {
                if c != '#' || !out.ends_with('#') {
                    out.push(c);
                }
            }
            out
        }
        Hex => any(char::is_ascii_hexdigit),
    }
}

fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "shapes of operators",
            "{virtual_clusters: [{name: vc, headers: [{name: ':method', string_match: {exact: POST}}]}], routes: [
            {name: direct, match: {prefix: /direct}, direct_response: {status: 418, body: {inline_string: tea}}},
            {name: old, match: {prefix: /old}, route: {cluster: a, prefix_rewrite: /new}},
            {name: tls, match: {prefix: /tls}, route: {cluster: tls}},
            {name: mutual, match: {prefix: /mutual}, route: {cluster: tls-mutual}},
            {name: wrong, match: {prefix: /wrong}, route: {cluster: tls-wrong-san}},
            {name: refused, match: {prefix: /refused}, route: {cluster: refused}},
            {name: nobody, match: {prefix: /empty}, route: {cluster: empty}},
            {name: told, match: {prefix: /told}, route: {cluster: told}},
            {name: late, match: {prefix: /late}, route: {cluster: a, timeout: 0.2s}},
            {name: g, match: {prefix: /test.Echo}, route: {cluster: h2}},
            {name: r, match: {prefix: /}, route: {cluster: a}}]}",
        )
        .ask(get("/p/q?a=12&b=%20x"), "200 - r a")
        .ask(get("/p").header("x-request-id", "my own"), "200 - r a")
        .ask(post("/p?a=", "content"), "200 - r a")
        .ask(post("/p", "chunks").chunked(), "200 - r a")
        .ask(get("/p").http2(), "200 - r a")
        .ask(get("/p").does("trailers chunked").header("te", "trailers"), "200 - r a")
        .ask(get("/direct?a=1"), "418 - direct -")
        .ask(get("/old/path?a=1"), "200 - old a")
        .ask(get("/tls"), "200 - tls tls")
        .ask(get("/mutual"), "200 - mutual tls-mutual")
        .ask(get("/wrong"), "503 UF wrong tls-wrong-san")
        .ask(get("/refused"), "503 UF refused refused")
        .ask(get("/empty"), "503 UH nobody empty")
        .ask(get("/told"), "200 - told told")
        .ask(get("/late").does("hang"), "504 UT late a")
        .ask(grpc("hello").does("grpc=5"), "200 - g h2"),
        Case::plain("shapes with a certificate")
            .ask(get("/x?a=1").by(Client::Right), "200 - any a")
            .ask(get("/x").by(Client::Right).http2(), "200 - any a"),
    ]
}

#[tokio::test]
async fn operators_have_values_and_shapes_as_in_envoy() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let names: Vec<&str> = OPERATORS.iter().map(|(operator, _)| *operator).collect();
    // Once for the program: the format is the same for all.
    let log: &'static str = Box::leak(names.join(BETWEEN).into_boxed_str());
    let part = Part { cases: cases(), log, clusters: CLUSTERS, ..Part::default() };
    let trust = Arc::new(Trust::new()?);
    let (theirs, ours) =
        tokio::try_join!(play(Kind::Envoy, &part, &trust), play(Kind::Pillion, &part, &trust))?;
    let mut lines = surprises(&part.cases, &theirs.0);
    let mut needed: BTreeSet<usize> = BTreeSet::new();
    for (envoy, own) in theirs.0.iter().zip(&ours.0) {
        let (envoy_says, own_says) = (envoy.more(), own.more());
        let values = envoy_says.split(BETWEEN).zip(own_says.split(BETWEEN));
        let mut compared = 0;
        for ((operator, by), (theirs, ours)) in OPERATORS.iter().zip(values) {
            compared += 1;
            if shape(theirs, *by) == shape(ours, *by) {
                continue;
            }
            let meant = ON_PURPOSE
                .iter()
                .position(|(name, start, _)| name == operator && envoy.name.starts_with(start));
            match meant {
                Some(place) => drop(needed.insert(place)),
                None => {
                    lines.push(format!("{}: {operator}: envoy {theirs} | ours {ours}", envoy.name))
                }
            }
        }
        if compared != OPERATORS.len() {
            lines.push(format!("{}: {compared} values: {envoy_says} | {own_says}", envoy.name));
        }
    }
    for (place, (operator, start, why)) in ON_PURPOSE.iter().enumerate() {
        if !needed.contains(&place) {
            lines.push(format!("{start}: {operator} is the same ({why})"));
        }
    }
    assert!(lines.is_empty(), "{}:\n{}", lines.len(), lines.join("\n"));
    Ok(())
}
