//! What a route does: forward, redirect, answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::config::route::v3 as pb;
use pillion_xds::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use pillion_xds::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;

use super::at::At;
use super::{common, filter, headers, http_manager, local_reply, matcher, retry};
use crate::model::Name;
use crate::model::balancing::SubsetMatch;
use crate::model::metadata::LB;
use crate::model::route::{
    Action, DirectResponse, Forward, HashPolicy, HashSource, HostRewrite, InternalRedirect, Mirror,
    PathMatch, PathRewrite, Priority, Redirect, RedirectPath, Target, Weighted, WeightedCluster,
};
use crate::route::{rewrite_to_expansion, to_rust_groups};

/// Envoy's default for `RouteAction.timeout`.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The upgrade that is none.
const CONNECT: &str = "connect";

/// The action of a route.
pub(super) fn action(
    at: &At<'_>,
    action: Option<&pb::route::Action>,
    body_limit: usize,
) -> Option<Action> {
    use pb::route::Action as Kind;
    match action {
        Some(Kind::Route(route)) => {
            forward(&at.field("route"), route).map(|made| Action::Forward(Box::new(made)))
        }
        Some(Kind::Redirect(redirect)) => self::redirect(&at.field("redirect"), redirect)
            .map(|made| Action::Redirect(Box::new(made))),
        Some(Kind::DirectResponse(direct)) => {
            self::direct(&at.field("direct_response"), direct, body_limit).map(Action::Direct)
        }
        Some(Kind::NonForwardingAction(_)) => Some(Action::NonForwarding),
        _ => at.refuse("expected route, redirect, direct_response or non_forwarding_action"),
    }
}

fn forward(at: &At<'_>, route: &pb::RouteAction) -> Option<Forward> {
    use pb::route_action::ClusterNotFoundResponseCode as NotFound;
    let stream = route.max_stream_duration.as_ref();
    let stream_at = at.field("max_stream_duration");
    let retry = match &route.retry_policy {
        Some(policy) => Some(Arc::new(retry::policy(&at.field("retry_policy"), policy)?)),
        None => None,
    };
    let upgrades = at.field("upgrade_configs").each(&route.upgrade_configs, upgrade);
    Some(Forward {
        subset: subset(route.metadata_match.as_ref(), None),
        target: target(at, route)?,
        cluster_not_found: match route.cluster_not_found_response_code() {
            NotFound::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            NotFound::NotFound => StatusCode::NOT_FOUND,
            NotFound::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        },
        rewrite: path_rewrite(at, route)?,
        host_rewrite: host_rewrite(at, route.host_rewrite_specifier.as_ref())?,
        append_x_forwarded_host: route.append_x_forwarded_host,
        timeout: at.field("timeout").limit(route.timeout, Some(TIMEOUT)),
        idle_timeout: at.field("idle_timeout").duration(route.idle_timeout),
        max_stream_duration: stream.and_then(|stream| {
            stream_at.field("max_stream_duration").limit(stream.max_stream_duration, None)
        }),
        grpc_timeout_header_max: stream.and_then(|stream| {
            stream_at.field("grpc_timeout_header_max").duration(stream.grpc_timeout_header_max)
        }),
        grpc_timeout_offset: stream
            .and_then(|stream| {
                let at = stream_at.field("grpc_timeout_header_offset");
                at.duration(stream.grpc_timeout_header_offset)
            })
            .or_else(|| at.field("grpc_timeout_offset").duration(route.grpc_timeout_offset))
            .unwrap_or_default(),
        max_grpc_timeout: at.field("max_grpc_timeout").duration(route.max_grpc_timeout),
        retry,
        hedge: retry::hedges(route.hedge_policy.as_ref()),
        hash: at.field("hash_policy").each(&route.hash_policy, hash_policy),
        priority: priority(route.priority()),
        mirrors: at.field("request_mirror_policies").each(&route.request_mirror_policies, mirror),
        rate_limits: at.field("rate_limits").each(&route.rate_limits, filter::describe::rule),
        include_host_rate_limits: route.include_vh_rate_limits == Some(true),
        internal_redirect: internal_redirect(at, route)?.map(Box::new),
        buffer_limit: None,
        connect: upgrades.iter().any(|(_, _, opens)| *opens),
        upgrades: upgrades.into_iter().map(|(kind, enabled, _)| (kind, enabled)).collect(),
    })
}

/// A kind, whether it is taken, and whether it opens a tunnel here.
fn upgrade(at: &At<'_>, config: &pb::route_action::UpgradeConfig) -> Option<(Name, bool, bool)> {
    let kind = http_manager::upgrade_type(&at.field("upgrade_type"), &config.upgrade_type)?;
    let connect = config.connect_config.is_some();
    at.field("connect_config").expect(kind == CONNECT || !connect, "is for CONNECT only")?;
    let enabled = config.enabled != Some(false);
    Some((kind.as_str().into(), enabled, enabled && connect))
}

/// `RoutingPriority`
pub(super) fn priority(priority: core::RoutingPriority) -> Priority {
    match priority {
        core::RoutingPriority::Default => Priority::Default,
        core::RoutingPriority::High => Priority::High,
    }
}

fn target(at: &At<'_>, route: &pb::RouteAction) -> Option<Target> {
    use pb::route_action::ClusterSpecifier as Spec;
    match &route.cluster_specifier {
        Some(Spec::Cluster(name)) => {
            at.field("cluster").expect(!name.is_empty(), "is empty")?;
            Some(Target::Cluster(name.as_str().into()))
        }
        Some(Spec::ClusterHeader(name)) => {
            headers::name_of(&at.field("cluster_header"), name).map(Target::Header)
        }
        Some(Spec::WeightedClusters(weighted)) => {
            let of_route = route.metadata_match.as_ref();
            self::weighted(&at.field("weighted_clusters"), weighted, of_route).map(Target::Weighted)
        }
        _ => at.refuse("expected cluster, cluster_header or weighted_clusters"),
    }
}

/// What `metadata_match` says under `envoy.lb`; the weighted cluster's word wins.
pub(super) fn subset(
    route: Option<&core::Metadata>,
    weighted: Option<&core::Metadata>,
) -> Option<SubsetMatch> {
    let lb = |metadata: &core::Metadata| metadata.filter_metadata.get(LB).map(common::fields);
    let (route, weighted) = (route.and_then(lb), weighted.and_then(lb));
    let made = SubsetMatch::new(route.as_ref(), weighted.as_ref());
    (!made.is_empty()).then_some(made)
}

fn weighted(
    at: &At<'_>,
    weighted: &pb::WeightedCluster,
    of_route: Option<&core::Metadata>,
) -> Option<Weighted> {
    use pb::weighted_cluster::RandomValueSpecifier as Random;
    let clusters = at.field("clusters").each(&weighted.clusters, |at, entry| {
        let header = match entry.cluster_header.as_str() {
            "" => None,
            name => Some(headers::name_of(&at.field("cluster_header"), name)?),
        };
        let one = entry.name.is_empty() != header.is_none();
        at.expect(one, "expected either name or cluster_header")?;
        let host_rewrite = match &entry.host_rewrite_specifier {
            Some(
                pb::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(
                    host,
                ),
            ) => Some(header_value(&at.field("host_rewrite_literal"), host)?),
            None => None,
        };
        Some(WeightedCluster {
            cluster: entry.name.as_str().into(),
            header,
            weight: entry.weight.unwrap_or(0),
            subset: subset(of_route, entry.metadata_match.as_ref()),
            request_headers: headers::ops(
                at,
                ("request_headers_to_add", &entry.request_headers_to_add),
                ("request_headers_to_remove", &entry.request_headers_to_remove),
            ),
            response_headers: headers::ops(
                at,
                ("response_headers_to_add", &entry.response_headers_to_add),
                ("response_headers_to_remove", &entry.response_headers_to_remove),
            ),
            host_rewrite,
            filters: filter::overrides(at, &entry.typed_per_filter_config),
        })
    });
    let total: u64 = clusters.iter().map(|entry| u64::from(entry.weight)).sum();
    at.expect(total > 0, "the sum of the weights must be greater than 0")?;
    let Ok(total) = u32::try_from(total) else {
        return at.refuse(format!("the sum of the weights is {total}: at most {}", u32::MAX));
    };
    let header = match &weighted.random_value_specifier {
        Some(Random::HeaderName(name)) => Some(headers::name_of(&at.field("header_name"), name)?),
        _ => None,
    };
    let by_hash = matches!(weighted.random_value_specifier, Some(Random::UseHashPolicy(true)));
    Some(Weighted { clusters, total, header, by_hash })
}

fn path_rewrite(at: &At<'_>, route: &pb::RouteAction) -> Option<PathRewrite> {
    if let Some(policy) = &route.path_rewrite_policy {
        let alone = route.regex_rewrite.is_none() && route.prefix_rewrite.is_empty();
        at.expect(
            alone,
            "only one of path_rewrite_policy, prefix_rewrite and regex_rewrite may be set",
        )?;
        return path_template(&at.field("path_rewrite_policy"), policy);
    }
    match (&route.regex_rewrite, route.prefix_rewrite.as_str()) {
        (None, "") => Some(PathRewrite::None),
        (None, prefix) => Some(PathRewrite::Prefix(prefix.to_owned())),
        (Some(rewrite), "") => {
            let (regex, substitution) = matcher::substitute(&at.field("regex_rewrite"), rewrite)?;
            Some(PathRewrite::Regex(regex, substitution))
        }
        _ => at.refuse("only one of prefix_rewrite and regex_rewrite may be set"),
    }
}

fn path_template(at: &At<'_>, policy: &core::TypedExtensionConfig) -> Option<PathRewrite> {
    let at = at.field("typed_config");
    let packed = at.required(policy.typed_config.as_ref())?;
    let config: UriTemplateRewriteConfig = common::unpack(&at, packed)?;
    match rewrite_to_expansion(&config.path_template_rewrite) {
        Ok((expansion, _)) => Some(PathRewrite::Template(expansion)),
        Err(error) => at.field("path_template_rewrite").refuse(error),
    }
}

/// The variables of a rewrite by template, if it is one; they must be those of the match.
pub(super) fn check_template(
    at: &At<'_>,
    matched: &PathMatch,
    route: Option<&pb::route::Action>,
) -> Option<()> {
    let Some(pb::route::Action::Route(route)) = route else { return Some(()) };
    let Some(policy) = &route.path_rewrite_policy else { return Some(()) };
    let at = at.field("route");
    let at = at.field("path_rewrite_policy");
    let packed = at.required(policy.typed_config.as_ref())?;
    let config: UriTemplateRewriteConfig = common::unpack(&at, packed)?;
    let PathMatch::Regex(regex) = matched else {
        return at.refuse("expected a path_match_policy in the match");
    };
    let (_, names) = rewrite_to_expansion(&config.path_template_rewrite).unwrap_or_default();
    let known = |name: &String| regex.capture_names().flatten().any(|known| known == name);
    match names.iter().find(|name| !known(name)) {
        Some(name) => at.refuse(format!("the match has no variable `{name}`")),
        None => Some(()),
    }
}

fn host_rewrite(
    at: &At<'_>,
    specifier: Option<&pb::route_action::HostRewriteSpecifier>,
) -> Option<HostRewrite> {
    use pb::route_action::HostRewriteSpecifier as Spec;
    Some(match specifier {
        None | Some(Spec::AutoHostRewrite(false)) => HostRewrite::None,
        Some(Spec::AutoHostRewrite(true)) => HostRewrite::Auto,
        Some(Spec::HostRewriteLiteral(host)) => {
            HostRewrite::Literal(header_value(&at.field("host_rewrite_literal"), host)?)
        }
        Some(Spec::HostRewriteHeader(name)) => {
            HostRewrite::Header(headers::name_of(&at.field("host_rewrite_header"), name)?)
        }
        Some(Spec::HostRewritePathRegex(rewrite)) => {
            let at = at.field("host_rewrite_path_regex");
            let (regex, substitution) = matcher::substitute(&at, rewrite)?;
            HostRewrite::PathRegex(regex, substitution)
        }
        Some(_) => {
            return at.refuse("this kind of host rewrite is not supported");
        }
    })
}

fn header_value(at: &At<'_>, text: &str) -> Option<HeaderValue> {
    match HeaderValue::from_str(text) {
        Ok(value) => Some(value),
        Err(_) => at.refuse(format!("`{}` is no header value", text.escape_debug())),
    }
}

fn hash_policy(at: &At<'_>, policy: &pb::route_action::HashPolicy) -> Option<HashPolicy> {
    use pb::route_action::hash_policy::PolicySpecifier as Spec;
    let source = match policy.policy_specifier.as_ref() {
        Some(Spec::Header(header)) => {
            let at = at.field("header");
            let rewrite = match &header.regex_rewrite {
                Some(rewrite) => {
                    let (regex, text) = matcher::substitute(&at.field("regex_rewrite"), rewrite)?;
                    Some((regex, to_rust_groups(&text)))
                }
                None => None,
            };
            let name = headers::name_of(&at.field("header_name"), &header.header_name)?;
            HashSource::Header(name, rewrite)
        }
        Some(Spec::Cookie(cookie)) => {
            let at = at.field("cookie");
            at.field("name").expect(!cookie.name.is_empty(), "is empty")?;
            let attributes = at.field("attributes").each(&cookie.attributes, |at, one| {
                headers::cookie_attribute(at, &one.name, &one.value)
            });
            HashSource::Cookie {
                name: cookie.name.as_str().into(),
                ttl: at.field("ttl").duration(cookie.ttl),
                path: cookie.path.as_str().into(),
                attributes: attributes.into(),
            }
        }
        Some(Spec::ConnectionProperties(properties)) => {
            let at = at.field("connection_properties").field("source_ip").expect(
                properties.source_ip,
                "expected true: the source address is the only property",
            );
            at?;
            HashSource::SourceIp
        }
        Some(Spec::QueryParameter(parameter)) => HashSource::Query(parameter.name.as_str().into()),
        Some(Spec::FilterState(_)) => return at.field("filter_state").refuse("is not supported"),
        None => {
            return at.refuse("expected header, cookie, connection_properties or query_parameter");
        }
    };
    Some(HashPolicy { source, terminal: policy.terminal })
}

/// `RequestMirrorPolicy`
pub(super) fn mirror(
    at: &At<'_>,
    policy: &pb::route_action::RequestMirrorPolicy,
) -> Option<Mirror> {
    let header = match policy.cluster_header.as_str() {
        "" => None,
        name => Some(headers::name_of(&at.field("cluster_header"), name)?),
    };
    let one = policy.cluster.is_empty() != header.is_none();
    at.expect(one, "expected either cluster or cluster_header")?;
    let host = match policy.host_rewrite_literal.as_str() {
        "" => None,
        host => Some(header_value(&at.field("host_rewrite_literal"), host)?),
    };
    let parts = policy.runtime_fraction.as_ref().map_or(1_000_000, common::runtime_fraction);
    Some(Mirror {
        cluster: policy.cluster.as_str().into(),
        header,
        parts_per_million: parts,
        shadow_host: !policy.disable_shadow_host_suffix_append,
        host,
    })
}

#[expect(clippy::option_option, reason = "refused, none and some are three things")]
fn internal_redirect(at: &At<'_>, route: &pb::RouteAction) -> Option<Option<InternalRedirect>> {
    let Some(policy) = &route.internal_redirect_policy else {
        return Some(deprecated_redirects(route));
    };
    let at = at.field("internal_redirect_policy");
    let codes_at = at.field("redirect_response_codes");
    let codes = codes_at.each(&policy.redirect_response_codes, |at, code| {
        let known = u16::try_from(*code).ok().filter(|code| matches!(code, 301..=303 | 307 | 308));
        known.or_else(|| at.refuse(format!("{code} is no redirect: 301, 302, 303, 307 or 308")))
    });
    let mut made = InternalRedirect {
        max: policy.max_internal_redirects.unwrap_or(1),
        codes: if codes.is_empty() { vec![302] } else { codes },
        previous_routes: false,
        allow_listed: None,
        safe_cross_scheme: false,
        cross_scheme: policy.allow_cross_scheme_redirect,
        copy: at
            .field("response_headers_to_copy")
            .each(&policy.response_headers_to_copy, |at, name| headers::name_of(at, name)),
    };
    let list = at.field("predicates");
    for (i, predicate) in policy.predicates.iter().enumerate() {
        let at = list.index(i);
        let at = at.field("typed_config");
        let packed = at.required(predicate.typed_config.as_ref())?;
        match common::type_of(packed) {
            "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig" => {
                made.previous_routes = true;
            }
            "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig" => {
                made.safe_cross_scheme = true;
            }
            "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig" => {
                let config: AllowListedRoutesConfig = common::unpack(&at, packed)?;
                let names = config.allowed_route_names.iter().map(|name| name.as_str().into());
                made.allow_listed = Some(names.collect());
            }
            other => return at.refuse(format!("`{other}` is not supported")),
        }
    }
    Some(Some(made))
}

/// `internal_redirect_action` and `max_internal_redirects`, which came before the policy.
fn deprecated_redirects(route: &pb::RouteAction) -> Option<InternalRedirect> {
    use pb::route_action::InternalRedirectAction as Kind;
    let follow = route.internal_redirect_action() == Kind::HandleInternalRedirect;
    follow.then(|| InternalRedirect {
        max: route.max_internal_redirects.unwrap_or(1),
        codes: vec![302],
        previous_routes: false,
        allow_listed: None,
        safe_cross_scheme: false,
        cross_scheme: false,
        copy: Vec::new(),
    })
}

fn redirect(at: &At<'_>, redirect: &pb::RedirectAction) -> Option<Redirect> {
    use pb::redirect_action::{
        PathRewriteSpecifier as Path, RedirectResponseCode as Code,
        SchemeRewriteSpecifier as Scheme,
    };
    let text = |text: &String| (!text.is_empty()).then(|| text.as_str().into());
    let path = match redirect.path_rewrite_specifier.as_ref() {
        None => RedirectPath::Keep,
        Some(Path::PathRedirect(path)) => RedirectPath::Full(path.clone()),
        Some(Path::PrefixRewrite(prefix)) => RedirectPath::Prefix(prefix.clone()),
        Some(Path::RegexRewrite(rewrite)) => {
            let (regex, text) = matcher::substitute(&at.field("regex_rewrite"), rewrite)?;
            RedirectPath::Regex(regex, text)
        }
    };
    let port = match redirect.port_redirect {
        0 => None,
        port => match u16::try_from(port) {
            Ok(port) => Some(port),
            Err(_) => return at.field("port_redirect").refuse(format!("{port} is no port")),
        },
    };
    Some(Redirect {
        scheme: match redirect.scheme_rewrite_specifier.as_ref() {
            Some(Scheme::HttpsRedirect(true)) => Some("https".into()),
            Some(Scheme::SchemeRedirect(scheme)) => text(scheme),
            Some(Scheme::HttpsRedirect(false)) | None => None,
        },
        host: text(&redirect.host_redirect),
        port,
        path,
        status: match redirect.response_code() {
            Code::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
            Code::Found => StatusCode::FOUND,
            Code::SeeOther => StatusCode::SEE_OTHER,
            Code::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
            Code::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
        },
        strip_query: redirect.strip_query,
    })
}

fn direct(at: &At<'_>, direct: &pb::DirectResponseAction, limit: usize) -> Option<DirectResponse> {
    let status = u16::try_from(direct.status).ok().filter(|code| (200..600).contains(code));
    let Some(Ok(status)) = status.map(StatusCode::from_u16) else {
        let code = direct.status;
        return at.field("status").refuse(format!("{code} is no status: expected 200 to 599"));
    };
    let body_at = at.field("body");
    let body = match &direct.body {
        None => Bytes::new(),
        Some(body) => local_reply::text(&body_at, body)?,
    };
    let size = body.len();
    body_at.expect(
        size <= limit,
        format!("is {size} bytes: at most {limit} (max_direct_response_body_size_bytes)"),
    )?;
    let format = match &direct.body_format {
        Some(format) => Some(local_reply::body_format(&at.field("body_format"), format)?.into()),
        None => None,
    };
    Some(DirectResponse { status, body, format })
}
