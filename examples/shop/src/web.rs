//! The front: one page, put together from three services.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tonic::body::Body;

use crate::Args;
use crate::reply::{Carried, SHOP_VERSION, error_reply, json_body, json_reply, no_such_page};
use crate::upstream::{Answer, Dialer, Upstream};

#[derive(Debug)]
pub(crate) struct Web {
    catalog: Upstream,
    cart: Upstream,
    reviews: Upstream,
}

impl Web {
    pub(crate) fn new(args: &Args) -> Self {
        let dialer = Dialer::new(args.mesh_proxy.clone());
        Self {
            catalog: Upstream::new("catalog", &args.catalog_url, &dialer),
            cart: Upstream::new("cart", &args.cart_url, &dialer),
            reviews: Upstream::new("reviews", &args.reviews_url, &dialer),
        }
    }

    pub(crate) async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let carried = Carried::of(request.headers());
        let path = request.uri().path().to_owned();
        let page = match (request.method(), path.as_str()) {
            (&Method::GET, "/") => self.home(&carried).await,
            (&Method::POST, "/quote") => self.quote(request, &carried).await,
            (&Method::GET, path) => match path.strip_prefix("/products/") {
                Some(id) => self.product(id, &carried).await,
                None => Ok(no_such_page(path)),
            },
            _ => Ok(no_such_page(&path)),
        };
        page.unwrap_or_else(|error| error_reply(StatusCode::BAD_GATEWAY, &error))
    }

    async fn home(&self, carried: &Carried) -> Result<Response<Body>, String> {
        let (products, cart, reviews) = tokio::join!(
            self.catalog.get("/products", carried),
            self.cart.get("/carts/alice", carried),
            self.reviews.get("/reviews", carried),
        );
        let (products, cart, reviews) = (products?, cart?, reviews?);
        let page = json!({
            "page": "home",
            "catalog": products.body,
            "cart": cart.body,
            "reviews": reviews.body,
        });
        Ok(versioned(&page, &products))
    }

    async fn product(&self, id: &str, carried: &Carried) -> Result<Response<Body>, String> {
        let (product_path, review_path) = (format!("/products/{id}"), format!("/reviews/{id}"));
        let (product, reviews) = tokio::join!(
            self.catalog.get(&product_path, carried),
            self.reviews.get(&review_path, carried),
        );
        let (product, reviews) = (product?, reviews?);
        let page = json!({ "page": "product", "catalog": product.body, "reviews": reviews.body });
        Ok(versioned(&page, &product))
    }

    async fn quote(
        &self,
        request: Request<Incoming>,
        carried: &Carried,
    ) -> Result<Response<Body>, String> {
        let lines: Value = match json_body(request).await {
            Ok(lines) => lines,
            Err(reply) => return Ok(reply),
        };
        let quote = self.cart.post("/quote", &lines, carried).await?;
        Ok(json_reply(StatusCode::OK, &quote.body))
    }
}

/// The page, saying in a header which version of the catalog stands behind it.
fn versioned(page: &Value, catalog: &Answer) -> Response<Body> {
    let mut reply = json_reply(StatusCode::OK, page);
    if let Some(version) = catalog.headers.get(SHOP_VERSION) {
        reply.headers_mut().insert(SHOP_VERSION, version.clone());
    }
    reply
}
