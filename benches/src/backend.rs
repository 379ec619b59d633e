//! What the proxies stand before: servers that cost next to nothing.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A path that starts so gets a large answer.
pub const LARGE_PATH: &str = "/large";
/// Bytes of a small answer.
pub const SMALL: usize = 1024;
/// Bytes of a large answer.
pub const LARGE: usize = 1024 * 1024;

/// Answers over HTTP/1.1. Ends with the runtime.
///
/// # Errors
/// When there is no port.
pub async fn http1() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { drop(serve_http1(stream).await) });
        }
    });
    Ok(address)
}

fn answer(size: usize) -> Bytes {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {size}\r\n\r\n"
    )
    .into_bytes();
    bytes.resize(bytes.len() + size, b'x');
    bytes.into()
}

async fn serve_http1(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (small, large) = (answer(SMALL), answer(LARGE));
    let mut buffer = vec![0; 16 * 1024];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        // The requests have no content: each ends with its head.
        while let Some(end) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") {
            let is_large = buffer[..end].split(|byte| *byte == b' ').nth(1);
            let is_large = is_large.is_some_and(|path| path.starts_with(LARGE_PATH.as_bytes()));
            stream.write_all(if is_large { &large } else { &small }).await?;
            buffer.copy_within(end + 4..filled, 0);
            filled -= end + 4;
        }
    }
}

/// Answers over HTTP/2 with prior knowledge, and any gRPC call with success: a sink for spans.
///
/// # Errors
/// When there is no port.
pub async fn http2() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move { drop(serve_http2(stream).await) });
        }
    });
    Ok(address)
}

async fn serve_http2(stream: TcpStream) -> Result<(), h2::Error> {
    let _ = stream.set_nodelay(true);
    let body = Bytes::from(vec![b'x'; SMALL]);
    let mut connection = h2::server::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 24)
        .handshake::<_, Bytes>(stream)
        .await?;
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        let grpc = request.headers().contains_key("grpc-timeout")
            || request.headers().get("content-type").is_some_and(|kind| kind == "application/grpc");
        if grpc {
            let head = Response::builder().header("content-type", "application/grpc").body(());
            let Ok(head) = head else { continue };
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(Bytes::from_static(&[0; 5]), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            stream.send_trailers(trailers)?;
            tokio::spawn(async move {
                let mut content = request.into_body();
                while let Some(Ok(piece)) = content.data().await {
                    let _ = content.flow_control().release_capacity(piece.len());
                }
            });
        } else {
            let mut stream = respond.send_response(Response::new(()), false)?;
            stream.send_data(body.clone(), true)?;
        }
    }
    Ok(())
}
