//! `header_mutation.v3.HeaderMutation` and `HeaderMutationPerRoute`

use std::sync::Arc;

use pillion_xds::envoy::config::common::mutation_rules::v3 as rules;
use pillion_xds::envoy::config::core::v3 as core;
use pillion_xds::envoy::extensions::filters::http::header_mutation::v3 as pb;
use prost_types::Any;

use super::super::at::At;
use super::super::{common, headers, matcher};
use crate::model::filter::{FilterKind, Override};
use crate::model::format::Template;
use crate::model::headers::HeaderAppend;
use crate::model::mutation::{HeaderMutations, Mutation, QueryMutation};

pub(super) fn filter(at: &At<'_>, packed: &Any) -> Option<FilterKind> {
    let config: pb::HeaderMutation = common::unpack(at, packed)?;
    let most_specific_wins = config.most_specific_header_mutations_wins;
    settings(at, config.mutations.as_ref(), most_specific_wins)
}

pub(super) fn per_route(at: &At<'_>, packed: &Any) -> Option<Override> {
    let config: pb::HeaderMutationPerRoute = common::unpack(at, packed)?;
    settings(at, config.mutations.as_ref(), false).map(Override::Settings)
}

fn settings(
    at: &At<'_>,
    config: Option<&pb::Mutations>,
    most_specific_wins: bool,
) -> Option<FilterKind> {
    let at = at.field("mutations");
    let none = pb::Mutations::default();
    let config = config.unwrap_or(&none);
    let list = |field: &str, mutations: &[rules::HeaderMutation]| {
        at.field(field).each(mutations, mutation)
    };
    Some(FilterKind::HeaderMutation(Arc::new(HeaderMutations {
        request: list("request_mutations", &config.request_mutations),
        query: at
            .field("query_parameter_mutations")
            .each(&config.query_parameter_mutations, query_mutation),
        request_trailers: list("request_trailers_mutations", &config.request_trailers_mutations),
        response: list("response_mutations", &config.response_mutations),
        response_trailers: list("response_trailers_mutations", &config.response_trailers_mutations),
        most_specific_wins,
    })))
}

fn mutation(at: &At<'_>, mutation: &rules::HeaderMutation) -> Option<Mutation> {
    use rules::header_mutation::Action;
    match at.required(mutation.action.as_ref())? {
        Action::Remove(name) => {
            let at = at.field("remove");
            let fixed = name.starts_with(':') || name.eq_ignore_ascii_case("host");
            at.expect(!fixed, format!("`{name}` cannot be removed"))?;
            headers::name_of(&at, name).map(Mutation::Remove)
        }
        Action::RemoveOnMatch(on) => {
            let field = at.field("remove_on_match");
            let at = field.field("key_matcher");
            let matched = matcher::string(&at, at.required(on.key_matcher.as_ref())?)?;
            Some(Mutation::RemoveMatching(matched))
        }
        Action::Append(option) => put(&at.field("append"), option),
    }
}

fn put(at: &At<'_>, option: &core::HeaderValueOption) -> Option<Mutation> {
    let header_at = at.field("header");
    let key = &header_at.required(option.header.as_ref())?.key;
    let fixed = key.starts_with(':') || key.eq_ignore_ascii_case("host");
    header_at.field("key").expect(!fixed, format!("`{key}` cannot be changed here"))?;
    let made = headers::addition(at, option)?;
    Some(Mutation::Put {
        name: made.name,
        value: made.value,
        action: made.action,
        keep_empty: made.keep_empty,
    })
}

fn query_mutation(at: &At<'_>, mutation: &core::KeyValueMutation) -> Option<QueryMutation> {
    use core::key_value_append::KeyValueAppendAction as Action;
    use prost_types::value::Kind;
    let Some(append) = &mutation.append else {
        at.expect(!mutation.remove.is_empty(), "expected append or remove")?;
        return Some(QueryMutation::Remove(mutation.remove.clone()));
    };
    let at = at.field("append");
    let record_at = at.field("record");
    let record = record_at.required(append.record.as_ref())?;
    record_at.field("key").expect(!record.key.is_empty(), "is empty")?;
    let value_at = record_at.field("value");
    let Some(Kind::StringValue(text)) = record.value.as_ref().and_then(|value| value.kind.as_ref())
    else {
        return value_at.refuse("expected a text");
    };
    let value = match Template::parse(text) {
        Ok(value) => value.omitting(),
        Err(error) => return value_at.refuse(error),
    };
    let action = match append.action() {
        Action::AppendIfExistsOrAdd => HeaderAppend::AppendIfExistsOrAdd,
        Action::AddIfAbsent => HeaderAppend::AddIfAbsent,
        Action::OverwriteIfExistsOrAdd => HeaderAppend::OverwriteIfExistsOrAdd,
        Action::OverwriteIfExists => HeaderAppend::OverwriteIfExists,
    };
    Some(QueryMutation::Put(record.key.clone(), value, action))
}
