//! A management server that is not ours: gRPC's Python server with the official xDS messages.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::port::Port;
use crate::process::Process;
use crate::venv::Venv;

/// What it is made of.
const PINS: [&str; 4] =
    ["grpcio==1.85.1", "typing-extensions==4.15.0", "xds-protos==1.85.0", "protobuf==7.36.2"];

/// State of the world, from a JSON file `{type url: [resource, …]}` that is read for every request,
/// and again for every change of its time.
const SERVER: &str = r#"
import json, os, queue, sys, threading
from concurrent import futures
import grpc
from google.protobuf import any_pb2, json_format
from envoy.service.discovery.v3 import ads_pb2, ads_pb2_grpc, discovery_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.route.v3 import route_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2

path, port = sys.argv[1], sys.argv[2]
kinds = {
    "type.googleapis.com/envoy.config.listener.v3.Listener": listener_pb2.Listener,
    "type.googleapis.com/envoy.config.cluster.v3.Cluster": cluster_pb2.Cluster,
    "type.googleapis.com/envoy.config.route.v3.RouteConfiguration": route_pb2.RouteConfiguration,
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment": endpoint_pb2.ClusterLoadAssignment,
}

def answer(url, number):
    response = discovery_pb2.DiscoveryResponse(type_url=url, version_info=str(number), nonce=str(number))
    for value in json.load(open(path)).get(url, []):
        packed = any_pb2.Any()
        packed.Pack(json_format.ParseDict(value, kinds[url]()))
        response.resources.append(packed)
    return response

class Ads(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    def StreamAggregatedResources(self, requests, context):
        seen = {}
        number = 0
        work = queue.Queue()
        def read():
            for request in requests:
                work.put(request)
        threading.Thread(target=read, daemon=True).start()
        stamp = os.stat(path).st_mtime_ns
        while context.is_active():
            try:
                request = work.get(timeout=0.05)
            except queue.Empty:
                now = os.stat(path).st_mtime_ns
                if now != stamp:
                    stamp = now
                    for url in list(seen):
                        number += 1
                        yield answer(url, number)
                continue
            url = request.type_url
            if request.error_detail.message:
                print("NACK", url, request.error_detail.message, flush=True)
            elif request.response_nonce:
                print("ACK", url, request.version_info, flush=True)
            names = sorted(request.resource_names)
            if url in kinds and seen.get(url) != names:
                seen[url] = names
                number += 1
                yield answer(url, number)

server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 1)])
ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(Ads(), server)
server.add_insecure_port("127.0.0.1:" + port)
server.start()
print("listening", flush=True)
server.wait_for_termination()
"#;

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub struct Ads {
    /// The process; its log has a line for each ACK and NACK.
    pub process: Process,
    file: PathBuf,
}

/// What it needs of Python.
///
/// # Errors
/// When Python or PyPI is missing.
pub fn python() -> anyhow::Result<Venv> {
    Venv::ensure("ads", &PINS)
}

impl Ads {
    /// Starts it on `port` with these resources, by type URL without its prefix.
    ///
    /// # Errors
    /// When it does not start; the message has its log.
    pub async fn start(dir: &Path, port: &Port, resources: &Value) -> anyhow::Result<Self> {
        let file = dir.join("resources.json");
        write(&file, resources)?;
        let mut command = Command::new(python()?.python());
        command.arg("-c").arg(SERVER).arg(&file).arg(port.number().to_string());
        let process = Process::start("ads", &mut command, &dir.join("ads.log"))?;
        let listens = || async { process.log().contains("listening").then_some(()) };
        process.ready("the management server listens", listens).await?;
        Ok(Self { process, file })
    }

    /// Serves other resources from now on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn serve(&self, resources: &Value) -> anyhow::Result<()> {
        write(&self.file, resources)
    }
}

fn write(file: &Path, resources: &Value) -> anyhow::Result<()> {
    let mut full = serde_json::Map::new();
    for (name, list) in resources.as_object().into_iter().flatten() {
        full.insert(format!("type.googleapis.com/{name}"), list.clone());
    }
    let new = file.with_extension("new");
    std::fs::write(&new, Value::Object(full).to_string())?;
    std::fs::rename(new, file)?;
    Ok(())
}

/// `dynamic_resources` and the cluster for a bootstrap that follows the server at `address`.
pub fn follow(bootstrap: &mut Value, address: SocketAddr) {
    let ads = serde_json::json!({"ads": {}, "resource_api_version": "V3"});
    bootstrap["dynamic_resources"] = serde_json::json!({
        "ads_config": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
        },
        "lds_config": ads,
        "cds_config": ads,
    });
    bootstrap["static_resources"] = serde_json::json!({"clusters": [{
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
            {"endpoint": {"address": crate::proxy::socket_address(address)}},
        ]}]},
    }]});
}
