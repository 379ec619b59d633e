//! `xds.type.matcher.v3.Matcher` with `rbac.v3.Action`

use std::collections::BTreeMap;
use std::sync::Arc;

use pillion_xds::envoy::config::rbac::v3 as rbac;
use pillion_xds::envoy::r#type::matcher::v3::{
    HttpRequestHeaderMatchInput, HttpRequestQueryParamMatchInput,
};
use pillion_xds::xds::core::v3::TypedExtensionConfig;
use pillion_xds::xds::r#type::matcher::v3 as pb;
use pillion_xds::xds::r#type::matcher::v3::matcher as tree;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, matcher};
use super::rbac::action_of;
use crate::model::matcher::{StringMatch, StringMatcher, full_regex};
use crate::model::rbac::{Branches, Input, Matcher, Outcome, OutcomeKind, Predicate};

/// A tree deeper than this is a mistake or an attack.
const DEEPEST: usize = 32;

pub(super) fn matcher(at: &At<'_>, config: &pb::Matcher) -> Option<Matcher> {
    level(at, config, 0)
}

fn level(at: &At<'_>, config: &pb::Matcher, depth: usize) -> Option<Matcher> {
    at.expect(depth < DEEPEST, "is nested too deeply")?;
    let branches = match &config.matcher_type {
        None => Branches::None,
        Some(tree_type) => branches(at, tree_type, depth)?,
    };
    let otherwise = match &config.on_no_match {
        None => None,
        Some(on_match) => Some(outcome(&at.field("on_no_match"), on_match, depth)?),
    };
    Some(Matcher { branches, otherwise })
}

fn branches(at: &At<'_>, config: &pb::matcher::MatcherType, depth: usize) -> Option<Branches> {
    use pb::matcher::MatcherType as Kind;
    match config {
        Kind::MatcherList(list) => {
            let list_at = at.field("matcher_list");
            let at = list_at.field("matchers");
            let made = at.each(&list.matchers, |at, one| {
                let predicate_at = at.field("predicate");
                let wanted = predicate_at.required(one.predicate.as_ref())?;
                let on_match_at = at.field("on_match");
                let follows = on_match_at.required(one.on_match.as_ref())?;
                Some((
                    predicate(&predicate_at, wanted, depth)?,
                    outcome(&on_match_at, follows, depth)?,
                ))
            });
            (made.len() == list.matchers.len()).then_some(Branches::List(made))
        }
        Kind::MatcherTree(config) => {
            let at = at.field("matcher_tree");
            let input_at = at.field("input");
            let input = input(&input_at, config.input.as_ref())?;
            use tree::matcher_tree::TreeType;
            match &config.tree_type {
                Some(TreeType::ExactMatchMap(map)) => {
                    let at = at.field("exact_match_map");
                    Some(Branches::Exact(input, entries(&at, map, depth)?))
                }
                Some(TreeType::PrefixMatchMap(map)) => {
                    let at = at.field("prefix_match_map");
                    let mut list: Vec<_> = entries(&at, map, depth)?.into_iter().collect();
                    list.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
                    Some(Branches::Prefix(input, list))
                }
                Some(TreeType::CustomMatch(_)) => {
                    at.field("custom_match").refuse("is not supported")
                }
                None => at.refuse("expected exact_match_map or prefix_match_map"),
            }
        }
    }
}

fn entries(
    at: &At<'_>,
    map: &tree::matcher_tree::MatchMap,
    depth: usize,
) -> Option<BTreeMap<String, Outcome>> {
    let at = at.field("map");
    let sorted: BTreeMap<_, _> = map.map.iter().collect();
    let mut made = BTreeMap::new();
    for (key, on_match) in sorted {
        made.insert(key.clone(), outcome(&at.key(key), on_match, depth)?);
    }
    Some(made)
}

fn outcome(at: &At<'_>, config: &tree::OnMatch, depth: usize) -> Option<Outcome> {
    use tree::on_match::OnMatch as Kind;
    let kind = match at.required(config.on_match.as_ref())? {
        Kind::Matcher(deeper) => {
            OutcomeKind::Deeper(Arc::new(level(&at.field("matcher"), deeper, depth + 1)?))
        }
        Kind::Action(packed) => {
            let action_at = at.field("action");
            let at = action_at.field("typed_config");
            let packed = at.required(packed.typed_config.as_ref())?;
            at.expect(
                common::type_of(packed) == "envoy.config.rbac.v3.Action",
                "expected envoy.config.rbac.v3.Action",
            )?;
            let action: rbac::Action = common::unpack(&at, packed)?;
            at.field("name").expect(!action.name.is_empty(), "is empty")?;
            OutcomeKind::Act(action.name.as_str().into(), action_of(action.action()))
        }
    };
    Some(Outcome { kind, keep_matching: config.keep_matching })
}

fn predicate(
    at: &At<'_>,
    config: &tree::matcher_list::Predicate,
    depth: usize,
) -> Option<Predicate> {
    use tree::matcher_list::predicate::MatchType as Kind;
    at.expect(depth < DEEPEST, "is nested too deeply")?;
    let several = |field: &str, list: &tree::matcher_list::predicate::PredicateList| {
        let list_at = at.field(field);
        let at = list_at.field("predicate");
        at.expect(list.predicate.len() >= 2, "expected two or more")?;
        let made = at.each(&list.predicate, |at, one| predicate(at, one, depth + 1));
        (made.len() == list.predicate.len()).then_some(made)
    };
    Some(match at.required(config.match_type.as_ref())? {
        Kind::OrMatcher(list) => Predicate::Or(several("or_matcher", list)?),
        Kind::AndMatcher(list) => Predicate::And(several("and_matcher", list)?),
        Kind::NotMatcher(one) => {
            Predicate::Not(Box::new(predicate(&at.field("not_matcher"), one, depth + 1)?))
        }
        Kind::SinglePredicate(single) => {
            use tree::matcher_list::predicate::single_predicate::Matcher as Test;
            let at = at.field("single_predicate");
            let input = input(&at.field("input"), single.input.as_ref())?;
            match &single.matcher {
                Some(Test::ValueMatch(text)) => {
                    Predicate::Text(input, string(&at.field("value_match"), text)?)
                }
                Some(Test::CustomMatch(_)) => {
                    return at.field("custom_match").refuse("is not supported");
                }
                None => return at.field("value_match").refuse("is missing"),
            }
        }
    })
}

fn input(at: &At<'_>, config: Option<&TypedExtensionConfig>) -> Option<Input> {
    let config = at.required(config)?;
    let at = at.field("typed_config");
    let packed: &Any = at.required(config.typed_config.as_ref())?;
    let name = common::type_of(packed);
    const NETWORK: &str = "envoy.extensions.matching.common_inputs.network.v3.";
    const SSL: &str = "envoy.extensions.matching.common_inputs.ssl.v3.";
    let short = name.strip_prefix(NETWORK).or_else(|| name.strip_prefix(SSL)).unwrap_or(name);
    Some(match short {
        "envoy.type.matcher.v3.HttpRequestHeaderMatchInput" => {
            let config: HttpRequestHeaderMatchInput = common::unpack(&at, packed)?;
            Input::Header(matcher::header_key(&at.field("header_name"), &config.header_name)?)
        }
        "envoy.type.matcher.v3.HttpRequestQueryParamMatchInput" => {
            let config: HttpRequestQueryParamMatchInput = common::unpack(&at, packed)?;
            at.field("query_param").expect(!config.query_param.is_empty(), "is empty")?;
            Input::Query(config.query_param)
        }
        "DestinationIPInput" => Input::DestinationIp,
        "DestinationPortInput" => Input::DestinationPort,
        "SourceIPInput" => Input::SourceIp,
        "DirectSourceIPInput" => Input::DirectSourceIp,
        "ServerNameInput" => Input::ServerName,
        "UriSanInput" => Input::UriSan,
        "DnsSanInput" => Input::DnsSan,
        "SubjectInput" => Input::Subject,
        _ => return at.refuse(format!("input `{name}` is not supported")),
    })
}

fn string(at: &At<'_>, matcher: &pb::StringMatcher) -> Option<StringMatcher> {
    use pb::string_matcher::MatchPattern as Kind;
    let ignore_case = matcher.ignore_case;
    let fold = |text: &String| {
        if ignore_case { text.to_ascii_lowercase() } else { text.clone() }
    };
    let kind = match &matcher.match_pattern {
        Some(Kind::Exact(text)) => StringMatch::Exact(fold(text)),
        Some(Kind::Prefix(text)) => StringMatch::Prefix(fold(text)),
        Some(Kind::Suffix(text)) => StringMatch::Suffix(fold(text)),
        Some(Kind::Contains(text)) => StringMatch::Contains(fold(text)),
        Some(Kind::SafeRegex(pattern)) => match full_regex(&pattern.regex) {
            Ok(regex) => StringMatch::Regex(regex),
            Err(_) => return at.field("safe_regex").refuse("is no regular expression"),
        },
        _ => return at.refuse("expected exact, prefix, suffix, contains or safe_regex"),
    };
    Some(StringMatcher { kind, ignore_case })
}
