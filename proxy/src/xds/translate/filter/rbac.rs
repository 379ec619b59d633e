//! `rbac.v3.RBAC` and `RBACPerRoute`

use std::sync::Arc;

use pillion_xds::envoy::config::rbac::v3 as pb;
use pillion_xds::envoy::extensions::filters::http::rbac::v3 as filter;
use pillion_xds::envoy::r#type::matcher::v3::PathMatcher;
use pillion_xds::xds::r#type::matcher::v3::Matcher;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, matcher};
use super::rbac_matcher;
use crate::model::dynamic::MetadataMatcher;
use crate::model::filter::{FilterKind, Override, RbacFilter};
use crate::model::matcher::StringMatcher;
use crate::model::rbac::{Action, Permission, Policy, Principal, Rbac};

pub(super) fn filter(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: filter::Rbac = common::unpack(at, packed)?;
    settings(at, &config).map(|made| FilterKind::Rbac(Arc::new(made)))
}

pub(super) fn per_route(at: &At<'_>, packed: &Any) -> Option<Override> {
    let config: filter::RbacPerRoute = common::unpack(at, packed)?;
    match &config.rbac {
        // Without settings the filter is off on this route.
        None => Some(Override::Off),
        Some(config) => settings(&at.field("rbac"), config)
            .map(|made| Override::Settings(FilterKind::Rbac(Arc::new(made)))),
    }
}

fn settings(at: &At<'_>, config: &filter::Rbac) -> Option<RbacFilter> {
    Some(RbacFilter {
        rules: engine(
            &[at.field("rules"), at.field("matcher")],
            (config.rules.as_ref(), config.matcher.as_ref()),
        )?,
        shadow: engine(
            &[at.field("shadow_rules"), at.field("shadow_matcher")],
            (config.shadow_rules.as_ref(), config.shadow_matcher.as_ref()),
        )?,
        prefix: config.rules_stat_prefix.as_str().into(),
        shadow_prefix: config.shadow_rules_stat_prefix.as_str().into(),
        per_policy: config.track_per_rule_stats,
    })
}

#[expect(clippy::option_option, reason = "absent and refused are two things")]
fn engine(
    [rules_at, matcher_at]: &[At<'_>; 2],
    config: (Option<&pb::Rbac>, Option<&Matcher>),
) -> Option<Option<Rbac>> {
    match config {
        (None, None) => Some(None),
        (Some(config), None) => rules(rules_at, config).map(Some),
        (None, Some(tree)) => {
            let matcher = Some(Arc::new(rbac_matcher::matcher(matcher_at, tree)?));
            Some(Some(Rbac { matcher, ..Rbac::default() }))
        }
        (Some(_), Some(_)) => matcher_at.refuse("stands beside rules: expected one of them"),
    }
}

/// `envoy.config.rbac.v3.RBAC`
pub(in super::super) fn rules(at: &At<'_>, config: &pb::Rbac) -> Option<Rbac> {
    let policies_at = at.field("policies");
    let mut named: Vec<_> = config.policies.iter().collect();
    named.sort_by_key(|(name, _)| *name);
    let mut policies = Vec::with_capacity(named.len());
    for (name, policy) in named {
        policies.push(one(&policies_at.key(name), name, policy)?);
    }
    Some(Rbac { action: action_of(config.action()), policies, matcher: None })
}

pub(super) fn action_of(action: pb::rbac::Action) -> Action {
    match action {
        pb::rbac::Action::Allow => Action::Allow,
        pb::rbac::Action::Deny => Action::Deny,
        pb::rbac::Action::Log => Action::Log,
    }
}

fn one(at: &At<'_>, name: &str, policy: &pb::Policy) -> Option<Policy> {
    let (permissions, principals) = (at.field("permissions"), at.field("principals"));
    permissions.expect(!policy.permissions.is_empty(), "expected at least one")?;
    principals.expect(!policy.principals.is_empty(), "expected at least one")?;
    Some(Policy {
        name: name.into(),
        permissions: every(&permissions, &policy.permissions, permission)?,
        principals: every(&principals, &policy.principals, principal)?,
    })
}

/// All or nothing: a policy that lost a part would mean something else.
fn every<P, T>(
    at: &At<'_>,
    items: &[P],
    translate: impl Fn(&At<'_>, &P) -> Option<T>,
) -> Option<Vec<T>> {
    let made = at.each(items, |at, item| translate(at, item));
    (made.len() == items.len()).then_some(made)
}

fn permission(at: &At<'_>, permission: &pb::Permission) -> Option<Permission> {
    use pb::permission::Rule;
    let all = |field: &str, set: &pb::permission::Set| {
        every(&at.field(field).field("rules"), &set.rules, self::permission)
    };
    Some(match at.required(permission.rule.as_ref())? {
        Rule::Any(true) => Permission::Any,
        Rule::Any(false) => return at.field("any").refuse("expected true"),
        Rule::AndRules(set) => Permission::And(all("and_rules", set)?),
        Rule::OrRules(set) => Permission::Or(all("or_rules", set)?),
        Rule::NotRule(rule) => {
            Permission::Not(Box::new(self::permission(&at.field("not_rule"), rule)?))
        }
        Rule::Header(header) => Permission::Header(matcher::header(&at.field("header"), header)?),
        Rule::UrlPath(matcher) => Permission::Path(path(&at.field("url_path"), matcher)?),
        Rule::DestinationIp(range) => {
            Permission::DestinationIp(common::cidr(&at.field("destination_ip"), range)?)
        }
        Rule::DestinationPort(port) => {
            at.field("destination_port").expect(*port <= 65_535, "is no port")?;
            Permission::DestinationPort(*port, port + 1)
        }
        Rule::DestinationPortRange(range) => {
            let at = at.field("destination_port_range");
            match (u32::try_from(range.start), u32::try_from(range.end)) {
                (Ok(start), Ok(end)) if start < end => Permission::DestinationPort(start, end),
                _ => return at.refuse("expected a start before its end, neither negative"),
            }
        }
        Rule::RequestedServerName(name) => {
            Permission::ServerName(matcher::string(&at.field("requested_server_name"), name)?)
        }
        Rule::Metadata(config) => {
            Permission::Metadata(matcher::metadata(&at.field("metadata"), config)?)
        }
        Rule::SourcedMetadata(config) => {
            Permission::Metadata(sourced(&at.field("sourced_metadata"), config)?)
        }
        _ => return at.refuse("this kind of permission is not supported"),
    })
}

fn principal(at: &At<'_>, principal: &pb::Principal) -> Option<Principal> {
    use pb::principal::Identifier;
    let all = |field: &str, set: &pb::principal::Set| {
        every(&at.field(field).field("ids"), &set.ids, self::principal)
    };
    Some(match at.required(principal.identifier.as_ref())? {
        Identifier::Any(true) => Principal::Any,
        Identifier::Any(false) => return at.field("any").refuse("expected true"),
        Identifier::AndIds(set) => Principal::And(all("and_ids", set)?),
        Identifier::OrIds(set) => Principal::Or(all("or_ids", set)?),
        Identifier::NotId(id) => {
            Principal::Not(Box::new(self::principal(&at.field("not_id"), id)?))
        }
        Identifier::Authenticated(who) => {
            let authenticated = at.field("authenticated");
            let at = authenticated.field("principal_name");
            Principal::Authenticated(match &who.principal_name {
                Some(name) => Some(matcher::string(&at, name)?),
                None => None,
            })
        }
        Identifier::SourceIp(range) => {
            Principal::RemoteIp(common::cidr(&at.field("source_ip"), range)?)
        }
        Identifier::RemoteIp(range) => {
            Principal::RemoteIp(common::cidr(&at.field("remote_ip"), range)?)
        }
        Identifier::DirectRemoteIp(range) => {
            Principal::DirectRemoteIp(common::cidr(&at.field("direct_remote_ip"), range)?)
        }
        Identifier::Header(header) => {
            Principal::Header(matcher::header(&at.field("header"), header)?)
        }
        Identifier::UrlPath(matcher) => Principal::Path(path(&at.field("url_path"), matcher)?),
        Identifier::Metadata(config) => {
            Principal::Metadata(matcher::metadata(&at.field("metadata"), config)?)
        }
        Identifier::SourcedMetadata(config) => {
            Principal::Metadata(sourced(&at.field("sourced_metadata"), config)?)
        }
        Identifier::FilterState(config) => {
            Principal::State(matcher::state(&at.field("filter_state"), config)?)
        }
        _ => return at.refuse("this kind of principal is not supported"),
    })
}

fn sourced(at: &At<'_>, config: &pb::SourcedMetadata) -> Option<MetadataMatcher> {
    let source = config.metadata_source();
    at.field("metadata_source").expect(
        source == pb::MetadataSource::Dynamic,
        "metadata of routes is not supported: expected DYNAMIC",
    )?;
    let at = at.field("metadata_matcher");
    matcher::metadata(&at, at.required(config.metadata_matcher.as_ref())?)
}

fn path(at: &At<'_>, rule: &PathMatcher) -> Option<StringMatcher> {
    use pillion_xds::envoy::r#type::matcher::v3::path_matcher::Rule;
    match &rule.rule {
        Some(Rule::Path(text)) => matcher::string(&at.field("path"), text),
        None => at.field("path").refuse("is missing"),
    }
}
