//! The gateway of a mesh: listeners over xDS, mTLS to the services, an identity of its own.

use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::ca::Ca;
use pillion_tests::client::{self, Ask};
use pillion_tests::mesh::{Beside, Mesh, reaches};
use pillion_tests::port::Port;
use pillion_tests::wait;

use super::{ask, backend, gateway};

pub(super) const STRICT: &str = "apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {name: test}
spec: {trustDomain: test.local, mtls: Strict, outbound: RegistryOnly}
";

/// Two Services of HTTP, one by HTTP/2, that a TCPRoute leads to.
const BYTES: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: web2}
spec: {ports: [{name: h2, port: 80, appProtocol: kubernetes.io/h2c}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: web}
spec: {parentRefs: [{name: front, sectionName: http1}], rules: [{backendRefs: [{name: web, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: web2}
spec: {parentRefs: [{name: front, sectionName: http2}], rules: [{backendRefs: [{name: web2, port: 80}]}]}
";

#[tokio::test]
async fn connections_are_passed_on_to_services_of_http() -> anyhow::Result<()> {
    let (http1, http2) = (Port::reserve()?, Port::reserve()?);
    let front = gateway(&format!(
        "  - {{name: http1, port: {}, protocol: TCP}}
  - {{name: http2, port: {}, protocol: TCP}}",
        http1.number(),
        http2.number()
    ));
    let mesh =
        Mesh::start(&[("mesh.yaml", STRICT), ("front.yaml", &front), ("web.yaml", BYTES)]).await?;
    let one = backend("one").await?;
    let two = Backend::start("two", Speaks::Http2).await?;
    let _web = mesh.sidecar(&Beside::new("web", "v1", one.address)).await?;
    let _web2 = mesh.sidecar(&Beside::new("web2", "v1", two.address)).await?;
    let _front = mesh.sidecar(&Beside::gateway("front")).await?;
    reaches(http1.address(), "any.test", "one").await?;
    let mut h2 = Ask::new(Method::GET, "/");
    (h2.host, h2.http2) = ("any.test".to_owned(), true);
    wait::until("HTTP/2 goes through", || async {
        let answer = client::send(http2.address(), &h2).await.ok()?;
        (answer.status == 200 && answer.header("x-endpoint") == Some("two")).then_some(())
    })
    .await?;
    // A service of which nobody said that it speaks HTTP/2: its sidecar knows it by the preface, inside of the mTLS.
    let answer = client::send(http1.address(), &h2).await?;
    assert_eq!((answer.status, answer.header("x-endpoint")), (200, Some("one")), "{answer:?}");
    Ok(())
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80, appProtocol: http}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: front}]
  rules:
  - backendRefs: [{name: web, port: 80}]
";

#[tokio::test]
async fn strangers_come_in_and_the_mesh_knows_the_gateway() -> anyhow::Result<()> {
    let (http, https) = (Port::reserve()?, Port::reserve()?);
    let front = gateway(&format!(
        "  - {{name: http, port: {}, protocol: HTTP}}
  - {{name: https, port: {}, protocol: HTTPS, tls: {{certificateRefs: [{{name: site}}]}}}}",
        http.number(),
        https.number()
    ));
    let mesh = Mesh::start(&[("mesh.yaml", STRICT), ("front.yaml", &front), ("web.yaml", SERVICE)])
        .await?;
    // The certificate is in the gateway's folder, as Kubernetes mounts it, and comes late.
    let folder = mesh.dir().join("certificates");
    std::fs::create_dir_all(folder.join("default/site"))?;
    let app = backend("one").await?;
    let _web = mesh.sidecar(&Beside::new("web", "v1", app.address)).await?;
    let ca = Ca::new("public")?;
    let files = ca.write(&folder, "site", &ca.leaf_for(&["site.test"])?)?;
    std::fs::rename(&files.chain, folder.join("default/site/tls.crt"))?;
    std::fs::rename(&files.key, folder.join("default/site/tls.key"))?;
    let mut beside = Beside::gateway("front");
    beside.more = vec!["--certificate-dir".to_owned(), folder.display().to_string()];
    let proxy = mesh.sidecar(&beside).await?;

    reaches(http.address(), "any.test", "one").await?;
    let mut secure = Ask::new(Method::GET, "/");
    (secure.host, secure.server_name) = ("site.test".to_owned(), "site.test".to_owned());
    secure.tls = Some(ca.client(None, &["http/1.1"])?);
    let answer = client::send(https.address(), &secure).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = answer.text();
    assert!(seen.contains("URI=spiffe://test.local/ns/default/sa/front"), "{seen}");
    // Nobody without an identity gets in at its own side of the mesh.
    assert!(ask(proxy.inbound, "any", "/").await.is_err());
    let status = mesh.status()?;
    assert!(status.to_string().contains("gateway~127.0.0.1~front.default"), "{status:#}");

    // An edit of a route reaches it.
    mesh.write("web.yaml", &SERVICE.replace("  rules:", "  hostnames: [only.test]\n  rules:"))?;
    let gone =
        || async { (ask(http.address(), "any.test", "/").await.ok()?.status == 404).then_some(()) };
    wait::until("the route is for one host only", gone).await?;
    assert_eq!(ask(http.address(), "only.test", "/").await?.status, 200);
    Ok(())
}
