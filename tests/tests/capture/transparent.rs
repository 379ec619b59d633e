//! Everything is redirected: curl, a Python server, a gRPC client and a server that speaks first get
//! mTLS, strangers are refused, and what the mesh does not know passes or is refused.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use http::Method;
use pillion_tests::backend::{Backend, Speaks};
use pillion_tests::client::{self, Ask};
use pillion_tests::netns::{Host, Inside};
use pillion_tests::process::Process;
use pillion_tests::venv::optional;
use pillion_tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::mesh;
use super::world::{Sidecar, World, python, redirect};

/// A server that speaks first, and then repeats every line.
const GREETER: &str = "
import socketserver
class Greeter(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b'hello\\n')
        for line in self.rfile:
            self.wfile.write(line)
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(('0.0.0.0', 7000), Greeter).serve_forever()
";

/// Two servers that say from where they are called; the one of port 7001 speaks first.
const WHO: &str = "
import http.server, socketserver, threading
class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        text = self.client_address[0].encode() + b'\\n'
        self.send_response(200)
        self.send_header('content-length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)
class Teller(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(self.client_address[0].encode() + b'\\n')
        for line in self.rfile:
            self.wfile.write(line)
web = http.server.ThreadingHTTPServer(('127.0.0.1', 8001), Web)
threading.Thread(target=web.serve_forever).start()
socketserver.ThreadingTCPServer(('0.0.0.0', 7001), Teller).serve_forever()
";

/// Address of the service `back`, which no machine has.
const VIP: [u8; 4] = [10, 96, 0, 10];

/// The hosts of these tests.
struct Hosts {
    world: World,
    /// Where the clients are.
    front: Host,
    /// Where the service `back` runs.
    back: Host,
    /// Without a sidecar.
    outside: Host,
    front_sidecar: Sidecar,
    back_sidecar: Sidecar,
    grpc: Backend,
    /// It speaks first.
    redis: Backend,
    _programs: Vec<Process>,
    _backends: Vec<Inside>,
}

#[tokio::test]
async fn who_knows_nothing_of_the_mesh_gets_mtls() -> anyhow::Result<()> {
    let Some(hosts) = optional("network namespaces", hosts("redirect").await)? else {
        return Ok(());
    };
    hosts.curl_and_python().await?;
    hosts.grpc().await?;
    hosts.speaks_first().await?;
    hosts.calls_itself().await?;
    hosts.plain_text_is_refused()?;
    hosts.strangers().await?;
    hosts.links().await?;
    hosts.taken_back()
}

#[tokio::test]
async fn tproxy_brings_the_same() -> anyhow::Result<()> {
    let Some(hosts) = optional("network namespaces", hosts("tproxy").await)? else {
        return Ok(());
    };
    hosts.curl_and_python().await?;
    hosts.grpc().await?;
    hosts.speaks_first().await?;
    hosts.plain_text_is_refused()?;
    hosts.source_is_kept().await?;
    hosts.taken_back()
}

async fn hosts(mode: &str) -> anyhow::Result<Hosts> {
    let mut world = World::start(&mesh("Passthrough")).await?;
    let front = world.lab.host("front")?;
    let back = world.lab.host("back")?;
    let outside = world.lab.host("outside")?;
    front.names("10.96.0.10 back.default\n10.77.0.4 outside.test")?;
    back.names("10.96.0.10 back.default")?;
    let (grpc, in_grpc) =
        back.keep(|| async { Ok(Backend::start("grpc", Speaks::Http2).await?) })?;
    let (redis, in_redis) =
        back.keep(|| async { Ok(Backend::start("redis", Speaks::Tcp).await?) })?;
    let web = world.dir.path().join("web");
    std::fs::create_dir(&web)?;
    std::fs::write(web.join("hello.txt"), "hello from python\n")?;
    std::fs::write(web.join("large.bin"), vec![b'x'; 300_000])?;
    let server = ["-m", "http.server", "8000", "--bind", "127.0.0.1"];
    let other = ["-m", "http.server", "8080", "--bind", "::"];
    let programs = vec![
        python(&back, "python", (&server, &web))?,
        python(&back, "who", (&["-c", WHO], &web))?,
        python(&outside, "outside", (&other, &web))?,
        python(&outside, "greeter", (&["-c", GREETER], &web))?,
    ];
    let ports = [
        ("http", 8000),
        ("grpc", grpc.address.port()),
        ("redis", redis.address.port()),
        ("http-who", 8001),
        ("tcp-who", 7001),
    ];
    let apps = ports.map(|(name, port)| format!("{name}={port}"));
    let back_sidecar = world.sidecar(&back, ("back", &apps), mode).await?;
    let front_sidecar = world.sidecar(&front, ("front", &[]), mode).await?;
    Ok(Hosts {
        grpc,
        redis,
        world,
        front,
        back,
        outside,
        front_sidecar,
        back_sidecar,
        _programs: programs,
        _backends: vec![in_grpc, in_redis],
    })
}

impl Hosts {
    /// curl on one side, a Python server on the other; the names are in `/etc/hosts`.
    async fn curl_and_python(&self) -> anyhow::Result<()> {
        wait::until("curl gets the file", || async {
            let (fine, text) = self.curl("http://back.default/hello.txt").ok()?;
            (fine && text == "hello from python\n").then_some(())
        })
        .await
        .with_context(|| self.logs())?;
        let handshakes = self.back_sidecar.counter("http.inbound_15006.downstream_cx_ssl_total");
        ensure!(handshakes.await? > 0, "nothing came over TLS");
        // By its address alone the service is known too, whatever the host header says.
        let (fine, text) = self.curl("http://10.96.0.10/hello.txt")?;
        ensure!(fine && text == "hello from python\n", "{text}{}", self.logs());
        Ok(())
    }

    async fn grpc(&self) -> anyhow::Result<()> {
        let before = self.grpc.connections();
        let mut ask = Ask::new(Method::POST, "/echo.Echo/Say");
        "back.default:90".clone_into(&mut ask.host);
        ask.http2 = true;
        ask.body = b"a message".to_vec();
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        ask.headers = vec![header("content-type", "application/grpc"), header("te", "trailers")];
        let address = SocketAddr::from((VIP, 90));
        let answer = self.front.block_on(|| client::send(address, &ask))??;
        ensure!(answer.status == 200 && answer.body == ask.body, "{answer:?}");
        let status = answer.trailers.iter().find(|(name, _)| name == "grpc-status");
        ensure!(status.is_some_and(|(_, code)| code == "0"), "{answer:?}");
        ensure!(self.grpc.connections() > before, "another backend answered");
        // Without a content type it tells which headers arrived.
        ask.headers.clear();
        let told = self.front.block_on(|| client::send(address, &ask))??.text();
        ensure!(told.contains("URI=spiffe://test.local/ns/default/sa/front"), "{told}");
        Ok(())
    }

    /// By the service's address, and by that of the workload.
    async fn speaks_first(&self) -> anyhow::Result<()> {
        let workload = SocketAddr::from((self.back.address(), self.redis.address.port()));
        let before = self.front_sidecar.counter("listener.captured.downstream_cx_total").await?;
        for address in [SocketAddr::from((VIP, 6379)), workload] {
            let said = self.listen_and_echo(address, b"hello\n")?;
            ensure!(said == "hello\nping\n", "{address}: {said}");
        }
        let after = self.front_sidecar.counter("listener.captured.downstream_cx_total").await?;
        ensure!(after >= before + 2, "{before} connections before, {after} now");
        let name = "cluster.direct|back.default_6379.ssl.handshake";
        ensure!(self.front_sidecar.counter(name).await? == 1, "no TLS to the workload");
        let name = "cluster.back.default_6379.ssl.handshake";
        ensure!(self.front_sidecar.counter(name).await? == 1, "no TLS to the service");
        Ok(())
    }

    /// The application sees who called, though two sidecars are between; clients take turns, so that a connection
    /// that was made for one would be seen by the other.
    async fn source_is_kept(&self) -> anyhow::Result<()> {
        let (front, back) = (self.front.address(), self.back.address());
        wait::until("the server is up", || async {
            let (_, text) = self.curl("http://back.default:81/").ok()?;
            (text == format!("{front}\n")).then_some(())
        })
        .await
        .with_context(|| self.logs())?;
        for _ in 0..3 {
            let (_, text) = self.curl("http://back.default:81/")?;
            ensure!(text == format!("{front}\n"), "{front} was {text}");
            let args = ["-sS", "--max-time", "30", "http://back.default:81/"];
            let (_, text) = self.back.run("curl", &args)?;
            ensure!(text == format!("{back}\n"), "{back} was {text}");
        }
        let name = "cluster.inbound_8001.upstream_cx_total";
        let connections = self.back_sidecar.counter(name).await?;
        ensure!(connections <= 3, "{connections} connections: those of a client are not kept");
        let greeting = format!("{front}\n");
        for address in [SocketAddr::from((VIP, 7001)), SocketAddr::from((back, 7001))] {
            let said = self.listen_and_echo(address, greeting.as_bytes())?;
            ensure!(said == format!("{front}\nping\n"), "{address}: {said}");
        }
        Ok(())
    }

    /// A service whose only workload is the caller itself: its sidecar talks to itself, over mTLS.
    async fn calls_itself(&self) -> anyhow::Result<()> {
        let name = "cluster.back.default_80.ssl.handshake";
        let before = self.back_sidecar.counter(name).await?;
        let args = ["-sS", "--max-time", "30", "http://back.default/hello.txt"];
        let (fine, text) = self.back.run("curl", &args)?;
        ensure!(fine && text == "hello from python\n", "{text}{}", self.logs());
        ensure!(self.back_sidecar.counter(name).await? > before, "it did not go over TLS");
        Ok(())
    }

    /// The ports of the application are not to be had without a certificate.
    fn plain_text_is_refused(&self) -> anyhow::Result<()> {
        for port in [8000, 15006, self.redis.address.port()] {
            let url = format!("http://{}:{port}/hello.txt", self.back.address());
            let args = ["-sS", "--max-time", "10", &url];
            let (fine, text) = self.outside.run("curl", &args)?;
            ensure!(!fine && !text.contains("timed out"), "{url}: {text}");
        }
        Ok(())
    }

    /// What the mesh does not know.
    async fn strangers(&self) -> anyhow::Result<()> {
        for url in ["http://outside.test:8080/hello.txt", "http://[fd77::4]:8080/hello.txt"] {
            let (fine, text) = self.curl(url)?;
            ensure!(fine && text == "hello from python\n", "{url}: {text}");
        }
        let greeter = SocketAddr::from((self.outside.address(), 7000));
        let said = self.listen_and_echo(greeter, b"hello\n")?;
        ensure!(said.starts_with("hello"), "{said}");
        // A client that takes its time is HTTP all the same: the proxy's name is in the answer.
        let said = self.late(SocketAddr::from((self.outside.address(), 8080)))?;
        ensure!(said.starts_with("HTTP/1.1 200 ") && said.contains("x-envoy-upstream"), "{said}");
        self.world.write(&mesh("RegistryOnly"))?;
        wait::until("strangers are refused", || async {
            let (_, text) = self.curl("http://outside.test:8080/hello.txt").ok()?;
            text.contains("RegistryOnly").then_some(())
        })
        .await
        .with_context(|| self.logs())?;
        ensure!(self.listen_and_echo(greeter, b"hello\n").is_err(), "it got through");
        let (fine, text) = self.curl("http://back.default/hello.txt")?;
        ensure!(fine, "the mesh itself is still there: {text}");
        Ok(())
    }

    /// A link that is cut, mended, and slow.
    async fn links(&self) -> anyhow::Result<()> {
        self.back.link(false)?;
        wait::until("the cut is seen", || async {
            let (_, text) = self.status_of("http://back.default/hello.txt").ok()?;
            (text.contains("503") || text.contains("504")).then_some(())
        })
        .await?;
        self.back.link(true)?;
        wait::until("the link is mended", || async {
            let (_, text) = self.status_of("http://back.default/hello.txt").ok()?;
            text.contains("200").then_some(())
        })
        .await
        .with_context(|| self.logs())?;
        self.front.slow("2mbit")?;
        let (fine, text) = self.curl("http://back.default/large.bin")?;
        ensure!(fine && text.len() == 300_000, "{} bytes", text.len());
        Ok(())
    }

    /// Saying it twice is saying it once, and undoing it leaves nothing.
    fn taken_back(&self) -> anyhow::Result<()> {
        redirect(&self.back, &["--undo"])?;
        for args in [&["-4", "rule"], &["-6", "rule"]] {
            let (_, rules) = self.back.run("ip", args)?;
            ensure!(!rules.contains("fwmark"), "{rules}");
        }
        for name in
            ["net.ipv4.tcp_fwmark_accept", "net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect"]
        {
            let (_, value) =
                self.back.run("cat", &[&format!("/proc/sys/{}", name.replace('.', "/"))])?;
            ensure!(value.trim() == "0", "{name} is {value}");
        }
        let tables =
            || -> anyhow::Result<String> { Ok(self.front.run("nft", &["list", "ruleset"])?.1) };
        redirect(&self.front, &[])?;
        let once = tables()?;
        redirect(&self.front, &[])?;
        ensure!(once == tables()? && once.contains("inet pillion"), "{once}");
        let printed = redirect(&self.front, &["--undo", "--dry-run"])?;
        ensure!(printed.contains("delete table inet pillion") && once == tables()?, "{printed}");
        redirect(&self.front, &["--undo"])?;
        redirect(&self.front, &["--undo"])?;
        let left = tables()?;
        ensure!(left.trim().is_empty(), "{left}");
        Ok(())
    }

    fn curl(&self, url: &str) -> anyhow::Result<(bool, String)> {
        self.front.run("curl", &["-sS", "--max-time", "30", url])
    }

    fn status_of(&self, url: &str) -> anyhow::Result<(bool, String)> {
        let args = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "30", url];
        self.front.run("curl", &args)
    }

    /// Waits for what the server says, without a word; then says something and waits for the echo.
    fn listen_and_echo(&self, address: SocketAddr, greeting: &[u8]) -> anyhow::Result<String> {
        let talk = || async move {
            let mut stream = TcpStream::connect(address).await?;
            let mut said = vec![0; greeting.len()];
            stream.read_exact(&mut said).await?;
            stream.write_all(b"ping\n").await?;
            let mut rest = [0; 5];
            stream.read_exact(&mut rest).await?;
            said.extend_from_slice(&rest);
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&said).into_owned())
        };
        let talked = self.front.block_on(|| tokio::time::timeout(wait::LIMIT, talk()))?;
        Ok(talked.context("nobody spoke")??)
    }

    /// A request on a connection that was silent at first.
    fn late(&self, address: SocketAddr) -> anyhow::Result<String> {
        let talk = || async move {
            let mut stream = TcpStream::connect(address).await?;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let request = b"GET /hello.txt HTTP/1.1\r\nhost: x.test\r\nconnection: close\r\n\r\n";
            stream.write_all(request).await?;
            let mut said = String::new();
            stream.read_to_string(&mut said).await?;
            Ok::<_, std::io::Error>(said)
        };
        let talked = self.front.block_on(|| tokio::time::timeout(wait::LIMIT, talk()))?;
        Ok(talked.context("no answer")??)
    }

    fn logs(&self) -> String {
        format!(
            "{}\n{}",
            self.front_sidecar.process.describe(),
            self.back_sidecar.process.describe()
        )
    }
}
