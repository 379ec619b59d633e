//! A management server that is not ours and that speaks every discovery service: gRPC's Python
//! library with the official messages. It serves our proxy and the real Envoy alike.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::ads::python;
use crate::process::Process;

const SERVER: &str = include_str!("xds_server.py");

/// The server. It ends when this is dropped.
#[derive(Debug)]
pub struct XdsServer {
    /// The process; its log has a line for each message that came.
    pub process: Process,
    file: PathBuf,
}

impl XdsServer {
    /// Starts it at these addresses (`127.0.0.1:PORT`, `unix:/path`), with these resources by type
    /// URL without its prefix.
    ///
    /// # Errors
    /// When it does not start; the message has its log.
    pub async fn start(
        dir: &Path,
        addresses: &[String],
        resources: &Value,
    ) -> anyhow::Result<Self> {
        let file = dir.join("resources.json");
        write(&file, resources)?;
        let mut command = Command::new(python()?.python());
        command.arg("-c").arg(SERVER).arg(&file).args(addresses);
        let process = Process::start("xds", &mut command, &dir.join("xds.log"))?;
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

    /// Every message that came so far.
    pub fn heard(&self) -> Vec<Value> {
        let log = self.process.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["method"].is_string()).collect()
    }
}

fn write(file: &Path, resources: &Value) -> anyhow::Result<()> {
    let mut full = serde_json::Map::new();
    for (name, value) in resources.as_object().into_iter().flatten() {
        let is_kind = name.starts_with("envoy.");
        let key = if is_kind { format!("type.googleapis.com/{name}") } else { name.clone() };
        full.insert(key, value.clone());
    }
    let new = file.with_extension("new");
    std::fs::write(&new, Value::Object(full).to_string())?;
    std::fs::rename(new, file)?;
    Ok(())
}

/// The cluster of a management server, over TCP.
pub fn cluster(name: &str, address: SocketAddr) -> Value {
    of(name, &crate::proxy::socket_address(address))
}

/// The same over a Unix domain socket.
pub fn cluster_at(name: &str, socket: &Path) -> Value {
    of(name, &json!({"pipe": {"path": socket}}))
}

fn of(name: &str, address: &Value) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {options: {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address}},
        ]}]},
    })
}

/// A `ConfigSource` that asks the server behind this cluster, on a stream of its own.
pub fn source(cluster: &str, api_type: &str) -> Value {
    json!({
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": api_type,
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": cluster}}],
        },
    })
}
