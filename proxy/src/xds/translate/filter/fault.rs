//! `fault.v3.HTTPFault`

use std::sync::Arc;

use http::StatusCode;
use pillion_xds::envoy::extensions::filters::common::fault::v3 as shared;
use pillion_xds::envoy::extensions::filters::http::fault::v3 as pb;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, matcher};
use crate::model::filter::{Fault, FaultAbort, FaultDelay, FaultRate, FilterKind};

pub(super) fn filter(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::HttpFault = common::unpack(at, packed)?;
    let headers_at = at.field("headers");
    let headers = headers_at.each(&config.headers, matcher::header);
    headers_at.expect(headers.len() == config.headers.len(), "a matcher is refused")?;
    let upstream = config.upstream_cluster.as_str();
    Some(FilterKind::Fault(Arc::new(Fault {
        delay: match &config.delay {
            Some(config) => Some(delay(&at.field("delay"), config)?),
            None => None,
        },
        abort: match &config.abort {
            Some(config) => Some(abort(&at.field("abort"), config)?),
            None => None,
        },
        upstream_cluster: (!upstream.is_empty()).then(|| upstream.into()),
        headers,
        downstream_nodes: config.downstream_nodes.clone(),
        max_active: config.max_active_faults,
        rate: match &config.response_rate_limit {
            Some(config) => Some(rate(&at.field("response_rate_limit"), config)?),
            None => None,
        },
    })))
}

fn delay(at: &At<'_>, config: &shared::FaultDelay) -> Option<(FaultDelay, u32)> {
    use shared::fault_delay::FaultDelaySecifier as Kind;
    let kind = match &config.fault_delay_secifier {
        Some(Kind::FixedDelay(fixed)) => {
            let at = at.field("fixed_delay");
            let fixed = at.duration(Some(*fixed))?;
            at.expect(!fixed.is_zero(), "expected more than zero")?;
            FaultDelay::Fixed(fixed)
        }
        Some(Kind::HeaderDelay(_)) => FaultDelay::Header,
        None => return at.refuse("expected fixed_delay or header_delay"),
    };
    Some((kind, share(config.percentage.as_ref())))
}

fn abort(at: &At<'_>, config: &pb::FaultAbort) -> Option<(FaultAbort, u32)> {
    use pb::fault_abort::ErrorType as Kind;
    let kind = match &config.error_type {
        Some(Kind::HttpStatus(status)) => {
            let valid = u16::try_from(*status).ok().filter(|code| (200..600).contains(code));
            match valid.and_then(|code| StatusCode::from_u16(code).ok()) {
                Some(status) => FaultAbort::Http(status),
                None => return at.field("http_status").refuse("expected 200 to 599"),
            }
        }
        Some(Kind::GrpcStatus(status)) => match u16::try_from(*status) {
            Ok(status) => FaultAbort::Grpc(status),
            Err(_) => return at.field("grpc_status").refuse("is no status of gRPC"),
        },
        Some(Kind::HeaderAbort(_)) => FaultAbort::Header,
        None => return at.refuse("expected http_status, grpc_status or header_abort"),
    };
    Some((kind, share(config.percentage.as_ref())))
}

fn rate(at: &At<'_>, config: &shared::FaultRateLimit) -> Option<(FaultRate, u32)> {
    use shared::fault_rate_limit::LimitType as Kind;
    let kind = match &config.limit_type {
        Some(Kind::FixedLimit(fixed)) => {
            let at = at.field("fixed_limit");
            at.field("limit_kbps").expect(fixed.limit_kbps > 0, "expected at least 1")?;
            FaultRate::Fixed(fixed.limit_kbps)
        }
        Some(Kind::HeaderLimit(_)) => FaultRate::Header,
        None => return at.refuse("expected fixed_limit or header_limit"),
    };
    Some((kind, share(config.percentage.as_ref())))
}

/// Without a percentage no request is touched, as in Envoy.
fn share(percentage: Option<&pillion_xds::envoy::r#type::v3::FractionalPercent>) -> u32 {
    percentage.map_or(0, common::fraction)
}
