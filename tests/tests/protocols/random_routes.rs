//! Route matching at random, against real Envoy: thousands of route tables and requests that are
//! likely to be near each other. What differs is made as small as it gets before it is shown.
//!
//! `PILLION_SEED` begins elsewhere, `PILLION_ROUNDS` goes on for longer.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use pillion_tests::port::Port;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, envoy, socket_address};
use pillion_tests::venv::optional;
use serde_json::{Map, Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::wire::hear;

/// Tables of one round: each a virtual host with a name of its own.
const TABLES: usize = 400;
/// Requests to each.
const REQUESTS: usize = 6;
/// Sets of domains of one round: each a listener of its own.
const DOMAIN_SETS: usize = 12;
/// So many differences are made small and shown.
const SHOWN: usize = 8;
const SEED: u64 = 20_261_121;

/// splitmix64
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// A table and a request that may differ on both sides.
#[derive(Clone, Debug)]
struct Case {
    /// `match` of each route.
    routes: Vec<Value>,
    request: Request,
}

#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    target: String,
    host: Option<String>,
    headers: Vec<(&'static str, &'static str)>,
}

impl Request {
    fn text(&self, host: &str) -> String {
        let host = self.host.as_deref().unwrap_or(host);
        let mut text = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text + "\r\n"
    }
}

const SEGMENTS: [&str; 9] = ["a", "b", "ab", "A", "a.b", "%61", "", "a;x", "b~"];
const VALUES: [&str; 9] = ["", "1", "12", "a", "A", "ab", "a%20b", "-5", "a+b"];
const TEXTS: [&str; 8] = ["1", "12", "a", "A", "ab", "a b", "-5", "a,ab"];

fn path(chance: &mut Chance) -> String {
    let count = chance.below(4);
    let mut path = String::new();
    for _ in 0..count {
        path.push('/');
        path.push_str(chance.of(&SEGMENTS));
    }
    if path.is_empty() || chance.one_in(6) {
        path.push('/');
    }
    path
}

fn query(chance: &mut Chance) -> String {
    let pairs: Vec<String> = (0..chance.below(4))
        .map(|_| match chance.below(5) {
            0 => chance.of(&["x", "y", "X"]).to_owned(),
            _ => format!("{}={}", chance.of(&["x", "y", "X", "%78"]), chance.of(&VALUES)),
        })
        .collect();
    if pairs.is_empty() && !chance.one_in(9) {
        return String::new();
    }
    format!("?{}", pairs.join("&"))
}

fn request(chance: &mut Chance) -> Request {
    let mut headers = Vec::new();
    for _ in 0..chance.below(4) {
        headers.push((chance.of(&["x-a", "x-b", "X-A"]), chance.of(&TEXTS)));
    }
    if chance.one_in(5) {
        let kinds =
            ["application/grpc", "application/grpc+proto", "application/grpc-web", "text/plain"];
        headers.push(("content-type", chance.of(&kinds)));
    }
    let method = chance.of(&["GET", "GET", "POST", "DELETE"]);
    Request { method, target: path(chance) + &query(chance), host: None, headers }
}

fn string_match(chance: &mut Chance) -> Value {
    let text = chance.of(&TEXTS);
    let mut made = match chance.below(6) {
        0 => json!({"prefix": text}),
        1 => json!({"suffix": text}),
        2 => json!({"contains": text}),
        3 => {
            return json!({"safe_regex": {"regex": chance.of(&["a.*", "[0-9]+", "a?", "(a|ab)", ".*b"])}});
        }
        _ => json!({"exact": text}),
    };
    if chance.one_in(3) {
        made["ignore_case"] = json!(true);
    }
    made
}

fn header_match(chance: &mut Chance) -> Value {
    let name = chance.of(&["x-a", "x-a", "x-b", "X-A", ":method", ":path", ":authority"]);
    let mut made = json!({"name": name});
    match chance.below(8) {
        0 => made["present_match"] = json!(true),
        1 => made["present_match"] = json!(false),
        2 => made["range_match"] = json!({"start": -10, "end": chance.of(&[1, 2, 12, 13])}),
        3 => {}
        _ if name == ":method" => made["string_match"] = json!({"exact": "GET"}),
        _ if name == ":path" => made["string_match"] = json!({"prefix": path(chance)}),
        _ => made["string_match"] = string_match(chance),
    }
    if chance.one_in(3) {
        made["invert_match"] = json!(true);
    }
    if chance.one_in(4) {
        made["treat_missing_header_as_empty"] = json!(true);
    }
    made
}

fn query_match(chance: &mut Chance) -> Value {
    let mut made = json!({"name": chance.of(&["x", "y", "X"])});
    match chance.below(5) {
        0 => {}
        1 => made["present_match"] = json!(chance.one_in(2)),
        _ => made["string_match"] = string_match(chance),
    }
    made
}

fn route_match(chance: &mut Chance) -> Value {
    let mut made = match chance.below(8) {
        0 | 1 => json!({"path": path(chance)}),
        2 => {
            let path = path(chance);
            let path = path.trim_end_matches('/');
            if path.is_empty() {
                json!({"prefix": "/"})
            } else {
                json!({"path_separated_prefix": path})
            }
        }
        3 => {
            let regexes =
                ["/a.*", "/[ab]+", "/(a|b)/?.*", "/a\\.b", "/a/[^/]+", ".*b", "/A(/.*)?", "/"];
            return more(json!({"safe_regex": {"regex": chance.of(&regexes)}}), chance);
        }
        _ => {
            let path = path(chance);
            let cut = 1 + chance.below(path.len());
            json!({"prefix": path[..cut.min(path.len())]})
        }
    };
    if chance.one_in(4) {
        made["case_sensitive"] = json!(false);
    }
    more(made, chance)
}

/// With what else a route may ask for.
fn more(mut made: Value, chance: &mut Chance) -> Value {
    if chance.one_in(2) {
        let count = 1 + chance.below(2);
        made["headers"] = (0..count).map(|_| header_match(chance)).collect();
    }
    if chance.one_in(3) {
        let count = 1 + chance.below(2);
        made["query_parameters"] = (0..count).map(|_| query_match(chance)).collect();
    }
    if chance.one_in(12) {
        made["grpc"] = json!({});
    }
    made
}

fn cases(chance: &mut Chance) -> Vec<Case> {
    let mut all = Vec::new();
    for _ in 0..TABLES {
        let count = 1 + chance.below(6);
        let routes: Vec<Value> = (0..count).map(|_| route_match(chance)).collect();
        for _ in 0..REQUESTS {
            all.push(Case { routes: routes.clone(), request: request(chance) });
        }
    }
    all
}

/// One listener with virtual hosts.
fn listener(name: &str, address: SocketAddr, hosts: &[Value], more: Map<String, Value>) -> Value {
    let mut table = json!({"name": name, "virtual_hosts": hosts});
    if let Some(table) = table.as_object_mut() {
        table.extend(more);
    }
    json!({
        "name": name,
        "address": socket_address(address),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "http",
                "route_config": table,
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config":
                        {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
                }],
            },
        }]}],
    })
}

fn host(name: &str, domains: &[String], routes: &[Value]) -> Value {
    let routes = routes.iter().enumerate().map(|(i, wanted)| {
        json!({
            "match": wanted,
            "direct_response": {"status": 200, "body": {"inline_string": format!("{name} {i}")}},
        })
    });
    json!({"name": name, "domains": domains, "routes": routes.collect::<Vec<_>>()})
}

/// Listeners, each with the requests to it.
type Tables = Vec<(Vec<Value>, Map<String, Value>, Vec<(String, Request)>)>;

/// Both sides' answers to all requests, in order.
async fn both(tables: &Tables) -> anyhow::Result<Vec<(String, String)>> {
    let (theirs, ours) = tokio::try_join!(play(Kind::Envoy, tables), play(Kind::Pillion, tables))?;
    ensure!(theirs.len() == ours.len(), "{} and {} answers", theirs.len(), ours.len());
    Ok(theirs.into_iter().zip(ours).collect())
}

async fn play(kind: Kind, tables: &Tables) -> anyhow::Result<Vec<String>> {
    let mut ports = Vec::new();
    let mut listeners = Vec::new();
    for (i, (hosts, more, _)) in tables.iter().enumerate() {
        let port = Port::reserve()?;
        listeners.push(listener(&format!("l{i}"), port.address(), hosts, more.clone()));
        ports.push(port);
    }
    let addresses: Vec<_> = ports.iter().map(Port::address).collect();
    let mut bootstrap = Bootstrap::of(listeners, Vec::new());
    ports.into_iter().for_each(|port| bootstrap.hold(port));
    let _proxy = Proxy::start(kind, bootstrap).await?;
    let mut answers = Vec::new();
    for ((_, _, requests), address) in tables.iter().zip(addresses) {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        for (host, request) in requests {
            stream.write_all(request.text(host).as_bytes()).await?;
            let head = hear(&mut stream, "\r\n\r\n").await?.to_ascii_lowercase();
            let length =
                head.split("\r\ncontent-length: ").nth(1).and_then(|r| r.split("\r\n").next());
            let mut body = vec![0; length.context("a length")?.parse()?];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await?;
            let status = head.split(' ').nth(1).unwrap_or_default();
            // Where gRPC has its text; that of a failure differs.
            let message = head.split("\r\ngrpc-message: ").nth(1);
            if let Some(message) = message.and_then(|rest| rest.split("\r\n").next()) {
                let own = message.contains("route_not_found");
                body = if own { Vec::new() } else { message.as_bytes().to_vec() };
            }
            // The text of a failure differs.
            let body = if status == "200" { String::from_utf8_lossy(&body) } else { "".into() };
            answers.push(format!("{status} {body}"));
            if head.contains("connection: close") {
                stream = TcpStream::connect(address).await?;
            }
        }
    }
    Ok(answers)
}

/// Every case a virtual host; those with the same routes share one.
fn as_tables(cases: &[Case]) -> Tables {
    let mut hosts: Vec<Value> = Vec::new();
    let mut requests = Vec::new();
    let mut last: Option<&Vec<Value>> = None;
    for case in cases {
        if last != Some(&case.routes) {
            let name = format!("h{}", hosts.len());
            hosts.push(host(&name, std::slice::from_ref(&name), &case.routes));
            last = Some(&case.routes);
        }
        requests.push((format!("h{}", hosts.len() - 1), case.request.clone()));
    }
    vec![(hosts, Map::new(), requests)]
}

/// The first case that still differs, made smaller step by step.
async fn shrink(mut case: Case) -> anyhow::Result<(Case, String, String)> {
    let mut known = (String::new(), String::new());
    loop {
        let mut smaller = smaller(&case);
        smaller.push(case.clone());
        let answers = both(&as_tables(&smaller)).await?;
        let found = smaller.iter().zip(answers).find(|(_, (envoy, ours))| envoy != ours);
        let Some((found, answers)) = found else { return Ok((case, known.0, known.1)) };
        known = answers;
        if format!("{found:?}") == format!("{case:?}") {
            return Ok((case, known.0, known.1));
        }
        case = found.clone();
    }
}

/// Everything that is one step smaller.
fn smaller(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    for i in 0..case.routes.len() {
        let mut fewer = case.clone();
        fewer.routes.remove(i);
        if !fewer.routes.is_empty() {
            all.push(fewer);
        }
        for field in ["headers", "query_parameters"] {
            let count = case.routes[i][field].as_array().map_or(0, Vec::len);
            for at in 0..count {
                let mut fewer = case.clone();
                if let Some(list) = fewer.routes[i][field].as_array_mut() {
                    list.remove(at);
                }
                all.push(fewer);
            }
        }
    }
    for i in 0..case.request.headers.len() {
        let mut fewer = case.clone();
        fewer.request.headers.remove(i);
        all.push(fewer);
    }
    if let Some((path, _)) = case.request.target.split_once('?') {
        let mut fewer = case.clone();
        fewer.request.target = path.to_owned();
        all.push(fewer);
    }
    all
}

// A wildcard in the middle is a letter to Envoy and refused by us.
const DOMAINS: [&str; 15] = [
    "a.test",
    "b.a.test",
    "A.test",
    "a.test:80",
    "*.test",
    "*.a.test",
    "*-a.test",
    "a.*",
    "b.*",
    "b.a.*",
    "*",
    "*.test:80",
    "a",
    "test",
    "*a",
];
const HOSTS: [&str; 18] = [
    "a.test",
    "A.TEST",
    "b.a.test",
    "c.a.test",
    "x-a.test",
    "a.test:80",
    "a.test:8080",
    "b.test:80",
    "a.other",
    "b.other",
    "b.a.other",
    "test",
    "a",
    "a.",
    ".a.test",
    "c.b.a.test",
    "other",
    "[::1]:80",
];

/// Domains of virtual hosts, each in one of them only.
fn domain_sets(chance: &mut Chance) -> Tables {
    let mut tables = Vec::new();
    for _ in 0..DOMAIN_SETS {
        let count = 1 + chance.below(5);
        let mut domains: Vec<Vec<String>> = vec![Vec::new(); count];
        let mut taken: Vec<String> = Vec::new();
        for domain in DOMAINS {
            if chance.one_in(2) && !taken.contains(&domain.to_ascii_lowercase()) {
                taken.push(domain.to_ascii_lowercase());
                domains[chance.below(count)].push(domain.to_owned());
            }
        }
        let hosts: Vec<Value> = domains
            .iter()
            .enumerate()
            .filter(|(_, domains)| !domains.is_empty())
            .map(|(i, domains)| host(&format!("v{i}"), domains, &[json!({"prefix": "/"})]))
            .collect();
        let mut more = Map::new();
        if chance.one_in(3) {
            more.insert("ignore_port_in_host_matching".to_owned(), json!(true));
        }
        let requests = HOSTS.iter().map(|host| {
            let request =
                Request { method: "GET", target: "/".to_owned(), host: None, headers: Vec::new() };
            ((*host).to_owned(), request)
        });
        tables.push((hosts, more, requests.collect()));
    }
    tables
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test]
async fn routes_at_random() -> anyhow::Result<()> {
    if optional("Envoy", envoy())?.is_none() {
        return Ok(());
    }
    let seed = number("PILLION_SEED", SEED);
    for round in 0..number("PILLION_ROUNDS", 2) {
        let seed = seed.wrapping_add(round);
        println!("seed {seed}");
        let mut chance = Chance(seed);
        let cases = cases(&mut chance);
        let answers = both(&as_tables(&cases)).await?;
        let differ = |((_, (envoy, ours)), _): &((&Case, &(String, String)), ())| envoy != ours;
        let all = cases.iter().zip(&answers).zip(std::iter::repeat(()));
        let different: Vec<_> = all.filter(differ).map(|((case, _), ())| case).collect();
        let matched = answers.iter().filter(|(envoy, _)| envoy.starts_with("200")).count();
        ensure!(matched * 5 > cases.len(), "only {matched} of {} match anything", cases.len());
        let mut shown = Vec::new();
        // Some of them, spread: neighbours often differ for the same reason.
        for found in different.iter().step_by(different.len().div_ceil(SHOWN).max(1)) {
            let (case, envoy, ours) = shrink((*found).clone()).await?;
            let (routes, text) = (serde_json::to_string(&case.routes)?, case.request.text("host"));
            shown.push(format!("envoy `{envoy}`, ours `{ours}`\n{text}{routes}"));
        }
        let (count, all) = (different.len(), cases.len());
        assert!(count == 0, "seed {seed}: {count} of {all} differ:\n{}", shown.join("\n\n"));
        let tables = domain_sets(&mut chance);
        let answers = both(&tables).await?;
        let asked = tables.iter().flat_map(|(hosts, more, requests)| {
            requests.iter().map(move |(host, _)| (hosts, more, host))
        });
        for ((hosts, more, host), (envoy, ours)) in asked.zip(answers) {
            let domains: Vec<_> = hosts.iter().map(|host| &host["domains"]).collect();
            assert_eq!(envoy, ours, "seed {seed}: host {host} in {domains:?} {more:?}");
        }
    }
    Ok(())
}
