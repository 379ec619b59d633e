//! Client status (CSDS): gRPC's own client asks our control plane how its fleet is.

use std::process::Command;

use anyhow::{Context, ensure};
use pillion_tests::ads::python;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::mesh::{Beside, Mesh};
use pillion_tests::venv::optional;
use pillion_tests::wait;
use serde_json::Value;

const MESH: &str = "apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: test}
spec: {trustDomain: test.local, mtls: Strict, outbound: RegistryOnly}
---
apiVersion: v1
kind: Service
metadata: {name: catalog, namespace: default}
spec:
  selector: {app: catalog}
  ports: [{name: main, port: 80, targetPort: main, appProtocol: http}]
";

/// Asks twice, once each way, and prints what both said.
const ASK: &str = r#"
import sys
import grpc
from google.protobuf import json_format
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.status.v3 import csds_pb2, csds_pb2_grpc

stub = csds_pb2_grpc.ClientStatusDiscoveryServiceStub(grpc.insecure_channel(sys.argv[1]))
request = csds_pb2.ClientStatusRequest(exclude_resource_contents=True)
request.node_matchers.add().node_id.prefix = sys.argv[2]
once = stub.FetchClientStatus(request, timeout=20)
again = next(stub.StreamClientStatus(iter([request]), timeout=20))
assert [one.node.id for one in once.config] == [one.node.id for one in again.config]
print(json_format.MessageToJson(once, preserving_proto_field_name=True))
"#;

#[tokio::test]
async fn the_control_plane_tells_what_its_clients_took() -> anyhow::Result<()> {
    let Some(venv) = optional("grpcio and xds-protos", python())? else { return Ok(()) };
    let mesh = Mesh::start(&[("mesh.yaml", MESH)]).await?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let _sidecar = mesh.sidecar(&Beside::new("catalog", "v1", app.address)).await?;
    let ask = |prefix: &str| -> anyhow::Result<Value> {
        let mut command = Command::new(venv.python());
        command.args(["-c", ASK, &mesh.xds().to_string(), prefix]);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}");
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let synced = wait::until("all is taken", || async {
        let status = ask("sidecar~").ok()?;
        let configs = status["config"][0]["generic_xds_configs"].as_array()?.clone();
        let taken =
            |one: &Value| one["config_status"] == "SYNCED" && one["client_status"] == "ACKED";
        (!configs.is_empty() && configs.iter().all(taken)).then_some(configs)
    });
    let configs = synced.await?;
    for kind in ["Listener", "Cluster", "RouteConfiguration"] {
        let of_kind =
            |one: &&Value| one["type_url"].as_str().is_some_and(|url| url.ends_with(kind));
        let one = configs.iter().find(of_kind).with_context(|| format!("no {kind}"))?;
        ensure!(one["version_info"].is_string() && one["xds_config"].is_null(), "{one}");
    }
    let nobody = ask("another~")?;
    ensure!(nobody["config"].as_array().is_none_or(Vec::is_empty), "{nobody}");
    Ok(())
}
