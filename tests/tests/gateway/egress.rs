//! Hosts outside of the mesh: TLS that begins at the sidecar or at a gateway, and who is refused.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::ca::Ca;
use pillion_tests::mesh::{Beside, Mesh, ask, reaches};
use pillion_tests::wait;

use super::mesh::STRICT;

fn external(name: &str, at: SocketAddr, roots: &Path, more: &str) -> String {
    format!(
        "apiVersion: pillion.io/v1alpha1
kind: ExternalService
metadata: {{name: {name}}}
spec:
  hosts: [{name}.test]
  addresses: [{}]
  ports:
  - {{port: 80, targetPort: {}, appProtocol: http, tls: {{caFile: {}}}}}
{more}
---
",
        at.ip(),
        at.port(),
        roots.display()
    )
}

async fn outside(ca: &Ca, name: &str, dns: &str) -> anyhow::Result<Backend> {
    let tls = ca.server(&ca.leaf_for(&[dns])?, false, &["http/1.1"])?;
    Ok(Backend::with(name, Speaks::Http1, Some(tls), Arc::default()).await?)
}

#[tokio::test]
async fn tls_begins_here_and_only_the_right_certificate_will_do() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let ca = Ca::new("public")?;
    let roots = ca.write(dir.path(), "public", &ca.leaf_for(&["unused.test"])?)?.roots;
    let stranger = Ca::new("nobody's")?;
    let right = outside(&ca, "right", "right.test").await?;
    let other = outside(&ca, "other", "somebody-else.test").await?;
    let forged = outside(&stranger, "forged", "forged.test").await?;
    let through = outside(&ca, "through", "through.test").await?;
    let tcp = Backend::start("tcp", Speaks::Http1).await?;
    let text = external("right", right.address, &roots, "")
        + &external("other", other.address, &roots, "")
        + &external("forged", forged.address, &roots, "")
        + &external("through", through.address, &roots, "  via: {gateway: egress}")
        + &format!(
            "apiVersion: pillion.io/v1alpha1
kind: ExternalService
metadata: {{name: tcp}}
spec: {{hosts: [tcp.test], addresses: [127.0.0.1], ports: [{{port: 443, targetPort: {}}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: egress}}
spec: {{gatewayClassName: pillion, listeners: []}}
",
            tcp.address.port()
        );
    let mesh = Mesh::start(&[("mesh.yaml", STRICT), ("outside.yaml", &text)]).await?;
    let client = mesh.sidecar(&Beside::client("shopper")).await?;
    reaches(client.outbound, "right.test", "right").await?;
    for (host, why) in [("other.test", "somebody-else.test"), ("forged.test", "forged.test")] {
        let refused = ask(client.outbound, host, "/").await?;
        assert_eq!(refused.status, 503, "{host} {why}: {refused:?}");
    }
    assert_eq!((other.seen(""), forged.seen("")), (0, 0), "not a byte of a request went there");
    assert_eq!(ask(client.outbound, "unknown.test", "/").await?.status, 502);

    // Through the gateway, and through nothing else.
    assert_eq!(ask(client.outbound, "through.test", "/").await?.status, 503);
    let egress = mesh.sidecar(&Beside::gateway("egress")).await?;
    reaches(client.outbound, "through.test", "through").await?;
    drop(egress);
    let gone = || async {
        (ask(client.outbound, "through.test", "/").await.ok()?.status == 503).then_some(())
    };
    wait::until("without the gateway nothing gets through", gone).await?;
    Ok(())
}
