//! The proxy's own identity: a key made here, certified by the control plane, renewed in time.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pillion_xds::pillion::v1 as pb;
use pillion_xds::pillion::v1::certificate_service_client::CertificateServiceClient;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::metadata::MetadataValue;

use super::client::Command;
use crate::cluster::grpc::Channel;
use crate::cluster::resolve;
use crate::model::cluster::DnsFamily;
use crate::model::listener::Address;
use crate::net::{ConnectOptions, Io, connect};
use crate::tls;
use crate::tls::identity::{Identity, KeyAndCsr};
use crate::tls::join::Proof;

/// How the control plane is reached before there is a certificate.
#[derive(Clone, Debug)]
pub struct Joining {
    /// `host:port`
    pub authority: String,
    /// Speak TLS; plain text is for loopback only.
    pub tls: bool,
    /// Proves that we may join, and who the control plane is.
    pub proof: Proof,
    /// Who we want to be, in the trust domain that the control plane names.
    pub namespace: String,
    /// The other half of it.
    pub service_account: String,
}

impl Joining {
    /// Path of the SPIFFE id that we are to get.
    pub fn path(&self) -> String {
        format!("/ns/{}/sa/{}", self.namespace, self.service_account)
    }
}

/// A call over one connection that is made for it.
#[derive(Clone)]
struct Direct {
    sender: SendRequest<Body>,
    authority: http::uri::Authority,
}

impl tower::Service<Request<Body>> for Direct {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let mut parts = request.uri().clone().into_parts();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        Box::pin(self.sender.send_request(request))
    }
}

/// Get the first certificate, by the token.
///
/// # Errors
/// The control plane cannot be reached, does not prove itself, or refuses; in words.
pub async fn join(joining: &Joining) -> Result<Identity, String> {
    let direct = dial(joining).await?;
    let mut client = CertificateServiceClient::new(direct);
    let bearer = MetadataValue::try_from(joining.proof.bearer()?.as_str())
        .map_err(|_| "the token has characters that no header may have".to_owned())?;
    let mut request = tonic::Request::new(pb::GetTrustBundleRequest {});
    request.metadata_mut().insert("authorization", bearer.clone());
    let bundle = client.get_trust_bundle(request).await.map_err(refused)?.into_inner();
    let domain = bundle.trust_domain;
    let (namespace, account) = (&joining.namespace, &joining.service_account);
    let id = format!("spiffe://{domain}/ns/{namespace}/sa/{account}");
    let key = KeyAndCsr::generate(&id).map_err(|error| error.to_string())?;
    let mut request = tonic::Request::new(sign_request(&key));
    request.metadata_mut().insert("authorization", bearer);
    let answer = client.sign_certificate(request).await.map_err(refused)?;
    issued(&key, answer.into_inner())
}

/// Get the next certificate, by the one that is held.
///
/// # Errors
/// As for [`join()`].
pub async fn renew(channel: Channel, spiffe_id: &str) -> Result<Identity, String> {
    let key = KeyAndCsr::generate(spiffe_id).map_err(|error| error.to_string())?;
    let mut client = CertificateServiceClient::new(channel);
    let answer = client.sign_certificate(sign_request(&key)).await.map_err(refused)?;
    issued(&key, answer.into_inner())
}

/// Keep the identity fresh, for ever: renew at half of its life, and again soon if that fails.
pub async fn keep_fresh(
    mut identity: Identity,
    joining: Joining,
    channel: Channel,
    folder: Option<PathBuf>,
    news: mpsc::Sender<Command>,
) {
    let mut issued = None;
    loop {
        let at = identity.renew_at(issued, fastrand::f64());
        let wait = at.duration_since(SystemTime::now()).unwrap_or(Duration::from_secs(1));
        tokio::time::sleep(wait).await;
        let renewed = if joining.proof.is_vouched() {
            // Whoever vouches may have stopped to.
            join(&joining).await
        } else {
            match renew(channel.clone(), &identity.spiffe_id).await {
                Ok(renewed) => Ok(renewed),
                // Too late for the old certificate, perhaps: the token still proves who we are.
                Err(first) => join(&joining).await.map_err(|second| format!("{first}; {second}")),
            }
        };
        match renewed {
            Ok(renewed) => {
                tracing::info!(spiffe_id = renewed.spiffe_id, "certificate renewed");
                if let Some(folder) = &folder {
                    super::keep::save(folder, &renewed);
                }
                (identity, issued) = (renewed, Some(SystemTime::now()));
                for secret in [&identity.certificate, &identity.trust] {
                    if news.send(Command::Secret(Arc::clone(secret))).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                let left = identity.not_after.duration_since(SystemTime::now()).unwrap_or_default();
                tracing::error!(%error, ?left, "the certificate cannot be renewed");
                tokio::time::sleep(
                    (left / 10).clamp(Duration::from_secs(1), Duration::from_secs(60)),
                )
                .await;
            }
        }
    }
}

async fn dial(joining: &Joining) -> Result<Direct, String> {
    let authority = &joining.authority;
    let (address, io) = reach(authority).await?;
    let io = if joining.tls {
        let config = joining.proof.tls().map_err(|error| error.to_string())?;
        let name = tls::server_name("").map_err(|error| error.to_string())?;
        io.connect_tls(config, name)
            .await
            .map_err(|error| format!("control plane at {address}: {}", tls::explain_io(&error)))?
    } else {
        io
    };
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .map_err(|error| format!("control plane at {address}: {error}"))?;
    tokio::spawn(connection);
    let authority = http::uri::Authority::try_from(authority.as_str())
        .map_err(|error| format!("{authority}: {error}"))?;
    Ok(Direct { sender, authority })
}

/// A connection to the first of the name's addresses that takes one. The name is looked up as the clusters' are.
async fn reach(authority: &str) -> Result<(SocketAddr, Io), String> {
    let parsed: http::uri::Authority =
        authority.parse().map_err(|error| format!("{authority}: {error}"))?;
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
    let port = parsed.port_u16().ok_or_else(|| format!("{authority}: expected a port"))?;
    let found = resolve(host, DnsFamily::All).await;
    let (found, _) = found.map_err(|error| format!("{authority}: {error}"))?;
    let mut failure = format!("{authority}: the name has no address");
    for address in found {
        let address = SocketAddr::new(address, port);
        match connect(&Address::Socket(address), &ConnectOptions::default()).await {
            Ok(io) => return Ok((address, io)),
            Err(error) => {
                failure = format!("cannot connect to the control plane at {address}: {error}");
            }
        }
    }
    Err(failure)
}

fn sign_request(key: &KeyAndCsr) -> pb::SignCertificateRequest {
    pb::SignCertificateRequest { csr_der: key.csr_der().to_vec(), requested_ttl: None }
}

fn issued(key: &KeyAndCsr, answer: pb::SignCertificateResponse) -> Result<Identity, String> {
    let roots = answer.trust_bundle.map(|bundle| bundle.certificate_der).unwrap_or_default();
    key.issued(&answer.certificate_chain_der, &roots).map_err(|error| error.to_string())
}

fn refused(status: tonic::Status) -> String {
    format!("the control plane refused: {:?}: {}", status.code(), status.message())
}
