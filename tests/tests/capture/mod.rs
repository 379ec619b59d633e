//! Traffic capture, on hosts that are network namespaces: programs that know nothing of the mesh.

mod envoy;
mod explicit;
mod transparent;
mod world;

/// The mesh: what is allowed to go outside, and the services of one host with three ports.
fn mesh(outbound: &str) -> String {
    format!(
        "apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {{name: test}}
spec: {{trustDomain: test.local, mtls: Strict, outbound: {outbound}}}
---
apiVersion: v1
kind: Service
metadata: {{name: front}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: back}}
spec:
  clusterIP: 10.96.0.10
  ports:
  - {{name: http, port: 80, targetPort: http}}
  - {{name: grpc, port: 90, targetPort: grpc}}
  - {{name: redis, port: 6379, targetPort: redis}}
  - {{name: http-who, port: 81, targetPort: http-who}}
  - {{name: tcp-who, port: 7001, targetPort: tcp-who}}
"
    )
}
