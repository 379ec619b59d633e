//! Header mutations by a filter (`header_mutation.v3`).

use http::HeaderName;

use super::format::Template;
use super::headers::HeaderAppend;
use super::matcher::StringMatcher;

/// `HeaderMutation`, on a connection manager or on a route.
#[derive(Clone, Debug, Default)]
pub struct HeaderMutations {
    /// Of requests.
    pub request: Vec<Mutation>,
    /// Of a request's query.
    pub query: Vec<QueryMutation>,
    /// Of a request's trailers.
    pub request_trailers: Vec<Mutation>,
    /// Of answers.
    pub response: Vec<Mutation>,
    /// Of an answer's trailers.
    pub response_trailers: Vec<Mutation>,
    /// The route's come last, so that they win. Of the filter's own settings only.
    pub most_specific_wins: bool,
}

/// `mutation_rules.v3.HeaderMutation`
#[derive(Clone, Debug)]
pub enum Mutation {
    /// Take it out.
    Remove(HeaderName),
    /// Take out those whose names match.
    RemoveMatching(StringMatcher),
    /// Put it in.
    Put {
        /// Which.
        name: HeaderName,
        /// Its value, with command operators.
        value: Template,
        /// What to do if it is there already.
        action: HeaderAppend,
        /// Even if the value comes out empty.
        keep_empty: bool,
    },
}

/// `KeyValueMutation` of the query.
#[derive(Clone, Debug)]
pub enum QueryMutation {
    /// Take it out.
    Remove(String),
    /// Put it in.
    Put(String, Template, HeaderAppend),
}
