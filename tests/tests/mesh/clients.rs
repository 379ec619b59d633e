//! One set of resources drives three kinds of client: our sidecar, the real Envoy, and gRPC.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::mesh::{Beside, Mesh, reaches};
use pillion_tests::port::Port;
use pillion_tests::process::Process;
use pillion_tests::proxy::{Bootstrap, Kind, Proxy, envoy};
use pillion_tests::venv::{Venv, optional};
use serde_json::{Value, json};

use super::{STRICT, route, service};

/// The version of gRPC whose own xDS client is tried.
const GRPCIO: [&str; 2] = ["grpcio==1.85.1", "typing-extensions==4.15.0"];

/// Calls again and again, and prints who answered.
const CALLER: &str = r#"
import time, grpc, grpc.experimental
credentials = grpc.xds_channel_credentials(grpc.experimental.insecure_channel_credentials())
with grpc.secure_channel("xds:///echo.default:80", credentials) as channel:
    call = channel.unary_unary("/test.Echo/Call", lambda m: m, lambda m: m)
    while True:
        try:
            answer, done = call.with_call(b"hello", timeout=5)
            print("answered by", dict(done.initial_metadata()).get("x-endpoint"), flush=True)
        except grpc.RpcError as error:
            print("failed:", error.code(), error.details(), flush=True)
        time.sleep(0.05)
"#;

#[tokio::test]
async fn one_resource_set_drives_our_sidecar_envoy_and_grpc() -> anyhow::Result<()> {
    let parts = envoy().and_then(|_| Venv::ensure("grpcio", &GRPCIO));
    let Some(python) = optional("Envoy or grpcio", parts)? else { return Ok(()) };
    let mesh = Mesh::start(&[
        ("mesh.yaml", STRICT),
        ("catalog.yaml", &service("catalog", "http")),
        ("echo.yaml", &service("echo", "grpc")),
        ("catalog-route.yaml", &route("HTTPRoute", "catalog", "v1")),
        ("echo-route.yaml", &route("GRPCRoute", "echo", "v1")),
    ])
    .await?;
    let mut running = Vec::new();
    for (name, speaks) in [("catalog", Speaks::Http1), ("echo", Speaks::Http2)] {
        for version in ["v1", "v2"] {
            let app = Backend::start(&format!("{name}-{version}"), speaks).await?;
            let sidecar = mesh.sidecar(&Beside::new(name, version, app.address)).await?;
            running.push((app, sidecar));
        }
    }

    let ours = mesh.sidecar(&Beside::client("shopper")).await?;
    let (theirs, envoy_outbound) = envoy_sidecar(&mesh, json!({})).await?;
    let grpc = caller(&mesh, &python)?;

    ours.reaches("catalog.default", "catalog-v1").await?;
    reaches(envoy_outbound, "catalog.default", "catalog-v1").await?;
    let said = |what: &'static str| {
        let grpc = &grpc;
        move || async move { grpc.log().contains(what).then_some(()) }
    };
    grpc.ready("gRPC is answered by v1", said("answered by echo-v1")).await?;

    // Every connection between sidecars was mutual TLS.
    let inbound = &running[0].1;
    let text = pillion_tests::client::get(inbound.admin, "/stats").await?.text();
    let sum = |suffix: &str| -> u64 {
        let lines = text.lines().filter(|line| line.starts_with("http.inbound"));
        let ours = lines.filter_map(|line| line.split_once(": "));
        ours.filter(|(name, _)| name.ends_with(suffix))
            .filter_map(|(_, n)| n.parse::<u64>().ok())
            .sum()
    };
    assert!(sum("downstream_rq_total") > 0, "{text}");
    assert!(sum("downstream_rq_mtls_total") > 0, "{text}");
    assert_eq!(sum("downstream_rq_plain_total"), 0);

    // One edit reaches all three.
    mesh.write("catalog-route.yaml", &route("HTTPRoute", "catalog", "v2"))?;
    mesh.write("echo-route.yaml", &route("GRPCRoute", "echo", "v2"))?;
    ours.reaches("catalog.default", "catalog-v2").await?;
    reaches(envoy_outbound, "catalog.default", "catalog-v2").await?;
    grpc.ready("gRPC is answered by v2", said("answered by echo-v2")).await?;
    drop(theirs);
    Ok(())
}

/// The real Envoy as the sidecar of a client, with certificates in files. `more` goes into its node metadata.
pub(crate) async fn envoy_sidecar(mesh: &Mesh, more: Value) -> anyhow::Result<(Proxy, SocketAddr)> {
    let files = mesh.issue("envoy-shopper")?;
    let file = |name: &str| files.join(name).to_string_lossy().into_owned();
    let outbound = Port::reserve()?;
    let address = outbound.address();
    let mut bootstrap = Bootstrap::new("{}")?;
    bootstrap.config["node"] = json!({
        "id": "sidecar~127.0.0.1~envoy-shopper.default~default.svc.cluster.local",
        "cluster": "envoy-shopper.default",
        "metadata": {
            "SERVICE": "envoy-shopper",
            "NAMESPACE": "default",
            "SERVICE_ACCOUNT": "envoy-shopper",
            "OUTBOUND_PORT": address.port().to_string(),
            "TLS_CERTIFICATE_CHAIN": file("cert-chain.pem"),
            "TLS_PRIVATE_KEY": file("key.pem"),
            "TLS_TRUST_BUNDLE": file("root-cert.pem"),
        },
    });
    pillion_tests::yaml::merge(&mut bootstrap.config["node"]["metadata"], more);
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    bootstrap.config["dynamic_resources"] = json!({
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        },
        "lds_config": ads,
        "cds_config": ads,
    });
    bootstrap.config["static_resources"] = json!({"clusters": [{
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            },
        },
        "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": pillion_tests::proxy::socket_address(mesh.xds())}},
        ]}]},
    }]});
    bootstrap.hold(outbound);
    Ok((Proxy::start(Kind::Envoy, bootstrap).await?, address))
}

/// A Python program that calls `echo` by gRPC's own xDS client, over mTLS.
fn caller(mesh: &Mesh, python: &Venv) -> anyhow::Result<Process> {
    let files = mesh.issue("grpc-shopper")?;
    let file = |name: &str| files.join(name).to_string_lossy().into_owned();
    let bootstrap = json!({
        "xds_servers": [{
            "server_uri": mesh.xds().to_string(),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {
            "id": "grpc-shopper",
            "metadata": {"NAMESPACE": "default", "CERT_PROVIDER": "mesh"},
        },
        "certificate_providers": {"mesh": {
            "plugin_name": "file_watcher",
            "config": {
                "certificate_file": file("cert-chain.pem"),
                "private_key_file": file("key.pem"),
                "ca_certificate_file": file("root-cert.pem"),
                "refresh_interval": "600s",
            },
        }},
    });
    let dir: &Path = mesh.dir();
    let config = dir.join("grpc.json");
    std::fs::write(&config, bootstrap.to_string())?;
    let mut command = Command::new(python.python());
    command.arg("-c").arg(CALLER).env("GRPC_XDS_BOOTSTRAP", config);
    Process::start("grpc", &mut command, &dir.join("grpc.log"))
}
