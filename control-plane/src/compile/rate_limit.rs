//! Rate limits of gateways, as Envoy's local rate limit filter.

use std::collections::HashMap;

use pillion_xds::any::pack;
use pillion_xds::envoy::config::core::v3::RuntimeFractionalPercent;
use pillion_xds::envoy::config::route::v3::RateLimit as Described;
use pillion_xds::envoy::config::route::v3::rate_limit::Action;
use pillion_xds::envoy::config::route::v3::rate_limit::action::{
    ActionSpecifier, MaskedRemoteAddress, RequestHeaders,
};
use pillion_xds::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use pillion_xds::envoy::extensions::common::ratelimit::v3::{
    LocalRateLimitDescriptor, XRateLimitHeadersRfcVersion,
};
use pillion_xds::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use pillion_xds::envoy::r#type::v3::TokenBucket;
use prost_types::Any;

use super::proto::{duration, fraction};
use crate::intent::{LimitBy, RateLimit};

const FILTER: &str = "envoy.filters.http.local_ratelimit";
/// Networks of IPv6 are handed out no longer than this: a client has as many addresses in it as it likes.
const V6_NETWORK: u32 = 64;

/// The filter itself, which limits nothing: limits come with routes, so that a new one is no new listener.
pub(crate) fn filter() -> HttpFilter {
    let config = LocalRateLimit { stat_prefix: "gateway".to_owned(), ..LocalRateLimit::default() };
    HttpFilter {
        name: FILTER.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(&config))),
        ..HttpFilter::default()
    }
}

/// What `typed_per_filter_config` says about a limit. `stat_prefix` names it in metrics and answers.
pub(crate) fn per_filter(limit: Option<&RateLimit>, stat_prefix: &str) -> HashMap<String, Any> {
    let name = stat_prefix.replace('/', ".");
    let packed = limit.map(|limit| (FILTER.to_owned(), pack(&config(limit, &name))));
    packed.into_iter().collect()
}

fn config(limit: &RateLimit, stat_prefix: &str) -> LocalRateLimit {
    let bucket = TokenBucket {
        max_tokens: limit.burst,
        tokens_per_fill: Some(limit.requests),
        fill_interval: Some(duration(limit.per)),
    };
    let always = RuntimeFractionalPercent {
        default_value: Some(fraction(1, 1)),
        ..RuntimeFractionalPercent::default()
    };
    let mut config = LocalRateLimit {
        stat_prefix: stat_prefix.to_owned(),
        // With clients told apart: of those that cannot be.
        token_bucket: Some(bucket),
        filter_enabled: Some(always.clone()),
        filter_enforced: Some(always),
        enable_x_ratelimit_headers: XRateLimitHeadersRfcVersion::DraftVersion03.into(),
        ..LocalRateLimit::default()
    };
    if let Some(by) = &limit.by {
        let (key, action) = describe(by);
        config.rate_limits = vec![Described {
            actions: vec![Action { action_specifier: Some(action) }],
            ..Described::default()
        }];
        config.descriptors = vec![LocalRateLimitDescriptor {
            entries: vec![Entry { key, value: String::new() }],
            token_bucket: Some(bucket),
        }];
        config.max_dynamic_descriptors = Some(limit.max_clients);
        config.always_consume_default_token_bucket = Some(false);
    }
    config
}

fn describe(by: &LimitBy) -> (String, ActionSpecifier) {
    match by {
        LimitBy::ClientAddress => {
            let mask = MaskedRemoteAddress {
                v4_prefix_mask_len: Some(32),
                v6_prefix_mask_len: Some(V6_NETWORK),
            };
            let key = "masked_remote_address".to_owned();
            (key, ActionSpecifier::MaskedRemoteAddress(mask))
        }
        LimitBy::Header(name) => {
            let header = RequestHeaders {
                header_name: name.clone(),
                descriptor_key: "client".to_owned(),
                skip_if_absent: false,
            };
            ("client".to_owned(), ActionSpecifier::RequestHeaders(header))
        }
    }
}
