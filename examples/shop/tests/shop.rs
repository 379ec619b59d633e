//! The shop's services over real loopback sockets, without a mesh.

#![allow(clippy::unwrap_used, reason = "in a test, to fail is to say so")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use pillion_shop::proto::pricing_client::PricingClient;
use pillion_shop::proto::{Line, QuoteRequest};
use pillion_shop::{Args, Service};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Generous: these tests wait for conditions, they measure nothing.
const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_front_puts_its_page_together_from_the_other_services() {
    let pricing = start(Args::new(Service::Pricing)).await;
    let cart = start(Args { pricing_url: base(pricing), ..Args::new(Service::Cart) }).await;
    let catalog = start(Args::new(Service::Catalog)).await;
    let reviews = start(Args::new(Service::Reviews)).await;
    let web = start(Args {
        catalog_url: base(catalog),
        cart_url: base(cart),
        reviews_url: base(reviews),
        ..Args::new(Service::Web)
    })
    .await;

    let (status, headers, page) = get(web, "/").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_eq!(headers["x-shop-version"], "v1");
    assert_eq!(headers["x-shop-instance"], "web");
    assert_eq!(page["catalog"]["products"][0]["id"], "pannier");
    assert_eq!(page["reviews"]["reviews"].as_array().unwrap().len(), 4);
    assert_eq!(page["cart"]["priced_by"], "pricing");
    assert!(page["cart"]["total_cents"].as_u64().unwrap() >= 12_900);

    let (status, _, page) = get(web, "/products/gloves").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    assert_eq!(page["catalog"]["product"]["name"], "Winter gloves");

    let lines = json!([{ "product": "gloves", "quantity": 2 }]);
    let (status, quote) = post(web, "/quote", &lines).await;
    assert_eq!(status, StatusCode::OK, "{quote}");
    assert_eq!(quote["total_cents"], 15_800);
}

#[tokio::test]
async fn both_versions_of_the_catalog_can_be_told_apart() {
    let v1 = start(Args::new(Service::Catalog)).await;
    let v2 = start(Args { version: "v2".into(), ..Args::new(Service::Catalog) }).await;
    let (_, headers, body) = get(v1, "/products").await;
    assert_eq!(headers["x-shop-version"], "v1");
    assert_eq!(
        body["products"][0],
        json!({"id": "pannier", "name": "Leather pannier", "price_cents": 12900})
    );
    let (_, headers, body) = get(v2, "/products").await;
    assert_eq!(headers["x-shop-version"], "v2");
    assert_eq!(
        body["products"][0],
        json!({"id": "gloves", "name": "Winter gloves", "price": "79.00 EUR", "rating": "4.8"})
    );
}

#[tokio::test]
async fn errors_name_what_is_wrong_and_which_service_it_was() {
    // A port that nobody listens on: bound once, and let go.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let catalog = start(Args::new(Service::Catalog)).await;
    let reviews = start(Args { fail_percent: 100, ..Args::new(Service::Reviews) }).await;
    let cart = start(Args { pricing_url: base(gone), ..Args::new(Service::Cart) }).await;
    let web = start(Args {
        catalog_url: base(catalog),
        cart_url: base(gone),
        reviews_url: base(reviews),
        ..Args::new(Service::Web)
    })
    .await;

    let (status, _, body) = get(web, "/products/gloves").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let error = body["error"].as_str().unwrap();
    assert!(error.starts_with("reviews answered 500: "), "{error}");
    let (status, body) = post(web, "/quote", &json!([])).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let error = body["error"].as_str().unwrap();
    assert!(error.starts_with("cart cannot be reached: "), "{error}");
    let (status, body) = post(cart, "/quote", &json!([])).await;
    assert_eq!(status, StatusCode::BAD_GATEWAY);
    let error = body["error"].as_str().unwrap();
    assert!(error.starts_with("pricing answered Unavailable: "), "{error}");

    assert_eq!(get(web, "/nowhere").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(catalog, "/products/anvil").await.0, StatusCode::NOT_FOUND);
    assert_eq!(post(web, "/quote", &json!({"not": "a list"})).await.0, StatusCode::BAD_GATEWAY);
    assert_eq!(post(cart, "/quote", &json!({"not": "a list"})).await.0, StatusCode::BAD_REQUEST);
    // A sick service still says that its process lives.
    assert_eq!(get(reviews, "/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn prices_are_quoted_by_grpc_and_health_by_http_on_one_port() {
    let pricing =
        start(Args { instance: Some("pricing-7".into()), ..Args::new(Service::Pricing) }).await;
    let mut client = PricingClient::connect(base(pricing).to_string()).await.unwrap();
    let line = |product: &str, quantity| Line { product: product.to_owned(), quantity };
    let lines = vec![line("pannier", 1), line("footrest", 3)];
    let quote = client.quote(QuoteRequest { lines }).await.unwrap().into_inner();
    assert_eq!((quote.total_cents, quote.currency.as_str()), (22_800, "EUR"));
    assert_eq!(quote.answered_by, "pricing-7");
    let lines = vec![line("anvil", 1)];
    let refused = client.quote(QuoteRequest { lines }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    assert!(refused.message().contains("anvil"), "{refused}");

    let (status, headers, health) = get(pricing, "/healthz").await;
    assert_eq!((status, health["service"].as_str()), (StatusCode::OK, Some("pricing")));
    assert_eq!(headers["x-shop-instance"], "pricing-7");
}

#[tokio::test]
async fn calls_go_to_the_sidecar_by_mesh_name_and_carry_the_trace_headers() {
    let sidecar = Recorder::start().await;
    let mesh_proxy = Some(base(sidecar.address));
    let web = start(Args { mesh_proxy: mesh_proxy.clone(), ..Args::new(Service::Web) }).await;
    let cart = start(Args { mesh_proxy, ..Args::new(Service::Cart) }).await;
    let trace = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-request-id", "5f1b0c9e-8d7a-4f5e-9c43-000000000001"),
        ("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"),
    ];
    request(web, Method::GET, "/", &trace, Bytes::new()).await;
    request(cart, Method::GET, "/carts/alice", &trace, Bytes::new()).await;

    let seen = sidecar.seen.lock().unwrap();
    let mut hosts: Vec<&str> = seen.iter().map(|(host, _)| host.as_str()).collect();
    hosts.sort_unstable();
    assert_eq!(
        hosts,
        [
            "HTTP/1.1 cart.default/carts/alice",
            "HTTP/1.1 catalog.default/products",
            "HTTP/1.1 reviews.default/reviews",
            "HTTP/2.0 pricing.default:80/shop.v1.Pricing/Quote",
        ]
    );
    for (host, headers) in &*seen {
        for (name, value) in trace {
            assert_eq!(
                headers.get(name).map(|v| v.to_str().unwrap()),
                Some(value),
                "{name} to {host}"
            );
        }
    }
}

#[tokio::test]
async fn stopping_lets_the_request_in_flight_finish_and_closes_the_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let args = Args { delay_ms: 300, ..Args::new(Service::Reviews) };
    let server = tokio::spawn(pillion_shop::serve(args, listener, async {
        let _ = stopped.await;
    }));
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /reviews HTTP/1.1\r\nhost: reviews\r\n\r\n").await.unwrap();
    // The answer of a second connection says that the server has long read the first one's request.
    assert_eq!(get(address, "/healthz").await.0, StatusCode::OK);
    stop.send(()).unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    tokio::time::timeout(LIMIT, server).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn the_binary_says_where_it_listens_and_ends_well_on_sigterm() {
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_pillion-shop"))
        .args(["catalog", "--port", "0", "--app-version", "v2", "--instance", "catalog-v2-1"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
    let address =
        line.strip_prefix("catalog-v2-1 v2 listening on ").expect("the address").parse().unwrap();
    assert_eq!(get(address, "/healthz").await.2["version"], "v2");

    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = tokio::time::timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = pillion_shop::run(Args { port, ..Args::new(Service::Web) }).await.unwrap_err();
    assert!(
        format!("{error:#}").starts_with(&format!("cannot listen on 127.0.0.1:{port}: ")),
        "{error:#}"
    );
}

/// Starts one service in this process; it ends with the test's runtime.
async fn start(args: Args) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(pillion_shop::serve(args, listener, std::future::pending()));
    address
}

fn base(address: SocketAddr) -> Uri {
    format!("http://{address}").parse().unwrap()
}

async fn get(to: SocketAddr, path: &str) -> (StatusCode, HeaderMap, Value) {
    request(to, Method::GET, path, &[], Bytes::new()).await
}

async fn post(to: SocketAddr, path: &str, body: &Value) -> (StatusCode, Value) {
    let (status, _, body) =
        request(to, Method::POST, path, &[], Bytes::from(body.to_string())).await;
    (status, body)
}

async fn request(
    to: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> (StatusCode, HeaderMap, Value) {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(format!("http://{to}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = client.request(request.body(Full::new(body)).unwrap());
    let (head, body) = tokio::time::timeout(LIMIT, reply).await.unwrap().unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
    (head.status, head.headers, json)
}

/// Stands where a sidecar's outbound listener would: takes everything, remembers it, answers `{}`.
struct Recorder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

impl Recorder {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let log = Arc::clone(&log);
                let service = service_fn(move |request: Request<Incoming>| {
                    let host = request
                        .uri()
                        .authority()
                        .map(ToString::to_string)
                        .or_else(|| Some(request.headers().get("host")?.to_str().ok()?.to_owned()))
                        .unwrap_or_default();
                    let line = format!("{:?} {host}{}", request.version(), request.uri().path());
                    log.lock().unwrap().push((line, request.headers().clone()));
                    async {
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"{}"))))
                    }
                });
                tokio::spawn(
                    auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .into_owned(),
                );
            }
        });
        Self { address, seen }
    }
}
