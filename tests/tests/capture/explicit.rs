//! Without any privilege: the outbound port as an HTTP proxy, a port or socket of its own for a
//! service, and an application at a Unix socket.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::mesh::{Beside, Mesh, Sidecar};
use pillion_tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

pub(super) const SERVICES: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: redis}
spec: {ports: [{name: redis, port: 6379}]}
";

pub(super) fn mesh(outbound: &str) -> String {
    format!(
        "apiVersion: pillion.io/v1alpha1
kind: Mesh
metadata: {{name: test}}
spec: {{trustDomain: test.local, mtls: Strict, outbound: {outbound}}}
"
    )
}

/// What curl says, when it is told to use the sidecar as its proxy. The backends go on meanwhile.
async fn curl(client: &Sidecar, args: &[&str]) -> anyhow::Result<String> {
    through(client.outbound, args).await
}

/// The same, by the proxy at this address.
pub(super) async fn through(proxy: SocketAddr, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "--max-time", "30", "--proxy", &format!("http://{proxy}")])
        .args(["--noproxy", ""])
        .args(args);
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output = output.context("cannot run curl")?;
    Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

const SPIFFE: &str = "spiffe://test.local/ns/default/sa/shopper";

#[tokio::test]
async fn the_outbound_port_is_an_http_proxy() -> anyhow::Result<()> {
    let mesh_file = mesh("Passthrough");
    let mesh = Mesh::start(&[("mesh.yaml", &mesh_file), ("services.yaml", SERVICES)]).await?;
    let web = Backend::start("web", Speaks::Http1).await?;
    let redis = Backend::start("redis", Speaks::Tcp).await?;
    let outside = Backend::start("outside", Speaks::Http1).await?;
    let _web = mesh.sidecar(&Beside::new("web", "v1", web.address)).await?;
    let _redis = mesh.sidecar(&Beside::new("redis", "v1", redis.address)).await?;
    let client = mesh.sidecar(&Beside::client("shopper")).await?;
    client.reaches("web.default", "web").await?;

    // Absolute form, and a tunnel, whose requests are routed like any other.
    for more in [&[][..], &["--proxytunnel"]] {
        let text = curl(&client, &[more, &["http://web.default/"]].concat()).await?;
        ensure!(text.contains(SPIFFE), "{more:?}: {text}");
    }
    // HTTP/2 inside of a tunnel.
    let args = ["--proxytunnel", "--http2-prior-knowledge", "http://web.default:80/"];
    let text = curl(&client, &args).await?;
    ensure!(text.contains(SPIFFE), "{text}");

    // A TCP service, whose server speaks first.
    wait::until("the tunnel is there", || async {
        let said = tunnel(client.outbound, "redis.default:6379").await.ok()?;
        (said == "hello\nping\n").then_some(())
    })
    .await?;

    // Hosts that the mesh does not know.
    let (there, here) = (outside.address, client.outbound);
    for more in [&[][..], &["--proxytunnel"]] {
        let text = curl(&client, &[more, &[&*format!("http://{there}/x")]].concat()).await?;
        ensure!(text.contains("\"target\":\"/x\"") && !text.contains(SPIFFE), "{text}");
    }
    let text = curl(&client, &[&format!("http://localhost:{}/x", there.port())]).await?;
    ensure!(text.contains("\"target\":\"/x\""), "by name: {text}");
    let text = curl(&client, &["http://no-such-host.invalid/"]).await?;
    ensure!(text.contains("cannot be looked up"), "{text}");
    let text = curl(&client, &[&format!("http://{here}/")]).await?;
    ensure!(text.contains("is this proxy itself"), "{text}");

    mesh.write("mesh.yaml", &self::mesh("RegistryOnly"))?;
    wait::until("strangers are refused", || async {
        let text = curl(&client, &[&format!("http://{there}/x")]).await.ok()?;
        text.contains("RegistryOnly").then_some(())
    })
    .await?;
    let text = curl(&client, &["--proxytunnel", &format!("http://{there}/x")]).await?;
    ensure!(text.contains("502"), "{text}");
    let text = curl(&client, &["http://web.default/"]).await?;
    ensure!(text.contains(SPIFFE), "{text}");
    Ok(())
}

/// CONNECT by hand, then what comes first, then an echo.
pub(super) async fn tunnel(proxy: SocketAddr, to: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(proxy).await?;
    stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    ensure!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
    let mut said = [0; 11];
    stream.read_exact(&mut said[..6]).await?;
    stream.write_all(b"ping\n").await?;
    stream.read_exact(&mut said[6..]).await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// A server at the Unix socket that is its argument.
const AT_SOCKET: &str = "
import http.server, os, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'from a socket\\n'
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def address_string(self):
        return 'unix'
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass
Server(sys.argv[1], Handler).serve_forever()
";

#[tokio::test]
async fn services_and_applications_have_places_of_their_own() -> anyhow::Result<()> {
    let mesh_file = mesh("RegistryOnly");
    let mesh = Mesh::start(&[("mesh.yaml", &mesh_file), ("services.yaml", SERVICES)]).await?;
    let app = mesh.dir().join("app.sock");
    let log = mesh.dir().join("app.log");
    let mut command = Command::new("python3");
    command.args(["-c", AT_SOCKET]).arg(&app);
    let _app = pillion_tests::process::Process::start("app", &mut command, &log)?;
    let redis = Backend::start("redis", Speaks::Tcp).await?;
    let mut beside = Beside::client("web");
    beside.more = vec!["--app".to_owned(), format!("unix:{}", app.display())];
    let _web = mesh.sidecar(&beside).await?;
    let _redis = mesh.sidecar(&Beside::new("redis", "v1", redis.address)).await?;

    let place = mesh.dir().join("web.sock");
    let port = pillion_tests::port::Port::reserve()?;
    let mut beside = Beside::client("shopper");
    beside.more = vec![
        "--upstream".to_owned(),
        format!("web.default:80=unix:{}", place.display()),
        "--upstream".to_owned(),
        format!("redis.default:6379={}", port.number()),
    ];
    let _client = mesh.sidecar(&beside).await?;
    wait::until("the socket answers", || async {
        let text = at_socket(&place).await.ok()?;
        text.ends_with("from a socket\n").then_some(())
    })
    .await?;
    wait::until("the port answers", || async {
        let mut stream = TcpStream::connect(port.address()).await.ok()?;
        let mut said = [0; 6];
        stream.read_exact(&mut said).await.ok()?;
        (&said == b"hello\n").then_some(())
    })
    .await
}

async fn at_socket(path: &Path) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: anything\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
