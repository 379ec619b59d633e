//! HTTP filters of a connection manager, and what routes change about them; one filter a file.

mod adaptive;
mod buffer;
mod compression;
mod cors;
pub(super) mod describe;
mod discovery;
mod ext_authz;
mod fault;
mod global_rate_limit;
mod health_check;
mod jwt;
mod mutation;
mod note;
mod protection;
mod rate_limit;
mod rbac;
mod rbac_matcher;
mod session;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use pillion_xds::envoy::config::route::v3::FilterConfig;
use pillion_xds::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use prost_types::Any;

pub(super) use rate_limit::rate;
pub(super) use rbac::rules as rbac_rules;
pub(super) use rbac_matcher::of_chains;

use super::at::At;
use super::common;
use crate::model::filter::{FilterKind, HttpFilter, Override, Overrides};

pub(super) use discovery::extension;

const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const PER_ROUTE: &str = "envoy.config.route.v3.FilterConfig";

/// Every filter but the router, which must be the last. Unknown ones that are marked optional are
/// passed over.
pub(super) fn all(at: &At<'_>, filters: &[pb::HttpFilter]) -> Option<Vec<HttpFilter>> {
    use pb::http_filter::ConfigType;
    let mut made = Vec::new();
    let mut router = false;
    for (i, filter) in filters.iter().enumerate() {
        let at = at.index(i);
        let config_at = at.field("typed_config");
        let packed = match &filter.config_type {
            Some(ConfigType::TypedConfig(packed)) => packed,
            Some(ConfigType::ConfigDiscovery(source)) => {
                at.expect(!filter.name.is_empty(), "a filter needs a name")?;
                let at = at.field("config_discovery");
                made.push(HttpFilter {
                    name: filter.name.as_str().into(),
                    disabled: filter.disabled,
                    kind: discovery::discovered(&at, &filter.name, source)?,
                });
                continue;
            }
            None => return config_at.refuse("is missing"),
        };
        if common::type_of(packed) == ROUTER {
            let last = i + 1 == filters.len();
            at.expect(last, "the router must be the last HTTP filter")?;
            router = true;
            continue;
        }
        at.expect(!filter.name.is_empty(), "a filter needs a name")?;
        match settings(&config_at, packed) {
            Known::Filter(kind) => made.push(HttpFilter {
                name: filter.name.as_str().into(),
                disabled: filter.disabled,
                kind: kind?,
            }),
            Known::Harmless => {}
            Known::No if filter.is_optional => {}
            Known::No => {
                let kind = common::type_of(packed);
                return at.refuse(format!("HTTP filter `{kind}` is not supported"));
            }
        }
    }
    at.expect(router, format!("expected `{ROUTER}` as the last filter"))?;
    Some(made)
}

/// `typed_per_filter_config`; what is wrong in it is refused and left out.
pub(super) fn overrides<S: BuildHasher>(
    at: &At<'_>,
    configs: &HashMap<String, Any, S>,
) -> Overrides {
    let at = at.field("typed_per_filter_config");
    let mut names: Vec<_> = configs.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    let made = names.into_iter().filter_map(|(name, packed)| {
        Some((Arc::from(name.as_str()), one(&at.key(name), packed)??))
    });
    made.collect()
}

/// Outer None: refused. Inner None: nothing to do.
#[expect(clippy::option_option, reason = "refused, without effect, and taken are three things")]
fn one(at: &At<'_>, packed: &Any) -> Option<Option<Override>> {
    let mut optional = false;
    let mut packed = packed.clone();
    if common::type_of(&packed) == PER_ROUTE {
        let wrapper: FilterConfig = common::unpack(at, &packed)?;
        match (wrapper.disabled, wrapper.config) {
            (true, _) => return Some(Some(Override::Off)),
            (false, None) => return Some(Some(Override::On)),
            // `config: {}` is how Envoy's pages switch a filter on.
            (false, Some(config)) if config == Any::default() => return Some(Some(Override::On)),
            (false, Some(config)) => packed = config,
        }
        optional = wrapper.is_optional;
    }
    if let Known::Filter(found) = of_route(at, &packed) {
        return found.map(Some);
    }
    match settings(at, &packed) {
        Known::Filter(Some(FilterKind::HealthCheck(_))) => {
            at.refuse("this filter has no settings of a route")
        }
        Known::Filter(kind) => kind.map(|kind| Some(Override::Settings(kind))),
        Known::Harmless => Some(None),
        Known::No if optional => Some(None),
        Known::No => {
            let kind = common::type_of(&packed);
            at.refuse(format!("`{kind}` is not supported here"))
        }
    }
}

enum Known<T> {
    /// None: its settings were refused.
    Filter(Option<T>),
    Harmless,
    No,
}

/// Messages that stand on routes only.
fn of_route(at: &At<'_>, packed: &Any) -> Known<Override> {
    let name = common::type_of(packed);
    let Some(short) = name.strip_prefix("envoy.extensions.filters.http.") else {
        return Known::No;
    };
    Known::Filter(match short {
        "ratelimit.v3.RateLimitPerRoute" => global_rate_limit::per_route(at, packed),
        "compressor.v3.CompressorPerRoute" => compression::per_route(at, packed),
        "header_mutation.v3.HeaderMutationPerRoute" => mutation::per_route(at, packed),
        "buffer.v3.BufferPerRoute" => buffer::per_route(at, packed),
        "ext_authz.v3.ExtAuthzPerRoute" => ext_authz::per_route(at, packed),
        "jwt_authn.v3.PerRouteConfig" => jwt::per_route(at, packed),
        "rbac.v3.RBACPerRoute" => rbac::per_route(at, packed),
        "stateful_session.v3.StatefulSessionPerRoute" => session::per_route(at, packed),
        _ => return Known::No,
    })
}

/// Messages that stand on connection managers; those of most filters stand on routes as well.
fn settings(at: &At<'_>, packed: &Any) -> Known<FilterKind> {
    let name = common::type_of(packed);
    let Some(short) = name.strip_prefix("envoy.extensions.filters.http.") else {
        return Known::No;
    };
    Known::Filter(match short {
        "set_filter_state.v3.Config" => note::set_filter_state(at, packed),
        "header_to_metadata.v3.Config" => note::header_to_metadata(at, packed),
        "adaptive_concurrency.v3.AdaptiveConcurrency" => adaptive::concurrency(at, packed),
        "admission_control.v3.AdmissionControl" => adaptive::admission(at, packed),
        "ratelimit.v3.RateLimit" => global_rate_limit::filter(at, packed),
        "header_mutation.v3.HeaderMutation" => mutation::filter(at, packed),
        "grpc_web.v3.GrpcWeb" => Some(FilterKind::GrpcWeb),
        "grpc_stats.v3.FilterConfig" => protection::grpc_stats(at, packed),
        "compressor.v3.Compressor" => compression::compressor(at, packed),
        "decompressor.v3.Decompressor" => compression::decompressor(at, packed),
        "csrf.v3.CsrfPolicy" => protection::csrf(at, packed),
        "bandwidth_limit.v3.BandwidthLimit" => protection::bandwidth(at, packed),
        "health_check.v3.HealthCheck" => health_check::filter(at, packed),
        "buffer.v3.Buffer" => buffer::filter(at, packed),
        "rbac.v3.RBAC" => rbac::filter(at, packed),
        "stateful_session.v3.StatefulSession" => session::filter(at, packed),
        "local_ratelimit.v3.LocalRateLimit" => rate_limit::filter(at, packed),
        "fault.v3.HTTPFault" => fault::filter(at, packed),
        "ext_authz.v3.ExtAuthz" => ext_authz::filter(at, packed),
        "jwt_authn.v3.JwtAuthentication" => jwt::filter(at, packed),
        // The cluster looks hosts up itself.
        "dynamic_forward_proxy.v3.FilterConfig" => return Known::Harmless,
        "cors.v3.Cors" => Some(FilterKind::Cors(None)),
        "cors.v3.CorsPolicy" => cors::policy(at, packed),
        _ => return Known::No,
    })
}
