//! `route.v3.RateLimit`: how requests are described, for rate limits of both kinds.

use pillion_xds::envoy::config::route::v3 as pb;
use pillion_xds::envoy::config::route::v3::rate_limit::action::ActionSpecifier;

use super::super::at::At;
use super::super::matcher;
use crate::model::Name;
use crate::model::format::Template;
use crate::model::rate_limit::{DescribeBy, Hits, HostLimits, Rule};

/// `RateLimit`. `disable_key` is the name of a runtime key, which nobody sets here.
pub(in super::super) fn rule(at: &At<'_>, limit: &pb::RateLimit) -> Option<Rule> {
    let stage = limit.stage.unwrap_or(0);
    at.field("stage").expect(stage <= 10, "expected 0 to 10")?;
    let hits = match &limit.hits_addend {
        Some(hits) => Some(addend(&at.field("hits_addend"), hits)?),
        None => None,
    };
    let at = at.field("actions");
    at.expect(!limit.actions.is_empty(), "expected at least one")?;
    let actions = at.each(&limit.actions, action);
    (actions.len() == limit.actions.len()).then_some(Rule { stage, actions, hits })
}

fn addend(at: &At<'_>, hits: &pb::rate_limit::HitsAddend) -> Option<Hits> {
    match (hits.number, hits.format.as_str()) {
        (Some(number), "") => Some(Hits::Number(number)),
        (None, format) if !format.is_empty() => match Template::parse(format) {
            Ok(template) => Some(Hits::Format(template)),
            Err(error) => at.field("format").refuse(error),
        },
        _ => at.refuse("expected number or format"),
    }
}

/// `VhRateLimitsOptions`, which is the same in several places.
pub(super) fn host_limits(option: i32) -> HostLimits {
    match option {
        1 => HostLimits::Include,
        2 => HostLimits::Ignore,
        _ => HostLimits::Override,
    }
}

fn action(at: &At<'_>, action: &pb::rate_limit::Action) -> Option<DescribeBy> {
    let key = |key: &str, default: &str| Name::from(if key.is_empty() { default } else { key });
    Some(match at.required(action.action_specifier.as_ref())? {
        ActionSpecifier::GenericKey(generic) => DescribeBy::Generic(
            key(&generic.descriptor_key, "generic_key"),
            generic.descriptor_value.as_str().into(),
        ),
        ActionSpecifier::RequestHeaders(header) => DescribeBy::Header(
            matcher::header_key(
                &at.field("request_headers").field("header_name"),
                &header.header_name,
            )?,
            header.descriptor_key.as_str().into(),
            header.skip_if_absent,
        ),
        ActionSpecifier::QueryParameters(query) => DescribeBy::Query(
            query.query_parameter_name.as_str().into(),
            query.descriptor_key.as_str().into(),
            query.skip_if_absent,
        ),
        ActionSpecifier::RemoteAddress(_) => DescribeBy::RemoteAddress,
        ActionSpecifier::MaskedRemoteAddress(mask) => {
            let at = at.field("masked_remote_address");
            DescribeBy::MaskedAddress(
                bits(&at, mask.v4_prefix_mask_len, 32)?,
                bits(&at, mask.v6_prefix_mask_len, 128)?,
            )
        }
        ActionSpecifier::DestinationCluster(_) => DescribeBy::DestinationCluster,
        ActionSpecifier::HeaderValueMatch(value) => {
            let field = at.field("header_value_match");
            let headers = field.field("headers").each(&value.headers, matcher::header);
            field.expect(headers.len() == value.headers.len(), "a matcher is refused")?;
            DescribeBy::HeaderMatch(
                key(&value.descriptor_key, "header_match"),
                value.descriptor_value.as_str().into(),
                headers,
                value.expect_match != Some(false),
            )
        }
        ActionSpecifier::QueryParameterValueMatch(value) => {
            let field = at.field("query_parameter_value_match");
            let parameters_at = field.field("query_parameters");
            let parameters = parameters_at.each(&value.query_parameters, matcher::query);
            field
                .expect(parameters.len() == value.query_parameters.len(), "a matcher is refused")?;
            DescribeBy::QueryMatch(
                key(&value.descriptor_key, "query_match"),
                value.descriptor_value.as_str().into(),
                parameters,
                value.expect_match != Some(false),
            )
        }
        ActionSpecifier::SourceCluster(_) => DescribeBy::SourceCluster,
        _ => return at.refuse("this action is not supported"),
    })
}

/// Bits of a network.
fn bits(at: &At<'_>, value: Option<u32>, most: u8) -> Option<u8> {
    let value = value.unwrap_or_else(|| u32::from(most));
    let bits = u8::try_from(value).ok().filter(|bits| *bits <= most);
    bits.or_else(|| at.refuse(format!("a mask of {value} bits is too long")))
}
