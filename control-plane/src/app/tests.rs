//! The control plane in process: from the join token to configuration over mTLS.

use std::fs;
use std::net::SocketAddr;

use hyper_util::rt::TokioIo;
use pillion_xds::envoy::config::core::v3::Node;
use pillion_xds::envoy::service::discovery::v3 as discovery;
use pillion_xds::pillion::v1 as pb;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower::service_fn;

use discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use pb::certificate_service_client::CertificateServiceClient;
use pb::workload_service_client::WorkloadServiceClient;

use super::*;
use crate::ca::{first_certificate, request_with_key};
use crate::identity::SpiffeId;
use crate::intent;
use crate::snapshot::ResourceType;

const MESH: &str = "
apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: shop}
spec: {trustDomain: shop.local}
---
apiVersion: v1
kind: Service
metadata: {name: catalog}
spec:
  selector: {app: catalog}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
";

const LIMIT: Duration = Duration::from_secs(20);

fn parsed(text: &str) -> Arc<Parsed> {
    let read = intent::read("mesh.yaml", text);
    let parsed = intent::assemble(read.documents, read.problems);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    Arc::new(parsed)
}

fn options(data_dir: &Path) -> Options {
    Options {
        address: Ipv4Addr::LOCALHOST.into(),
        xds_port: 0,
        xds_tls_port: 0,
        admin_port: 0,
        data_dir: data_dir.to_path_buf(),
        certificate_ttl: Duration::from_secs(3600),
        lease_ttl: Duration::from_secs(600),
        server_names: Vec::new(),
        webhook: None,
    }
}

struct Rig {
    control_plane: ControlPlane,
    intents: watch::Sender<Arc<Parsed>>,
    dir: tempfile::TempDir,
}

impl Rig {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let intents = watch::Sender::new(parsed(MESH));
        let control_plane =
            ControlPlane::start(&options(dir.path()), intents.subscribe()).await.unwrap();
        Self { control_plane, intents, dir }
    }

    fn token(&self) -> String {
        fs::read_to_string(self.control_plane.join_token()).unwrap().trim().to_owned()
    }

    /// A TLS channel, with a client certificate or without.
    async fn channel(&self, identity: Option<(Vec<Vec<u8>>, Vec<u8>)>) -> Channel {
        let pem = fs::read(self.dir.path().join(ROOT_FILE)).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(first_certificate(&pem).unwrap().into()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut tls = match identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = chain.into_iter().map(CertificateDer::from).collect();
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(tls));
        let address = self.control_plane.addresses().xds_tls;
        let connect = service_fn(move |_: http::Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = "localhost".try_into().unwrap();
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        Endpoint::from_static("http://control-plane").connect_with_connector(connect).await.unwrap()
    }

    /// A certificate for `account`, got with the join token.
    async fn join(&self, account: &str) -> (Vec<Vec<u8>>, Vec<u8>) {
        let id: SpiffeId = format!("spiffe://shop.local/ns/default/sa/{account}").parse().unwrap();
        let (csr_der, key) = request_with_key(&id).unwrap();
        let mut client = CertificateServiceClient::new(self.channel(None).await);
        let request = with_token(sign(csr_der), &self.token());
        let answer = client.sign_certificate(request).await.unwrap().into_inner();
        assert_eq!(answer.spiffe_id, id.to_string());
        assert_eq!(answer.trust_bundle.unwrap().certificate_der.len(), 1);
        (answer.certificate_chain_der, key.to_vec())
    }
}

fn sign(csr_der: Vec<u8>) -> pb::SignCertificateRequest {
    pb::SignCertificateRequest { csr_der, requested_ttl: None }
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn node(account: &str) -> Node {
    let fields = [
        ("PROXY", "pillion"),
        ("SERVICE", account),
        ("NAMESPACE", "default"),
        ("SERVICE_ACCOUNT", account),
        ("ADDRESS", "127.0.0.1"),
        ("INBOUND_PORT", "15006"),
        ("OUTBOUND_PORT", "15001"),
        ("APP_PORT", "8080"),
        ("INSTANCE", "one"),
    ];
    let string = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), string(value))).collect();
    Node {
        id: "sidecar~127.0.0.1~one.default~default.svc.cluster.local".to_owned(),
        metadata: Some(Struct { fields }),
        ..Node::default()
    }
}

/// A delta stream that subscribes to one type.
struct DeltaStream {
    requests: tokio::sync::mpsc::Sender<discovery::DeltaDiscoveryRequest>,
    responses: tonic::Streaming<discovery::DeltaDiscoveryResponse>,
}

impl DeltaStream {
    async fn open(
        channel: Channel,
        node: Node,
        kind: ResourceType,
        names: &[&str],
    ) -> Result<Self, Status> {
        let (requests, outgoing) = tokio::sync::mpsc::channel(8);
        let first = discovery::DeltaDiscoveryRequest {
            node: Some(node),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..discovery::DeltaDiscoveryRequest::default()
        };
        requests.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let answer = client.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?;
        Ok(Self { requests, responses: answer.into_inner() })
    }

    async fn next(&mut self) -> Result<discovery::DeltaDiscoveryResponse, Status> {
        let next = tokio::time::timeout(LIMIT, self.responses.message()).await.unwrap();
        let response = next?.ok_or_else(|| Status::aborted("the stream ended"))?;
        let ack = discovery::DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            ..discovery::DeltaDiscoveryRequest::default()
        };
        self.requests.send(ack).await.unwrap();
        Ok(response)
    }
}

fn names(response: &discovery::DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

fn registration(account: &str) -> pb::RegisterRequest {
    let workload = pb::Workload {
        name: format!("{account}-1"),
        namespace: "default".to_owned(),
        service: account.to_owned(),
        service_account: account.to_owned(),
        address: "127.0.0.1".to_owned(),
        ports: [("inbound".to_owned(), 15006), ("app".to_owned(), 8080)].into(),
        ..pb::Workload::default()
    };
    pb::RegisterRequest { workload: Some(workload), ready: true }
}

fn endpoints(response: &discovery::DeltaDiscoveryResponse) -> usize {
    use pillion_xds::envoy::config::endpoint::v3::ClusterLoadAssignment;
    let any = response.resources[0].resource.as_ref().unwrap();
    let assignment: ClusterLoadAssignment = pillion_xds::any::unpack(any).unwrap();
    assignment.endpoints.iter().map(|locality| locality.lb_endpoints.len()).sum()
}

#[tokio::test]
async fn from_the_join_token_to_configuration_over_mtls() {
    let rig = Rig::start().await;
    let identity = rig.join("catalog").await;
    let channel = rig.channel(Some(identity)).await;
    let open = DeltaStream::open;
    let mut clusters =
        open(channel.clone(), node("catalog"), ResourceType::Cluster, &[]).await.unwrap();
    let first = clusters.next().await.unwrap();
    assert!(names(&first).contains(&"catalog.default:80"), "{:?}", names(&first));

    let more =
        format!("{MESH}---\n{}", MESH.split("---\n").nth(1).unwrap().replace("catalog", "cart"));
    rig.intents.send_replace(parsed(&more));
    assert_eq!(names(&clusters.next().await.unwrap()), ["cart.default:80"]);

    let stop = tokio::spawn(rig.control_plane.stop());
    let ended = loop {
        match clusters.next().await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
    tokio::time::timeout(LIMIT, stop).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_registered_workload_becomes_an_endpoint_and_goes_again() {
    let rig = Rig::start().await;
    let identity = rig.join("catalog").await;
    let channel = rig.channel(Some(identity)).await;
    let name = "catalog.default:80";
    let mut stream =
        DeltaStream::open(channel.clone(), node("catalog"), ResourceType::Endpoint, &[name])
            .await
            .unwrap();
    assert_eq!(endpoints(&stream.next().await.unwrap()), 0);

    let mut client = WorkloadServiceClient::new(channel);
    let answer = client.register(registration("catalog")).await.unwrap().into_inner();
    assert_eq!(answer.workload_id, "default/catalog-1");
    assert_eq!(endpoints(&stream.next().await.unwrap()), 1);
    let foreign = client.register(registration("front")).await.unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied);

    let lease_id = answer.lease_id;
    client.deregister(pb::DeregisterRequest { lease_id: lease_id.clone() }).await.unwrap();
    assert_eq!(endpoints(&stream.next().await.unwrap()), 0);
    let gone = client.renew(pb::RenewRequest { lease_id, ready: true }).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn registrations_survive_a_restart() {
    let rig = Rig::start().await;
    let channel = rig.channel(None).await;
    let mut client = WorkloadServiceClient::new(channel);
    let request = with_token(registration("catalog"), &rig.token());
    let lease_id = client.register(request).await.unwrap().into_inner().lease_id;
    drop(client);
    let Rig { control_plane, intents, dir } = rig;
    control_plane.stop().await;
    // The first one's store is closed once its last task is gone.
    let restarted = loop {
        match ControlPlane::start(&options(dir.path()), intents.subscribe()).await {
            Ok(control_plane) => break control_plane,
            Err(StartError::Store(StoreError::Locked { .. })) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    let rig = Rig { control_plane: restarted, intents, dir };
    let mut client = WorkloadServiceClient::new(rig.channel(None).await);
    let renew = with_token(pb::RenewRequest { lease_id, ready: true }, &rig.token());
    client.renew(renew).await.unwrap();
}

#[tokio::test]
async fn who_proves_nothing_gets_nothing() {
    let rig = Rig::start().await;
    let anonymous = rig.channel(None).await;
    let id: SpiffeId = "spiffe://shop.local/ns/default/sa/catalog".parse().unwrap();
    let (csr, _) = request_with_key(&id).unwrap();
    let mut certificates = CertificateServiceClient::new(anonymous.clone());
    let refused = certificates.sign_certificate(sign(csr.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let forged = rig.token().replace("pillion1.", "pillion1.AA");
    let refused = certificates.sign_certificate(with_token(sign(csr), &forged)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(!refused.message().contains(&forged));

    let kind = ResourceType::Cluster;
    let refused = DeltaStream::open(anonymous.clone(), node("catalog"), kind, &[]).await;
    assert_eq!(refused.err().map(|status| status.code()), Some(Code::Unauthenticated));
    let mut workloads = WorkloadServiceClient::new(anonymous);
    let refused = workloads.register(registration("catalog")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_workload_cannot_speak_for_another() {
    let rig = Rig::start().await;
    let identity = rig.join("catalog").await;
    let channel = rig.channel(Some(identity)).await;
    let mut stream = DeltaStream::open(channel.clone(), node("front"), ResourceType::Cluster, &[])
        .await
        .unwrap();
    assert_eq!(stream.next().await.unwrap_err().code(), Code::PermissionDenied);
    let other: SpiffeId = "spiffe://shop.local/ns/default/sa/front".parse().unwrap();
    let (csr, _) = request_with_key(&other).unwrap();
    let refused =
        CertificateServiceClient::new(channel).sign_certificate(sign(csr)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn state_of_the_world_works_in_plain_text_on_loopback() {
    let rig = Rig::start().await;
    let address = rig.control_plane.addresses().xds;
    let channel =
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let (requests, outgoing) = tokio::sync::mpsc::channel(8);
    let request = discovery::DiscoveryRequest {
        node: Some(node("catalog")),
        type_url: ResourceType::Cluster.type_url().to_owned(),
        ..discovery::DiscoveryRequest::default()
    };
    requests.send(request).await.unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let mut responses = client
        .stream_aggregated_resources(ReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    let response = tokio::time::timeout(LIMIT, responses.message()).await.unwrap().unwrap();
    assert!(!response.unwrap().resources.is_empty());

    let missing = discovery::DiscoveryRequest::default();
    requests.send(missing).await.unwrap();
    let ended = tokio::time::timeout(LIMIT, responses.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_port_in_use_names_the_port_and_the_flag() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path());
    options.xds_tls_port = port;
    let intents = watch::Sender::new(parsed(MESH));
    let error = ControlPlane::start(&options, intents.subscribe()).await.unwrap_err().to_string();
    let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port).to_string();
    for part in [address.as_str(), "--xds-tls-port", "in use"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
}

#[tokio::test]
async fn the_administration_pages_show_nodes_and_their_resources() {
    let rig = Rig::start().await;
    let identity = rig.join("catalog").await;
    let channel = rig.channel(Some(identity)).await;
    let mut stream =
        DeltaStream::open(channel, node("catalog"), ResourceType::Cluster, &[]).await.unwrap();
    stream.next().await.unwrap();
    let admin = rig.control_plane.addresses().admin;
    let get = |path: &'static str| async move {
        let reply = crate::cli::demo::http_get::get(admin, path).await.unwrap();
        assert_eq!(reply.status, 200, "{path}");
        String::from_utf8(reply.body.to_vec()).unwrap()
    };
    let status: admin::Status = serde_json::from_str(&get("/api/v1/status").await).unwrap();
    assert_eq!(status.nodes[0].identity, "spiffe://shop.local/ns/default/sa/catalog");
    assert_eq!(status.nodes[0].refusals, []);
    assert_eq!(status.trust_domain, "shop.local");
    assert!(get("/metrics").await.contains("pillion_xds_connected_streams 1"));
    let config =
        get("/debug/config?node=sidecar~127.0.0.1~one.default~default.svc.cluster.local").await;
    assert!(config.contains("catalog.default:80"), "{config}");
}

/// What the API server does: it knows the webhook by its DNS name and the root, and asks in HTTP/1.1.
#[tokio::test]
async fn the_webhook_injects_over_a_certificate_of_our_own() {
    let dir = tempfile::tempdir().unwrap();
    let intents = watch::Sender::new(parsed(MESH));
    let host = "pillion.pillion-system.svc";
    let inject = inject::Options {
        image: "pillion-proxy:test".to_owned(),
        redirect_image: None,
        control_plane: format!("{host}:15012"),
        join: inject::Join::ServiceAccount,
    };
    let options = Options {
        server_names: vec![host.to_owned()],
        webhook: Some(WebhookOptions { port: 0, inject }),
        ..options(dir.path())
    };
    let control_plane = ControlPlane::start(&options, intents.subscribe()).await.unwrap();
    let address = control_plane.addresses().webhook.unwrap();
    let root = first_certificate(&fs::read(dir.path().join(ROOT_FILE)).unwrap()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(root)).unwrap();
    let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let ask = async |method: &str, path: &str, body: &str| {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = host.to_owned().try_into().unwrap();
        let io = TokioIo::new(connector.connect(name, stream).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let body = http_body_util::Full::new(bytes::Bytes::from(body.to_owned()));
        let request = http::Request::builder().method(method).uri(path).header("host", host);
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        (status, String::from_utf8(bytes.to_bytes().to_vec()).unwrap())
    };
    let review = include_str!("../inject/testdata/deployment.review.json");
    let (status, answer) = ask("POST", "/inject", review).await;
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["response"]["allowed"]), (200, &true.into()), "{answer}");
    assert_eq!(answer["response"]["patchType"], "JSONPatch");
    for (method, path, expected) in [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/metrics", 200),
        ("GET", "/inject", 405),
        ("POST", "/healthz", 404),
        ("GET", "/api/v1/status", 404),
    ] {
        assert_eq!(ask(method, path, "").await.0, expected, "{method} {path}");
    }
    let (status, why) = ask("POST", "/inject", "{}").await;
    assert!(status == 400 && why.contains("AdmissionReview"), "{status} {why}");
}
