//! `pillion.v1.CertificateService`: certificates over gRPC.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, Stream, StreamExt};
use pillion_xds::pillion::v1::certificate_service_server::{
    CertificateService, CertificateServiceServer,
};
use pillion_xds::pillion::v1::{
    GetTrustBundleRequest, SignCertificateRequest, SignCertificateResponse,
    StreamTrustBundleRequest, TrustBundle,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{Ca, CaError, Leaf, SigningRequest};
use crate::identity::{Caller, SpiffeId};

/// Version of the bundle: it holds the one root of its whole life.
const BUNDLE_VERSION: u64 = 1;

/// The service over one authority. The caller of a request is a [`Caller`] in its extensions.
#[derive(Debug)]
pub struct CertificateApi {
    ca: Arc<Ca>,
    stop: CancellationToken,
}

impl CertificateApi {
    /// A service that ends its streams when `stop` is cancelled.
    #[must_use]
    pub fn new(ca: Arc<Ca>, stop: CancellationToken) -> Self {
        Self { ca, stop }
    }

    /// The service as a server takes it.
    #[must_use]
    pub fn into_server(self) -> CertificateServiceServer<Self> {
        CertificateServiceServer::new(self)
    }

    fn bundle(&self) -> TrustBundle {
        TrustBundle {
            trust_domain: self.ca.trust_domain().to_string(),
            version: BUNDLE_VERSION,
            certificate_der: vec![self.ca.root().to_vec()],
        }
    }
}

#[tonic::async_trait]
impl CertificateService for CertificateApi {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let message = request.into_inner();
        let csr = SigningRequest::verify(&message.csr_der).map_err(refused)?;
        let id = identity_for(caller.as_ref(), csr.wanted.as_ref())?;
        let ttl = message
            .requested_ttl
            .map(|ttl| Duration::from_secs(u64::try_from(ttl.seconds).unwrap_or(0)));
        let leaf = Leaf::of(id, ttl);
        let issued = self.ca.sign_request(&csr, &leaf, SystemTime::now()).map_err(refused)?;
        tracing::info!(identity = %leaf.id, "signed a certificate");
        Ok(Response::new(SignCertificateResponse {
            certificate_chain_der: issued.chain.iter().map(|der| der.to_vec()).collect(),
            trust_bundle: Some(self.bundle()),
            not_before: Some(issued.not_before.into()),
            not_after: Some(issued.not_after.into()),
            spiffe_id: leaf.id.to_string(),
        }))
    }

    async fn get_trust_bundle(
        &self,
        _request: Request<GetTrustBundleRequest>,
    ) -> Result<Response<TrustBundle>, Status> {
        Ok(Response::new(self.bundle()))
    }

    type StreamTrustBundleStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<TrustBundle, Status>> + Send>>;

    async fn stream_trust_bundle(
        &self,
        request: Request<StreamTrustBundleRequest>,
    ) -> Result<Response<Self::StreamTrustBundleStream>, Status> {
        let known = request.into_inner().known_version == BUNDLE_VERSION;
        let first = (!known).then(|| Ok(self.bundle()));
        // The root never changes while the process lives, so nothing follows until it ends.
        let rest = stream::once(self.stop.clone().cancelled_owned())
            .map(|()| Err(Status::unavailable("the control plane is shutting down")));
        Ok(Response::new(stream::iter(first).chain(rest).boxed()))
    }
}

/// The identity that `caller` gets, of those it may have.
fn identity_for(caller: Option<&Caller>, wanted: Option<&SpiffeId>) -> Result<SpiffeId, Status> {
    match (caller, wanted) {
        (Some(Caller::TokenHolder), Some(wanted)) => Ok(wanted.clone()),
        (Some(Caller::TokenHolder), None) => Err(Status::invalid_argument(
            "the certificate request names no SPIFFE identity in its URI subject alternative name",
        )),
        (Some(Caller::Workload(own)), Some(wanted)) if own != wanted => {
            Err(Status::permission_denied(format!("{own} may not have a certificate for {wanted}")))
        }
        (Some(Caller::Workload(own)), _) => Ok(own.clone()),
        (Some(Caller::Nobody(why)), _) => Err(Status::unauthenticated(*why)),
        (Some(Caller::Local) | None, _) => {
            Err(Status::unauthenticated("a join token or a client certificate is needed"))
        }
    }
}

fn refused(error: CaError) -> Status {
    match error {
        CaError::Csr(_) | CaError::Identity(_) => Status::invalid_argument(error.to_string()),
        CaError::OtherTrustDomain { .. } => Status::permission_denied(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn id(account: &str) -> SpiffeId {
        format!("spiffe://td/ns/default/sa/{account}").parse().unwrap()
    }

    fn code(caller: Option<Caller>, wanted: Option<SpiffeId>) -> Result<SpiffeId, Code> {
        identity_for(caller.as_ref(), wanted.as_ref()).map_err(|status| status.code())
    }

    #[test]
    fn a_token_holder_may_claim_any_identity_but_must_name_it() {
        assert_eq!(code(Some(Caller::TokenHolder), Some(id("a"))), Ok(id("a")));
        assert_eq!(code(Some(Caller::TokenHolder), None), Err(Code::InvalidArgument));
    }

    #[test]
    fn a_workload_gets_its_own_identity_only() {
        let own = || Some(Caller::Workload(id("a")));
        assert_eq!(code(own(), None), Ok(id("a")));
        assert_eq!(code(own(), Some(id("a"))), Ok(id("a")));
        assert_eq!(code(own(), Some(id("b"))), Err(Code::PermissionDenied));
    }

    #[test]
    fn nobody_else_gets_anything() {
        for caller in [None, Some(Caller::Local), Some(Caller::Nobody("no"))] {
            assert_eq!(code(caller, Some(id("a"))), Err(Code::Unauthenticated));
        }
    }
}
