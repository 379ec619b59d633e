//! What things cost, by gRPC.

use tonic::{Request, Response, Status};

use crate::Args;
use crate::products::product;
use crate::proto::pricing_server::Pricing;
use crate::proto::{QuoteReply, QuoteRequest};

#[derive(Debug, Clone)]
pub(crate) struct PriceList {
    instance: String,
}

impl PriceList {
    pub(crate) fn new(args: &Args) -> Self {
        Self { instance: args.instance().to_owned() }
    }
}

#[tonic::async_trait]
impl Pricing for PriceList {
    async fn quote(&self, request: Request<QuoteRequest>) -> Result<Response<QuoteReply>, Status> {
        let mut total_cents: u64 = 0;
        for line in &request.get_ref().lines {
            let product = product(&line.product)
                .ok_or_else(|| Status::not_found(format!("no such product: {}", line.product)))?;
            // At most 2^32 units of some euros each: far from 2^64 for one line, and a sum that leaves the
            // range is no sum anybody pays.
            total_cents =
                total_cents.saturating_add(product.price_cents * u64::from(line.quantity));
        }
        Ok(Response::new(QuoteReply {
            total_cents,
            currency: "EUR".to_owned(),
            answered_by: self.instance.clone(),
        }))
    }
}
