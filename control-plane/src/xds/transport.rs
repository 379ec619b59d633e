//! gRPC over plain TCP (loopback) and over TLS: accepts connections, finds out who the peer is, and
//! hands requests to the service that their path names.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, ready};
use http::{Request, Response, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::server::{Connected, Server};
use tonic::{Code, Status};
use tower::Service;
use tower::util::BoxCloneSyncService;
use zeroize::Zeroizing;

use crate::identity::{Caller, Peer, Proof, SpiffeId};

/// Most connections that one listener serves at a time.
const MAX_CONNECTIONS: usize = 8192;
/// A TLS handshake must be done within this time.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A silent connection is asked for a sign of life this often, and closed without an answer.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(10);
/// Most calls at a time on one connection.
const MAX_STREAMS: u32 = 256;
/// Open connections get this long to end after a stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a failure to accept that will not pass by itself at once (no file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type GrpcService = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Says who a bearer token makes of its bearer; [`Caller::Nobody`] for one that is not accepted.
pub type TokenCheck = Arc<dyn Fn(Zeroizing<String>) -> BoxFuture<'static, Caller> + Send + Sync>;

/// The gRPC services behind a listener, by name.
#[derive(Clone)]
pub struct Services {
    by_name: Vec<(&'static str, GrpcService)>,
    check_token: TokenCheck,
}

impl Services {
    /// No services yet. Callers are told apart by `check_token` and by their certificates.
    #[must_use]
    pub fn new(check_token: TokenCheck) -> Self {
        Self { by_name: Vec::new(), check_token }
    }

    /// Adds a generated server.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.by_name.push((S::NAME, BoxCloneSyncService::new(service)));
        self
    }

    /// Who makes the call; asks about a token only if there is one.
    fn caller(&self, request: &Request<Body>) -> BoxFuture<'static, Caller> {
        let Some(peer) = request.extensions().get::<Peer>() else {
            return Box::pin(ready(Caller::Nobody("the connection has no peer")));
        };
        let Some(header) = request.headers().get(header::AUTHORIZATION) else {
            return Box::pin(ready(Caller::new(&peer.proof, None)));
        };
        match header.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) => (self.check_token)(Zeroizing::new(token.to_owned())),
            None => Box::pin(ready(Caller::Nobody("the authorization header is no bearer token"))),
        }
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.by_name.iter().map(|(name, _)| name)).finish()
    }
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let name = request.uri().path().split('/').nth(1).unwrap_or_default();
        let Some((_, service)) = self.by_name.iter().find(|(known, _)| *known == name) else {
            let status = Status::new(Code::Unimplemented, format!("no service {name}"));
            return Box::pin(ready(Ok(status.into_http())));
        };
        let (caller, mut service) = (self.caller(&request), service.clone());
        Box::pin(async move {
            request.extensions_mut().insert(caller.await);
            // Generated servers are always ready.
            service.call(request).await
        })
    }
}

/// Serves `services` in plain text until `stop`; for a loopback listener.
///
/// # Errors
/// When the server cannot go on at all.
pub async fn serve_plain(
    listener: TcpListener,
    services: Services,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (accepted, incoming) = mpsc::channel(1);
    let accepting = accept(listener, accepted, |stream, address| async move {
        let peer = Peer { address: Some(address), proof: Proof::Loopback };
        Ok((stream, peer))
    });
    tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
    serve(incoming, services, stop).await
}

/// Serves `services` over TLS until `stop`.
///
/// # Errors
/// When the server cannot go on at all.
pub async fn serve_tls(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    services: Services,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (accepted, incoming) = mpsc::channel(1);
    let acceptor = TlsAcceptor::from(tls);
    let accepting = accept(listener, accepted, move |stream, address| {
        let acceptor = acceptor.clone();
        async move {
            let stream = acceptor.accept(stream).await?;
            let proof = proof_of(&stream)?;
            Ok((stream, Peer { address: Some(address), proof }))
        }
    });
    tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
    serve(incoming, services, stop).await
}

/// A connection with what is known of its peer.
#[derive(Debug)]
struct Connection<S> {
    stream: S,
    peer: Peer,
    _slot: OwnedSemaphorePermit,
}

async fn serve<S>(
    incoming: mpsc::Receiver<io::Result<Connection<S>>>,
    services: Services,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stopped = stop.clone();
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_LIMIT))
        .max_concurrent_streams(MAX_STREAMS)
        .serve_with_incoming_shutdown(services, ReceiverStream::new(incoming), async move {
            stopped.cancelled().await;
        });
    tokio::select! {
        served = serving => served,
        () = async { stop.cancelled().await; tokio::time::sleep(STOP_LIMIT).await } => {
            tracing::warn!("some connections did not end in time and were closed");
            Ok(())
        }
    }
}

/// Accepts for ever; `prepare` (a TLS handshake) of one connection never holds up another one.
async fn accept<S, P, F>(
    listener: TcpListener,
    accepted: mpsc::Sender<io::Result<Connection<S>>>,
    prepare: P,
) where
    S: Send + 'static,
    P: Fn(TcpStream, std::net::SocketAddr) -> F,
    F: Future<Output = io::Result<(S, Peer)>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    tracing::warn!(%error, "cannot accept connections at the moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let preparing = prepare(stream, address);
        let accepted = accepted.clone();
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_LIMIT, preparing).await {
                Ok(Ok((stream, peer))) => {
                    // Refused only when the server is gone.
                    let _ = accepted.send(Ok(Connection { stream, peer, _slot: slot })).await;
                }
                Ok(Err(error)) => tracing::info!(peer = %address, %error, "refused a connection"),
                Err(_) => tracing::info!(peer = %address, "no TLS handshake within 10 s"),
            }
        });
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// The certificate was verified in the handshake; here its name is read.
fn proof_of(stream: &TlsStream<TcpStream>) -> io::Result<Proof> {
    match stream.get_ref().1.peer_certificates().and_then(<[_]>::first) {
        None => Ok(Proof::Anonymous),
        Some(leaf) => SpiffeId::of_certificate(leaf).map(Proof::Svid).map_err(io::Error::other),
    }
}

impl<S> Connected for Connection<S> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
