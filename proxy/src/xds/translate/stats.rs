//! `envoy.config.metrics.v3.StatsConfig`: names, labels and buckets of metrics.

use pillion_xds::envoy::config::metrics::v3 as pb;
use pillion_xds::envoy::r#type::matcher::v3 as pbm;
use regex::Regex;

use super::at::At;
use super::matcher;
use crate::model::matcher::StringMatcher;
use crate::telemetry::stats::{Bounds, Settings, Tag, Which};

/// Compile the settings of metrics.
pub(super) fn settings(at: &At<'_>, config: &pb::StatsConfig) -> Option<Settings> {
    let buckets_at = at.field("histogram_bucket_settings");
    Some(Settings {
        tags: at.field("stats_tags").each(&config.stats_tags, tag),
        no_default_tags: config.use_all_default_tags == Some(false),
        which: match &config.stats_matcher {
            None => None,
            Some(which) => self::which(&at.field("stats_matcher"), which)?,
        },
        buckets: buckets_at.each(&config.histogram_bucket_settings, buckets),
    })
}

fn tag(at: &At<'_>, tag: &pb::TagSpecifier) -> Option<Tag> {
    use pb::tag_specifier::TagValue;
    let name = tag.tag_name.clone();
    at.field("tag_name").expect(!name.is_empty(), "is missing")?;
    match &tag.tag_value {
        Some(TagValue::FixedValue(value)) => Some(Tag::Fixed { name, value: value.clone() }),
        Some(TagValue::Regex(pattern)) if !pattern.is_empty() => {
            let at = at.field("regex");
            let regex = match Regex::new(pattern) {
                Ok(regex) => regex,
                Err(error) => return at.refuse(error.to_string()),
            };
            at.expect(regex.captures_len() > 1, "has no group to take the value from")?;
            Some(Tag::Found { name, regex })
        }
        _ => {
            at.refuse("expected regex or fixed_value: only tags with values of their own are known")
        }
    }
}

fn which(at: &At<'_>, which: &pb::StatsMatcher) -> Option<Option<Which>> {
    use pb::stats_matcher::StatsMatcher;
    let list = |name: &str, list: &pbm::ListStringMatcher| -> Option<Vec<StringMatcher>> {
        Some(at.field(name).field("patterns").each(&list.patterns, matcher::string))
    };
    Some(match &which.stats_matcher {
        None | Some(StatsMatcher::RejectAll(false)) => None,
        Some(StatsMatcher::RejectAll(true)) => Some(Which::None),
        Some(StatsMatcher::ExclusionList(these)) => {
            Some(Which::AllBut(list("exclusion_list", these)?))
        }
        Some(StatsMatcher::InclusionList(these)) => {
            Some(Which::Only(list("inclusion_list", these)?))
        }
    })
}

fn buckets(at: &At<'_>, settings: &pb::HistogramBucketSettings) -> Option<(StringMatcher, Bounds)> {
    let Some(which) = &settings.r#match else { return at.field("match").refuse("is missing") };
    let which = matcher::string(&at.field("match"), which)?;
    let at = at.field("buckets");
    at.expect(!settings.buckets.is_empty(), "is empty")?;
    at.expect(settings.buckets.iter().all(|bound| *bound > 0.0), "expected numbers above 0")?;
    let ascending = settings.buckets.windows(2).all(|pair| pair[0] < pair[1]);
    at.expect(ascending, "expected each bound to be above the one before it")?;
    Some((which, Bounds::new(settings.buckets.clone())))
}

#[cfg(test)]
mod tests {
    use pillion_xds::json::{UnknownFields, parse};

    use crate::xds::translate::bootstrap::bootstrap;

    #[test]
    fn what_is_wrong_is_named() {
        for (config, why) in [
            ("stats_tags: [{tag_name: a}]", "stats_tags[0]: expected regex or fixed_value"),
            ("stats_tags: [{tag_name: a, regex: 'x'}]", "stats_tags[0].regex: has no group"),
            ("stats_tags: [{tag_name: a, regex: '('}]", "stats_tags[0].regex: "),
            ("stats_tags: [{fixed_value: x}]", "stats_tags[0].tag_name: is missing"),
            (
                "histogram_bucket_settings: [{match: {prefix: a}, buckets: [2, 1]}]",
                "histogram_bucket_settings[0].buckets: expected each bound",
            ),
            ("histogram_bucket_settings: [{buckets: [1]}]", "histogram_bucket_settings[0].match"),
        ] {
            let text = format!("stats_config: {{{config}}}");
            let parsed = parse(&text, UnknownFields::Refuse).unwrap();
            let refused = bootstrap(&parsed.message).expect_err(why);
            let text: Vec<String> = refused.iter().map(ToString::to_string).collect();
            let text = text.join("\n");
            assert!(text.starts_with(&format!("stats_config.{why}")), "{why}: {text}");
        }
    }
}
