//! Connections of checks by HTTP: they are no part of the pools, and nobody counts them.

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Uri, Version};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::http::Answer;
use super::{Kept, Probe};

/// The check has no answer.
pub(super) struct Broken;

type Question = Request<Full<Bytes>>;

/// Sends a request, and waits for the head of the answer. A kept connection that was closed in the
/// meantime is replaced.
pub(super) async fn send(
    probe: &Probe,
    http2: bool,
    request: Question,
    kept: Option<Kept>,
) -> Result<(Answer, Option<Kept>), Broken> {
    let mut request = if http2 { to_http2(request, probe)? } else { request };
    if let Some(mut kept) = kept {
        match kept.send(request).await {
            Ok(answer) => return Ok((answer, Some(kept))),
            Err(Some(unsent)) => request = unsent,
            Err(None) => return Err(Broken),
        }
    }
    let mut fresh = open(probe, http2).await?;
    let answer = fresh.send(request).await.map_err(|_| Broken)?;
    Ok((answer, Some(fresh)))
}

impl Kept {
    /// The request comes back if not a byte of it was sent.
    async fn send(&mut self, request: Question) -> Result<Answer, Option<Question>> {
        let sent = match self {
            Self::Http1(sender) => {
                if sender.ready().await.is_err() {
                    return Err(Some(request));
                }
                sender.try_send_request(request).await
            }
            Self::Http2(sender) => {
                if sender.ready().await.is_err() {
                    return Err(Some(request));
                }
                sender.try_send_request(request).await
            }
            Self::Tcp(_) => return Err(Some(request)),
        };
        sent.map_err(|mut error| error.take_message())
    }
}

async fn open(probe: &Probe, http2: bool) -> Result<Kept, Broken> {
    let alpn: &[&[u8]] = if http2 { &[b"h2"] } else { &[b"http/1.1"] };
    let io = TokioIo::new(probe.connect(alpn).await.map_err(|_| Broken)?);
    if http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        let (sender, driver) = builder.handshake(io).await.map_err(|_| Broken)?;
        // Ends when the sender is dropped, or when the endpoint closes.
        tokio::spawn(async move { drop(driver.await) });
        Ok(Kept::Http2(sender))
    } else {
        let (sender, driver) = http1::handshake(io).await.map_err(|_| Broken)?;
        tokio::spawn(async move { drop(driver.await) });
        Ok(Kept::Http1(sender))
    }
}

/// The authority goes from `Host` into the target (RFC 9113 section 8.3.1).
fn to_http2(mut request: Question, probe: &Probe) -> Result<Question, Broken> {
    let host = request.headers_mut().remove(http::header::HOST).ok_or(Broken)?;
    let authority = Authority::try_from(host.as_bytes()).map_err(|_| Broken)?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if probe.is_tls() { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Broken)?;
    *request.version_mut() = Version::HTTP_2;
    Ok(request)
}
