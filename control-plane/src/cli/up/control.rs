//! How other commands talk to a running `pillion up`: HTTP over a Unix socket that only its user can open.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::supervisor::Supervisor;

const NAME: &str = "up.sock";

/// The socket, removed when it is dropped.
pub(super) struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    /// # Errors
    /// Another `pillion up` uses this data folder, or the socket cannot be made.
    pub(super) fn bind(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(NAME);
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            bail!(
                "{}: another `pillion up` runs here; `pillion down` stops it",
                data_dir.display()
            );
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("cannot listen on {}", path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { path, listener })
    }

    /// Answers until it is aborted.
    pub(super) async fn serve(self, supervisor: Arc<Supervisor>, down: mpsc::Sender<()>) {
        while let Ok((stream, _)) = self.listener.accept().await {
            let (supervisor, down) = (Arc::clone(&supervisor), down.clone());
            tokio::spawn(async move {
                let service = service_fn(|request| answer(&supervisor, &down, request));
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!(%error, "a connection of the control socket broke");
                }
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(
    supervisor: &Supervisor,
    down: &mpsc::Sender<()>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, http::Error> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let done = match (request.method(), parts.as_slice()) {
        (&Method::GET, ["ps"]) => {
            let rows = serde_json::to_vec(&supervisor.rows()).unwrap_or_default();
            return Response::builder().body(Full::from(rows));
        }
        (&Method::GET, ["admin"]) => {
            return Response::builder().body(Full::from(supervisor.admin().to_string()));
        }
        (&Method::POST, ["restart", name]) => supervisor.restart(name).await,
        (&Method::POST, ["scale", name, number]) => match number.parse() {
            Ok(number) => supervisor.scale(name, number).await,
            Err(_) => Err(anyhow::anyhow!("`{number}` is no number of instances")),
        },
        (&Method::POST, ["down"]) => {
            let _ = down.try_send(());
            Ok(())
        }
        _ => {
            return Response::builder().status(StatusCode::NOT_FOUND).body(Full::default());
        }
    };
    match done {
        Ok(()) => Response::builder().body(Full::default()),
        Err(error) => Response::builder()
            .status(StatusCode::BAD_REQUEST)
            .body(Full::from(format!("{error:#}"))),
    }
}

/// Where the control plane of the `pillion up` in this folder answers people. `None`: none runs there.
pub(in crate::cli) async fn admin_of(data_dir: &Path) -> Option<SocketAddr> {
    let answer = ask(data_dir, Method::GET, "/admin").await.ok()?;
    std::str::from_utf8(&answer).ok()?.parse().ok()
}

/// Asks a running `pillion up`.
///
/// # Errors
/// None runs in this data folder, or it refuses; the message says why.
pub(super) async fn ask(data_dir: &Path, method: Method, path: &str) -> anyhow::Result<Bytes> {
    let socket = data_dir.join(NAME);
    let stream = UnixStream::connect(&socket).await.with_context(|| {
        format!("no `pillion up` runs in {} (is --data-dir right?)", data_dir.display())
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "pillion")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let reply = async {
        let reply = sender.send_request(request).await?;
        let status = reply.status();
        anyhow::Ok((status, reply.into_body().collect().await?.to_bytes()))
    };
    let (reply, _) = tokio::join!(reply, connection);
    let (status, body) = reply?;
    if !status.is_success() {
        bail!("{}", String::from_utf8_lossy(&body));
    }
    Ok(body)
}
