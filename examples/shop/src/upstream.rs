//! How one service of the shop reaches another: plain HTTP for the other one's mesh name, handed to the sidecar.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use crate::proto::pricing_client::PricingClient;
use crate::reply::Carried;

/// How long an app waits for another one; the mesh's own timeouts are shorter.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to the sidecar, whatever host the URL names; to the URL's host where there is no sidecar.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    sidecar: Option<Uri>,
    tcp: HttpConnector,
}

impl Dialer {
    pub(crate) fn new(sidecar: Option<Uri>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(PATIENCE));
        Self { sidecar, tcp }
    }
}

impl Service<Uri> for Dialer {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = <HttpConnector as Service<Uri>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let to = self.sidecar.clone().unwrap_or(uri);
        self.tcp.call(to)
    }
}

/// Another service of the shop, spoken to in JSON over HTTP/1.1.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    name: &'static str,
    base: String,
    client: Client<Dialer, Full<Bytes>>,
}

/// What another service answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Upstream {
    pub(crate) fn new(name: &'static str, base: &Uri, dialer: &Dialer) -> Self {
        let client = Client::builder(TokioExecutor::new()).build(dialer.clone());
        Self { name, base: base.to_string().trim_end_matches('/').to_owned(), client }
    }

    /// Asks for `path`; everything but a JSON answer with 200 is an error text that names the service.
    pub(crate) async fn get(&self, path: &str, carried: &Carried) -> Result<Answer, String> {
        self.send(Method::GET, path, Bytes::new(), carried).await
    }

    /// Sends `body` to `path`; errors as of [`Self::get`].
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &Value,
        carried: &Carried,
    ) -> Result<Answer, String> {
        self.send(Method::POST, path, Bytes::from(body.to_string()), carried).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        carried: &Carried,
    ) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::ACCEPT, "application/json")
            .body(Full::new(body))
            .map_err(|error| format!("{}: {error}", self.name))?;
        carried.copy_to(request.headers_mut());
        match tokio::time::timeout(PATIENCE, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("{} did not answer within {PATIENCE:?}", self.name)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let name = self.name;
        let reply = self
            .client
            .request(request)
            .await
            .map_err(|error| format!("{name} cannot be reached: {}", with_causes(&error)))?;
        let (head, body) = reply.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| format!("{name} broke off its answer: {}", with_causes(&error)))?
            .to_bytes();
        if head.status != StatusCode::OK {
            let text = String::from_utf8_lossy(&body);
            return Err(format!("{name} answered {}: {}", head.status.as_u16(), text.trim()));
        }
        let body = serde_json::from_slice(&body)
            .map_err(|error| format!("{name} answered something that is not JSON: {error}"))?;
        Ok(Answer { headers: head.headers, body })
    }
}

/// The gRPC client of `pricing`; its `:authority` is that of the URL. Connects at the first call, and again after
/// a connection died.
pub(crate) fn pricing_client(base: &Uri, dialer: Dialer) -> PricingClient<Channel> {
    let channel =
        Endpoint::from(base.clone()).timeout(PATIENCE).connect_with_connector_lazy(dialer);
    PricingClient::new(channel)
}

/// hyper's client says "client error (Connect)" and keeps the reason in its sources.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
