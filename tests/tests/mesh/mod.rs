//! The whole mesh: control plane, sidecars and applications as processes of their own.

mod authorization;
mod bad;
pub(crate) mod clients;
mod demo;
mod run;
mod tracing;

/// A mesh that takes mTLS only.
pub(crate) const STRICT: &str = "apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: test}
spec: {trustDomain: test.local, mtls: Strict, outbound: RegistryOnly}
";

/// A service, and one for each of its versions.
pub(crate) fn service(name: &str, protocol: &str) -> String {
    let one = |own: &str, selector: String| {
        format!(
            "apiVersion: v1
kind: Service
metadata: {{name: {own}, namespace: default}}
spec:
  selector: {{{selector}}}
  ports: [{{name: main, port: 80, targetPort: main, appProtocol: {protocol}}}]
"
        )
    };
    let version = |v: &str| one(&format!("{name}-{v}"), format!("app: {name}, version: {v}"));
    [one(name, format!("app: {name}")), version("v1"), version("v2")].join("---\n")
}

/// All requests for a service go to one of its versions.
pub(crate) fn route(kind: &str, name: &str, version: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: default}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: {name}, port: 80}}]
  rules:
  - backendRefs: [{{name: {name}-{version}, port: 80}}]
"
    )
}
