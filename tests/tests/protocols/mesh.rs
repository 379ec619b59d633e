//! A WebSocket through two sidecars: HTTP/1.1, then HTTP/2 with mTLS, then HTTP/1.1. Nobody had to
//! configure that.

use std::net::Ipv4Addr;

use pillion_tests::mesh::{Beside, Mesh, Sidecar};
use pillion_tests::wait;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::upgrade::serve_http1;
use super::wire::{head, hear, say};
use crate::mesh::{STRICT, route, service};

async fn open(sidecar: &Sidecar) -> anyhow::Result<(TcpStream, String)> {
    let mut client = TcpStream::connect(sidecar.outbound).await?;
    say(
        &mut client,
        "GET /chat HTTP/1.1\r\nhost: chat.default\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
    )
    .await?;
    let answer = head(&hear(&mut client, "\r\n\r\n").await?);
    Ok((client, answer))
}

#[tokio::test]
async fn a_websocket_passes_two_sidecars_and_outlives_a_route() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let mut app = JoinSet::new();
    app.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_http1(stream));
        }
    });
    let files = [
        ("mesh.yaml", STRICT),
        ("chat.yaml", &service("chat", "http")),
        ("route.yaml", &route("HTTPRoute", "chat", "v1")),
    ];
    let mesh = Mesh::start(&files).await?;
    let _chat = mesh.sidecar(&Beside::new("chat", "v1", address)).await?;
    let client = mesh.sidecar(&Beside::client("talker")).await?;
    let opened = || async {
        let (stream, answer) = open(&client).await.ok()?;
        answer.starts_with("HTTP/1.1 101 ").then_some(stream)
    };
    let mut stream = wait::until("a WebSocket through two sidecars", opened).await?;
    let seen = hear(&mut stream, "\n").await?;
    assert!(seen.contains("upgrade=websocket") && seen.contains("connection=upgrade"), "{seen}");
    say(&mut stream, "before\n").await?;
    assert_eq!(hear(&mut stream, "\n").await?, "before\n");

    // Nobody serves that version: new requests fail, what is open goes on.
    mesh.write("route.yaml", &route("HTTPRoute", "chat", "v2"))?;
    let moved = || async {
        let (_, answer) = open(&client).await.ok()?;
        answer.starts_with("HTTP/1.1 503 ").then_some(())
    };
    wait::until("the route changed", moved).await?;
    say(&mut stream, "after\n").await?;
    assert_eq!(hear(&mut stream, "\n").await?, "after\n");
    Ok(())
}
