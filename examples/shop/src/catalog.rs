//! What is for sale. Version v2 shows prices as people read them, ratings, and the best first.

use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tonic::body::Body;

use crate::Args;
use crate::products::{PRODUCTS, Product, product};
use crate::reply::{SHOP_VERSION, error_reply, json_reply, no_such_page};

#[derive(Debug)]
pub(crate) struct Catalog {
    version: String,
    version_header: HeaderValue,
    instance: String,
}

impl Catalog {
    pub(crate) fn new(args: &Args) -> anyhow::Result<Self> {
        Ok(Self {
            version_header: HeaderValue::from_str(&args.version)?,
            version: args.version.clone(),
            instance: args.instance().to_owned(),
        })
    }

    pub(crate) fn handle(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let mut reply = match (request.method(), path) {
            (&Method::GET, "/products") => json_reply(StatusCode::OK, &self.list()),
            (&Method::GET, path) => match path.strip_prefix("/products/") {
                Some(id) => self.one(id),
                None => no_such_page(path),
            },
            _ => no_such_page(path),
        };
        reply.headers_mut().insert(SHOP_VERSION, self.version_header.clone());
        reply
    }

    fn list(&self) -> Value {
        let mut products: Vec<&Product> = PRODUCTS.iter().collect();
        if self.is_v2() {
            products.sort_by(|a, b| b.rating.total_cmp(&a.rating));
        }
        let products: Vec<Value> = products.into_iter().map(|product| self.show(product)).collect();
        json!({ "version": self.version, "answered_by": self.instance, "products": products })
    }

    fn one(&self, id: &str) -> Response<Body> {
        match product(id) {
            Some(product) => {
                let body = json!({
                    "version": self.version,
                    "answered_by": self.instance,
                    "product": self.show(product),
                });
                json_reply(StatusCode::OK, &body)
            }
            None => error_reply(StatusCode::NOT_FOUND, &format!("no such product: {id}")),
        }
    }

    fn show(&self, product: &Product) -> Value {
        let Product { id, name, price_cents, rating, .. } = product;
        if self.is_v2() {
            let price = format!("{}.{:02} EUR", price_cents / 100, price_cents % 100);
            json!({ "id": id, "name": name, "price": price, "rating": format!("{rating:.1}") })
        } else {
            json!({ "id": id, "name": name, "price_cents": price_cents })
        }
    }

    fn is_v2(&self) -> bool {
        self.version == "v2"
    }
}
