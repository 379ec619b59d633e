//! Who may ask for what: policies, decided by the sidecar of the service.

use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client::{self, Ask};
use pillion_tests::mesh::{Beside, Mesh, Sidecar};
use pillion_tests::wait;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use super::{STRICT, service};

const EXAMPLE: &str = include_str!("../../../examples/authorization/mesh/authorization.yaml");

fn policies() -> String {
    // The service and the mesh are the test's own.
    let all = EXAMPLE.split("---\n").filter(|one| one.contains("kind: AuthorizationPolicy"));
    all.collect::<Vec<_>>().join("---\n")
}

async fn status(from: &Sidecar, method: Method, path: &str) -> u16 {
    let mut ask = Ask::new(method, path);
    "catalog.default".clone_into(&mut ask.host);
    client::send(from.outbound, &ask).await.map_or(0, |answer| answer.status)
}

async fn until(from: &Sidecar, path: &str, wanted: u16) -> anyhow::Result<()> {
    wait::until(&format!("{path} is answered by {wanted}"), || async {
        (status(from, Method::GET, path).await == wanted).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_policy_decides_who_asks_for_what() -> anyhow::Result<()> {
    let mesh = Mesh::start(&[("mesh.yaml", STRICT), ("catalog.yaml", &service("catalog", "http"))])
        .await?;
    let app = Backend::start("app", Speaks::Http1).await?;
    let _catalog = mesh.sidecar(&Beside::new("catalog", "v1", app.address)).await?;
    let web = mesh.sidecar(&Beside::client("web")).await?;
    let cart = mesh.sidecar(&Beside::client("cart")).await?;
    let mut root = Beside::client("root");
    root.more = ["--namespace", "ops"].map(str::to_owned).into();
    let root = mesh.sidecar(&root).await?;
    for one in [&web, &cart, &root] {
        one.reaches("catalog.default", "app").await?;
    }

    mesh.write("policies.yaml", &policies())?;
    until(&cart, "/", 403).await?;
    for (from, method, path, wanted) in [
        (&web, Method::GET, "/", 200),
        (&web, Method::GET, "/internalised?a=/internal", 200),
        (&web, Method::POST, "/", 403),
        (&root, Method::POST, "/", 200),
        (&cart, Method::GET, "/", 403),
        // Whatever way it is written.
        (&web, Method::GET, "/internal", 403),
        (&root, Method::GET, "/internal/a", 403),
        (&root, Method::GET, "/x/../internal/a", 403),
        (&root, Method::GET, "//internal/a", 403),
        (&root, Method::GET, "/%69nternal/a", 403),
        (&root, Method::GET, "/internal%2Fa", 400),
    ] {
        assert_eq!(status(from, method.clone(), path).await, wanted, "{method} {path}");
    }

    // A mistake changes nothing, and is told.
    mesh.write("policies.yaml", &policies().replace("action: Deny", "action: Forbid"))?;
    wait::until("the mistake is told", || async {
        mesh.status().ok()?["problems"].to_string().contains("Forbid").then_some(())
    })
    .await?;
    assert_eq!(status(&root, Method::GET, "/internal").await, 403);
    // Without rules nobody is let in.
    mesh.write("policies.yaml", "apiVersion: pillion.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {name: catalog}\nspec: {}\n")?;
    until(&root, "/", 403).await?;
    mesh.write("policies.yaml", "")?;
    for one in [&web, &cart, &root] {
        until(one, "/internal", 200).await?;
    }
    Ok(())
}

#[tokio::test]
async fn connections_are_refused_too() -> anyhow::Result<()> {
    let mesh =
        Mesh::start(&[("mesh.yaml", STRICT), ("store.yaml", &service("store", "tcp"))]).await?;
    let app = Backend::start("app", Speaks::Tcp).await?;
    let _store = mesh.sidecar(&Beside::new("store", "v1", app.address)).await?;
    let ports = [pillion_tests::port::Port::reserve()?, pillion_tests::port::Port::reserve()?];
    let mut clients = Vec::new();
    for (name, port) in ["web", "cart"].into_iter().zip(&ports) {
        let mut beside = Beside::client(name);
        beside.more = vec!["--upstream".to_owned(), format!("store.default:80={}", port.number())];
        clients.push(mesh.sidecar(&beside).await?);
    }
    let greets = async |at: usize| {
        let stream = TcpStream::connect(ports[at].address()).await.ok()?;
        let mut hello = String::new();
        BufReader::new(stream).read_line(&mut hello).await.ok()?;
        Some(hello == "hello\n")
    };
    let becomes = async |at: usize, wanted: bool| {
        wait::until(&format!("{at} is greeted: {wanted}"), || async {
            (greets(at).await.unwrap_or(false) == wanted).then_some(())
        })
        .await
    };
    becomes(0, true).await?;
    becomes(1, true).await?;
    let policy = |rule: &str| {
        format!(
            "apiVersion: pillion.io/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: store}}\n\
             spec: {{targetRefs: [{{kind: Service, name: store}}], rules: [{rule}]}}\n"
        )
    };
    mesh.write("policies.yaml", &policy("{from: {serviceAccounts: [web]}}"))?;
    becomes(1, false).await?;
    becomes(0, true).await?;
    // A rule about requests lets no connection in.
    mesh.write("policies.yaml", &policy("{to: {methods: [GET]}}"))?;
    becomes(0, false).await
}
