//! Asking a running control plane for a certificate, for the command line.

use std::net::SocketAddr;
use std::time::Duration;

use pillion_xds::pillion::v1::SignCertificateRequest;
use pillion_xds::pillion::v1::certificate_service_client::CertificateServiceClient;
use rustls_pki_types::CertificateDer;
use tonic::transport::Endpoint;
use tonic::{Request, Status};

/// The control plane must answer within this time.
const LIMIT: Duration = Duration::from_secs(5);

/// Has `request` (PKCS#10 in DER) signed over the plain loopback port at `address`, and returns the
/// chain.
///
/// # Errors
/// What the control plane said, or why it could not be asked. Never the token.
pub async fn sign_remotely(
    address: SocketAddr,
    token: &str,
    request: Vec<u8>,
    ttl: Option<Duration>,
) -> Result<Vec<CertificateDer<'static>>, Status> {
    let channel = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| Status::internal("the address does not make a URL"))?
        .timeout(LIMIT)
        .connect_timeout(LIMIT)
        .connect()
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let mut message = Request::new(SignCertificateRequest {
        csr_der: request,
        requested_ttl: ttl.and_then(|ttl| ttl.try_into().ok()),
    });
    let authorization = format!("Bearer {token}")
        .parse()
        .map_err(|_| Status::invalid_argument("the join token has characters that no token has"))?;
    message.metadata_mut().insert("authorization", authorization);
    let answer = CertificateServiceClient::new(channel).sign_certificate(message).await?;
    Ok(answer.into_inner().certificate_chain_der.into_iter().map(CertificateDer::from).collect())
}
