//! Private keys and tokens appear nowhere.

use base64::Engine as _;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client;
use pillion_tests::mesh::{Beside, Mesh};

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

/// Pieces of a secret that would give it away, in the forms in which it could be written.
fn pieces(secret: &[u8]) -> Vec<String> {
    let base64 = base64::engine::general_purpose::STANDARD.encode(secret);
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = secret.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut all = Vec::new();
    for text in [base64, hex, list, String::from_utf8_lossy(secret).into_owned()] {
        // The first bytes of a key say only of which kind it is.
        let body: String = text.chars().skip(text.chars().count() / 2).take(24).collect();
        all.push(body);
    }
    all
}

#[tokio::test]
async fn keys_and_tokens_are_in_no_log_and_no_dump() -> anyhow::Result<()> {
    let mesh = Mesh::start(&[("mesh.yaml", MESH)]).await?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let talkative = ["--log-level", "trace"];
    let server = mesh.sidecar_with(&Beside::new("catalog", "v1", app.address), &talkative).await?;
    let asking = mesh.sidecar_with(&Beside::client("shopper"), &talkative).await?;
    asking.reaches("catalog.default", "app").await?;

    let mut told = vec![("the control plane's log", mesh.log())];
    for sidecar in [&server, &asking] {
        told.push(("a sidecar's log", sidecar.process.log()));
        for path in ["/config_dump", "/certs", "/clusters", "/stats", "/server_info", "/listeners"]
        {
            told.push((path, client::get(sidecar.admin, path).await?.text()));
        }
    }
    let mut secrets = vec![std::fs::read(mesh.dir().join("data/join-token"))?];
    let token = String::from_utf8_lossy(&secrets[0]).trim().to_owned();
    let random = token.split('.').nth(1).unwrap_or_default().to_owned();
    secrets.push(random.into_bytes());
    for name in ["catalog-v1", "shopper"] {
        let mut found = false;
        for entry in std::fs::read_dir(mesh.dir().join(name))? {
            let path = entry?.path();
            if path.to_string_lossy().contains("key") {
                secrets.push(std::fs::read(&path)?);
                found = true;
            }
        }
        assert!(found, "{name} keeps its key");
    }
    for (place, text) in &told {
        assert!(!text.is_empty(), "{place} says nothing");
        assert!(!text.contains("PRIVATE KEY"), "{place}");
        for piece in secrets.iter().flat_map(|secret| pieces(secret)) {
            assert!(piece.len() < 8 || !text.contains(&piece), "{place} has {piece}");
        }
    }
    Ok(())
}
