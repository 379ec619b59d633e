//! What people think of the products.

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tonic::body::Body;

use crate::Args;
use crate::products::{PRODUCTS, Product, product};
use crate::reply::{error_reply, json_reply, no_such_page};

#[derive(Debug)]
pub(crate) struct Reviews {
    instance: String,
}

impl Reviews {
    pub(crate) fn new(args: &Args) -> Self {
        Self { instance: args.instance().to_owned() }
    }

    pub(crate) fn handle(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET, "/reviews") => self.reply(PRODUCTS.iter()),
            (&Method::GET, path) => match path.strip_prefix("/reviews/").map(product) {
                Some(Some(product)) => self.reply(std::iter::once(product)),
                Some(None) => error_reply(StatusCode::NOT_FOUND, &format!("no such page: {path}")),
                None => no_such_page(path),
            },
            _ => no_such_page(path),
        }
    }

    fn reply(&self, products: impl Iterator<Item = &'static Product>) -> Response<Body> {
        let reviews: Vec<Value> = products
            .map(|product| json!({ "product": product.id, "text": product.review }))
            .collect();
        json_reply(StatusCode::OK, &json!({ "answered_by": self.instance, "reviews": reviews }))
    }
}
