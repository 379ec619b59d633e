//! What somebody wants to buy. A cart follows from its owner's name, so that every instance has the same one.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tonic::Code;
use tonic::body::Body;
use tonic::transport::Channel;

use crate::Args;
use crate::products::PRODUCTS;
use crate::proto::pricing_client::PricingClient;
use crate::proto::{Line, QuoteRequest};
use crate::reply::{Carried, error_reply, json_body, json_reply, no_such_page};
use crate::upstream::{Dialer, pricing_client};

#[derive(Debug)]
pub(crate) struct Cart {
    pricing: PricingClient<Channel>,
    instance: String,
}

/// One line of a cart as JSON has it.
#[derive(Debug, Serialize, Deserialize)]
struct Item {
    product: String,
    quantity: u32,
}

impl Cart {
    pub(crate) fn new(args: &Args) -> Self {
        Self {
            pricing: pricing_client(&args.pricing_url, Dialer::new(args.mesh_proxy.clone())),
            instance: args.instance().to_owned(),
        }
    }

    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let carried = Carried::of(request.headers());
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::POST, "/quote") => match json_body(request).await {
                Ok(items) => self.priced("nobody", items, &carried).await,
                Err(reply) => reply,
            },
            (&Method::GET, path) => match path.strip_prefix("/carts/") {
                Some(user) => self.priced(user, cart_of(user), &carried).await,
                None => no_such_page(path),
            },
            _ => no_such_page(&path),
        }
    }

    async fn priced(&self, user: &str, items: Vec<Item>, carried: &Carried) -> Response<Body> {
        let lines = items
            .iter()
            .map(|item| Line { product: item.product.clone(), quantity: item.quantity })
            .collect();
        let mut request = tonic::Request::new(QuoteRequest { lines });
        let mut headers = http::HeaderMap::new();
        carried.copy_to(&mut headers);
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        match self.pricing.clone().quote(request).await {
            Ok(reply) => {
                let quote = reply.into_inner();
                let body = json!({
                    "user": user,
                    "answered_by": self.instance,
                    "items": items,
                    "total_cents": quote.total_cents,
                    "currency": quote.currency,
                    "priced_by": quote.answered_by,
                });
                json_reply(StatusCode::OK, &body)
            }
            Err(status) if status.code() == Code::NotFound => {
                error_reply(StatusCode::NOT_FOUND, status.message())
            }
            Err(status) => error_reply(
                StatusCode::BAD_GATEWAY,
                &format!("pricing answered {:?}: {}", status.code(), status.message()),
            ),
        }
    }
}

fn cart_of(user: &str) -> Vec<Item> {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    let seed = hasher.finish();
    PRODUCTS
        .iter()
        .enumerate()
        .filter(|(index, _)| *index == 0 || seed >> index & 1 == 1)
        .map(|(index, product)| Item {
            product: product.id.to_owned(),
            quantity: 1 + (seed >> (8 + index) & 1) as u32,
        })
        .collect()
}
