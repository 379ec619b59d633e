//! String, header and query matchers.

use pillion_xds::envoy::config::route::v3 as pb;
use pillion_xds::envoy::r#type::matcher::v3 as pbm;

use super::at::At;
use crate::model::dynamic::{MetadataMatcher, StateMatcher, ValueMatcher};
use crate::model::matcher::{
    HeaderKey, HeaderMatch, HeaderMatcher, QueryMatcher, StringMatch, StringMatcher, full_regex,
};

/// `StringMatcher`
pub(super) fn string(at: &At<'_>, matcher: &pbm::StringMatcher) -> Option<StringMatcher> {
    use pbm::string_matcher::MatchPattern;
    let ignore_case = matcher.ignore_case;
    let fold = |text: &String| {
        if ignore_case { text.to_ascii_lowercase() } else { text.clone() }
    };
    let kind = match matcher.match_pattern.as_ref() {
        Some(MatchPattern::Exact(text)) => StringMatch::Exact(fold(text)),
        Some(MatchPattern::Prefix(text)) => StringMatch::Prefix(fold(text)),
        Some(MatchPattern::Suffix(text)) => StringMatch::Suffix(fold(text)),
        Some(MatchPattern::Contains(text)) => StringMatch::Contains(fold(text)),
        Some(MatchPattern::SafeRegex(pattern)) => {
            StringMatch::Regex(regex(&at.field("safe_regex"), pattern)?)
        }
        _ => return at.refuse("expected exact, prefix, suffix, contains or safe_regex"),
    };
    Some(StringMatcher { kind, ignore_case })
}

/// `RegexMatcher`, on the whole text.
pub(super) fn regex(at: &At<'_>, matcher: &pbm::RegexMatcher) -> Option<regex::Regex> {
    match full_regex(&matcher.regex) {
        Ok(regex) => Some(regex),
        Err(error) => at.field("regex").refuse(short(&error)),
    }
}

/// `RegexMatchAndSubstitute`: the pattern matches anywhere, as in Envoy.
pub(super) fn substitute(
    at: &At<'_>,
    rewrite: &pbm::RegexMatchAndSubstitute,
) -> Option<(regex::Regex, String)> {
    let pattern = at.field("pattern").required(rewrite.pattern.as_ref())?;
    match regex::RegexBuilder::new(&pattern.regex).size_limit(1 << 20).build() {
        Ok(regex) => Some((regex, rewrite.substitution.clone())),
        Err(error) => at.field("pattern").field("regex").refuse(short(&error)),
    }
}

/// The crate's message draws the pattern over several lines; the last says what is wrong.
fn short(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or("is no regular expression").trim().to_owned()
}

/// `HeaderMatcher`
pub(super) fn header(at: &At<'_>, matcher: &pb::HeaderMatcher) -> Option<HeaderMatcher> {
    use pb::header_matcher::HeaderMatchSpecifier as Spec;
    let text = |kind| Some(HeaderMatch::Text(StringMatcher { kind, ignore_case: false }));
    let kind = match matcher.header_match_specifier.as_ref() {
        None => HeaderMatch::Present(true),
        Some(Spec::PresentMatch(present)) => HeaderMatch::Present(*present),
        Some(Spec::ExactMatch(value)) => text(StringMatch::Exact(value.clone()))?,
        Some(Spec::PrefixMatch(value)) => text(StringMatch::Prefix(value.clone()))?,
        Some(Spec::SuffixMatch(value)) => text(StringMatch::Suffix(value.clone()))?,
        Some(Spec::ContainsMatch(value)) => text(StringMatch::Contains(value.clone()))?,
        Some(Spec::SafeRegexMatch(pattern)) => {
            text(StringMatch::Regex(regex(&at.field("safe_regex_match"), pattern)?))?
        }
        Some(Spec::StringMatch(matcher)) => {
            HeaderMatch::Text(string(&at.field("string_match"), matcher)?)
        }
        Some(Spec::RangeMatch(range)) => HeaderMatch::Range(range.start, range.end),
    };
    Some(HeaderMatcher {
        name: header_key(&at.field("name"), &matcher.name)?,
        kind,
        invert: matcher.invert_match,
        treat_missing_as_empty: matcher.treat_missing_header_as_empty,
    })
}

/// A header or a pseudo-header by its name.
pub(super) fn header_key(at: &At<'_>, name: &str) -> Option<HeaderKey> {
    Some(match name.to_ascii_lowercase().as_str() {
        ":method" => HeaderKey::Method,
        ":path" => HeaderKey::Path,
        ":authority" | "host" => HeaderKey::Authority,
        ":scheme" => HeaderKey::Scheme,
        other => match other.parse() {
            Ok(name) => HeaderKey::Name(name),
            Err(_) => return at.refuse(format!("`{name}` is no header name")),
        },
    })
}

/// `QueryParameterMatcher`
pub(super) fn query(at: &At<'_>, matcher: &pb::QueryParameterMatcher) -> Option<QueryMatcher> {
    use pb::query_parameter_matcher::QueryParameterMatchSpecifier as Spec;
    let specifier = matcher.query_parameter_match_specifier.as_ref();
    let absent = matches!(specifier, Some(Spec::PresentMatch(false)));
    let value = match specifier {
        None | Some(Spec::PresentMatch(_)) => None,
        Some(Spec::StringMatch(matcher)) => Some(string(&at.field("string_match"), matcher)?),
    };
    Some(QueryMatcher { name: matcher.name.clone(), value, absent })
}

/// `MetadataMatcher`
pub(super) fn metadata(at: &At<'_>, config: &pbm::MetadataMatcher) -> Option<MetadataMatcher> {
    use pbm::metadata_matcher::path_segment::Segment;
    at.field("filter").expect(!config.filter.is_empty(), "is empty")?;
    let path_at = at.field("path");
    path_at.expect(!config.path.is_empty(), "expected at least one")?;
    let path = path_at.each(&config.path, |at, one| match &one.segment {
        Some(Segment::Key(key)) => Some(key.clone()),
        None => at.refuse("expected a key"),
    });
    let value_at = at.field("value");
    Some(MetadataMatcher {
        namespace: config.filter.clone(),
        path,
        value: value(&value_at, value_at.required(config.value.as_ref())?)?,
        invert: config.invert,
    })
}

fn value(at: &At<'_>, config: &pbm::ValueMatcher) -> Option<ValueMatcher> {
    use pbm::double_matcher::MatchPattern as Double;
    use pbm::list_matcher::MatchPattern as List;
    use pbm::value_matcher::MatchPattern as Kind;
    Some(match at.required(config.match_pattern.as_ref())? {
        Kind::NullMatch(_) => ValueMatcher::Null,
        Kind::DoubleMatch(double) => match &double.match_pattern {
            Some(Double::Exact(number)) => ValueMatcher::Number(*number),
            Some(Double::Range(range)) => ValueMatcher::Range(range.start, range.end),
            None => return at.field("double_match").refuse("expected range or exact"),
        },
        Kind::StringMatch(text) => ValueMatcher::Text(string(&at.field("string_match"), text)?),
        Kind::BoolMatch(wanted) => ValueMatcher::Bool(*wanted),
        Kind::PresentMatch(wanted) => ValueMatcher::Present(*wanted),
        Kind::ListMatch(list) => {
            let list_at = at.field("list_match");
            let at = list_at.field("one_of");
            match &list.match_pattern {
                Some(List::OneOf(one)) => ValueMatcher::OneOf(Box::new(value(&at, one)?)),
                None => return at.refuse("is missing"),
            }
        }
        Kind::OrMatch(any) => {
            let or_at = at.field("or_match");
            let at = or_at.field("value_matchers");
            let made = at.each(&any.value_matchers, value);
            at.expect(made.len() == any.value_matchers.len(), "one is refused")?;
            ValueMatcher::Or(made)
        }
    })
}

/// `FilterStateMatcher`
pub(super) fn state(at: &At<'_>, config: &pbm::FilterStateMatcher) -> Option<StateMatcher> {
    use pbm::filter_state_matcher::Matcher;
    at.field("key").expect(!config.key.is_empty(), "is empty")?;
    match &config.matcher {
        Some(Matcher::StringMatch(matcher)) => Some(StateMatcher {
            key: config.key.clone(),
            value: string(&at.field("string_match"), matcher)?,
        }),
        Some(Matcher::AddressMatch(_)) => at.field("address_match").refuse("is not supported"),
        None => at.refuse("expected string_match"),
    }
}
