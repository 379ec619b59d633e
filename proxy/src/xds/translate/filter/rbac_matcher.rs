//! `xds.type.matcher.v3.Matcher` with `rbac.v3.Action`

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use pillion_xds::envoy::config::rbac::v3 as rbac;
use pillion_xds::envoy::r#type::matcher::v3::{
    HttpRequestHeaderMatchInput, HttpRequestQueryParamMatchInput,
};
use pillion_xds::xds::core::v3::TypedExtensionConfig;
use pillion_xds::xds::r#type::matcher::v3 as pb;
use pillion_xds::xds::r#type::matcher::v3::matcher as tree;
use prost::Message;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, matcher};
use super::rbac::action_of;
use crate::model::Name;
use crate::model::matcher::{StringMatch, StringMatcher, full_regex};
use crate::model::rbac::{
    Action, Branches, Input, Matcher, Outcome, OutcomeKind, Predicate, Range,
};

/// A tree deeper than this is a mistake or an attack.
const DEEPEST: usize = 32;

/// Where in which kind of tree.
#[derive(Clone, Copy)]
struct Of {
    depth: usize,
    /// It chooses filter chains.
    chains: bool,
}

impl Of {
    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

/// `Listener.filter_chain_matcher`: its actions are names of chains.
pub(in super::super) fn of_chains(at: &At<'_>, config: &pb::Matcher) -> Option<Matcher> {
    level(at, config, Of { depth: 0, chains: true })
}

pub(super) fn matcher(at: &At<'_>, config: &pb::Matcher) -> Option<Matcher> {
    level(at, config, Of { depth: 0, chains: false })
}

fn level(at: &At<'_>, config: &pb::Matcher, of: Of) -> Option<Matcher> {
    at.expect(of.depth < DEEPEST, "is nested too deeply")?;
    let branches = match &config.matcher_type {
        None => Branches::None,
        Some(tree_type) => branches(at, tree_type, of)?,
    };
    let otherwise = match &config.on_no_match {
        None => None,
        Some(on_match) => Some(outcome(&at.field("on_no_match"), on_match, of)?),
    };
    Some(Matcher { branches, otherwise })
}

fn branches(at: &At<'_>, config: &pb::matcher::MatcherType, of: Of) -> Option<Branches> {
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
                Some((predicate(&predicate_at, wanted, of)?, outcome(&on_match_at, follows, of)?))
            });
            (made.len() == list.matchers.len()).then_some(Branches::List(made))
        }
        Kind::MatcherTree(config) => {
            let at = at.field("matcher_tree");
            let input_at = at.field("input");
            let input = input(&input_at, config.input.as_ref(), of)?;
            use tree::matcher_tree::TreeType;
            match &config.tree_type {
                Some(TreeType::ExactMatchMap(map)) => {
                    let at = at.field("exact_match_map");
                    Some(Branches::Exact(input, entries(&at, map, of)?))
                }
                Some(TreeType::PrefixMatchMap(map)) => {
                    let at = at.field("prefix_match_map");
                    let mut list: Vec<_> = entries(&at, map, of)?.into_iter().collect();
                    list.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
                    Some(Branches::Prefix(input, list))
                }
                Some(TreeType::CustomMatch(custom)) => {
                    let at = at.field("custom_match");
                    ranges(&at, custom, of).map(|ranges| Branches::Ranges(input, ranges))
                }
                None => at.refuse("expected exact_match_map or prefix_match_map"),
            }
        }
    }
}

fn entries(
    at: &At<'_>,
    map: &tree::matcher_tree::MatchMap,
    of: Of,
) -> Option<BTreeMap<String, Outcome>> {
    let at = at.field("map");
    let sorted: BTreeMap<_, _> = map.map.iter().collect();
    let mut made = BTreeMap::new();
    for (key, on_match) in sorted {
        made.insert(key.clone(), outcome(&at.key(key), on_match, of)?);
    }
    Some(made)
}

fn outcome(at: &At<'_>, config: &tree::OnMatch, of: Of) -> Option<Outcome> {
    use tree::on_match::OnMatch as Kind;
    let kind = match at.required(config.on_match.as_ref())? {
        Kind::Matcher(deeper) => {
            OutcomeKind::Deeper(Arc::new(level(&at.field("matcher"), deeper, of.deeper())?))
        }
        Kind::Action(packed) => {
            let action_at = at.field("action");
            let at = action_at.field("typed_config");
            let packed = at.required(packed.typed_config.as_ref())?;
            if of.chains {
                let kind = OutcomeKind::Act(chain_name(&at, packed)?, Action::Allow);
                return Some(Outcome { kind, keep_matching: config.keep_matching });
            }
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

fn chain_name(at: &At<'_>, packed: &Any) -> Option<Name> {
    let expected = "google.protobuf.StringValue";
    at.expect(common::type_of(packed) == expected, format!("expected {expected}"))?;
    match <String as Message>::decode(packed.value.as_slice()) {
        Ok(name) => Some(name.into()),
        Err(error) => at.refuse(error.to_string()),
    }
}

/// `IPMatcher`
fn ranges(at: &At<'_>, custom: &TypedExtensionConfig, of: Of) -> Option<Vec<Range>> {
    let at = at.field("typed_config");
    let packed = at.required(custom.typed_config.as_ref())?;
    let kind = common::type_of(packed);
    let known = "xds.type.matcher.v3.IPMatcher";
    at.expect(kind == known, format!("`{kind}` is not supported: expected {known}"))?;
    let config: pb::IpMatcher = common::unpack(&at, packed)?;
    let mut made = Vec::new();
    for (i, one) in config.range_matchers.iter().enumerate() {
        let list_at = at.field("range_matchers");
        let at = list_at.index(i);
        let on_match_at = at.field("on_match");
        let outcome = outcome(&on_match_at, on_match_at.required(one.on_match.as_ref())?, of)?;
        for (i, range) in one.ranges.iter().enumerate() {
            let ranges_at = at.field("ranges");
            let address = range.address_prefix.parse::<IpAddr>().ok();
            let length = u8::try_from(range.prefix_len.unwrap_or(0)).ok();
            let net = address.zip(length).and_then(|(ip, length)| IpNet::new(ip, length).ok());
            let Some(net) = net else {
                return ranges_at.index(i).refuse("is no range of addresses");
            };
            made.push(Range { net, exclusive: one.exclusive, outcome: outcome.clone() });
        }
    }
    made.sort_by_key(|range| std::cmp::Reverse(range.net.prefix_len()));
    Some(made)
}

fn predicate(at: &At<'_>, config: &tree::matcher_list::Predicate, of: Of) -> Option<Predicate> {
    use tree::matcher_list::predicate::MatchType as Kind;
    at.expect(of.depth < DEEPEST, "is nested too deeply")?;
    let several = |field: &str, list: &tree::matcher_list::predicate::PredicateList| {
        let list_at = at.field(field);
        let at = list_at.field("predicate");
        at.expect(list.predicate.len() >= 2, "expected two or more")?;
        let made = at.each(&list.predicate, |at, one| predicate(at, one, of.deeper()));
        (made.len() == list.predicate.len()).then_some(made)
    };
    Some(match at.required(config.match_type.as_ref())? {
        Kind::OrMatcher(list) => Predicate::Or(several("or_matcher", list)?),
        Kind::AndMatcher(list) => Predicate::And(several("and_matcher", list)?),
        Kind::NotMatcher(one) => {
            Predicate::Not(Box::new(predicate(&at.field("not_matcher"), one, of.deeper())?))
        }
        Kind::SinglePredicate(single) => {
            use tree::matcher_list::predicate::single_predicate::Matcher as Test;
            let at = at.field("single_predicate");
            let input = input(&at.field("input"), single.input.as_ref(), of)?;
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

fn input(at: &At<'_>, config: Option<&TypedExtensionConfig>, of: Of) -> Option<Input> {
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
        "TransportProtocolInput" if of.chains => Input::Transport,
        "ApplicationProtocolInput" if of.chains => Input::Protocols,
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
