//! Changes of headers, query and trailers by configuration alone (Envoy: header mutation filter).

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Body as _;

use super::super::body::AnswerBody;
use super::super::exchange::Exchange;
use super::super::headers;
use super::{Filter, Routed};
use crate::http::body::RequestBody;
use crate::http::target;
use crate::http::transform::{Changed, Trailers};
use crate::model::filter::{FilterKind, Override};
use crate::model::format::Template;
use crate::model::headers::HeaderAppend;
use crate::model::mutation::{HeaderMutations, Mutation, QueryMutation};

/// All settings for this request: the filter's own, then those of the table, the virtual host, the
/// route and its weighted cluster; or the other way round, as `most_specific_wins` says.
pub(super) fn levels<'a>(filter: &'a Filter, routed: Routed<'a>) -> Vec<&'a HeaderMutations> {
    let FilterKind::HeaderMutation(own) = &filter.config.kind else { return Vec::new() };
    let mut of_routes: Vec<&HeaderMutations> = routed
        .said(&filter.config.name)
        .filter_map(|said| match said {
            Override::Settings(FilterKind::HeaderMutation(made)) => Some(&**made),
            _ => None,
        })
        .collect();
    if own.most_specific_wins {
        of_routes.reverse();
    }
    let mut all = vec![&**own];
    all.append(&mut of_routes);
    all
}

/// The request on its way up.
pub(super) fn request(
    exchange: &Exchange,
    levels: &[&HeaderMutations],
    request: &mut Request<RequestBody>,
) {
    for level in levels {
        for mutation in &level.request {
            let value = match mutation {
                Mutation::Put { value, .. } => {
                    headers::value_of(exchange, value, Some(request), None)
                }
                _ => HeaderValue::from_static(""),
            };
            change(mutation, request.headers_mut(), |_, _| value);
        }
        if !level.query.is_empty() {
            change_query(exchange, &level.query, request);
        }
    }
    let of_trailers = levels.iter().flat_map(|level| &level.request_trailers);
    let ready = ready(exchange, of_trailers, |exchange, value| {
        headers::value_of(exchange, value, Some(&*request), None)
    });
    if !ready.is_empty() && !matches!(request.body(), RequestBody::Empty) {
        let body = std::mem::replace(request.body_mut(), RequestBody::Empty);
        let change = Trailers(Some(move |trailers: &mut HeaderMap| apply(&ready, trailers)));
        *request.body_mut() = RequestBody::Boxed(Changed::boxed(body.boxed(), change));
    }
}

/// The answer on its way down.
pub(super) fn response(
    exchange: &Exchange,
    levels: &[&HeaderMutations],
    mut response: Response<AnswerBody>,
) -> Response<AnswerBody> {
    for mutation in levels.iter().flat_map(|level| &level.response) {
        change(mutation, response.headers_mut(), |value, map| {
            headers::value_of(exchange, value, None, Some(map))
        });
    }
    let of_trailers = levels.iter().flat_map(|level| &level.response_trailers);
    let ready = ready(exchange, of_trailers, |exchange, value| {
        headers::value_of(exchange, value, None, Some(response.headers()))
    });
    if ready.is_empty() || response.body().is_end_stream() {
        return response;
    }
    let change = Trailers(Some(move |trailers: &mut HeaderMap| apply(&ready, trailers)));
    response.map(|body| AnswerBody::Boxed(Changed::boxed(body.boxed(), change)))
}

fn change(
    mutation: &Mutation,
    map: &mut HeaderMap,
    value_of: impl FnOnce(&Template, &HeaderMap) -> HeaderValue,
) {
    match mutation {
        Mutation::Put { name, value, action, keep_empty } => {
            let value = value_of(value, map);
            if *keep_empty || !value.is_empty() {
                headers::put(map, (name, *action), value);
            }
        }
        out => take_out(out, map),
    }
}

fn take_out(mutation: &Mutation, map: &mut HeaderMap) {
    match mutation {
        Mutation::Remove(name) => {
            map.remove(name);
        }
        Mutation::RemoveMatching(matcher) => {
            let goes =
                |name: &&HeaderName| **name != http::header::HOST && matcher.matches(name.as_str());
            let names: Vec<HeaderName> = map.keys().filter(goes).cloned().collect();
            for name in names {
                map.remove(name);
            }
        }
        Mutation::Put { .. } => {}
    }
}

/// A mutation of trailers, whose values are worked out before there are any.
enum Ready {
    Out(Mutation),
    Put(HeaderName, HeaderAppend, HeaderValue),
}

fn ready<'a>(
    exchange: &Exchange,
    mutations: impl Iterator<Item = &'a Mutation>,
    value_of: impl Fn(&Exchange, &Template) -> HeaderValue,
) -> Vec<Ready> {
    mutations
        .filter_map(|mutation| match mutation {
            Mutation::Put { name, value, action, keep_empty } => {
                let value = value_of(exchange, value);
                let goes_in = *keep_empty || !value.is_empty();
                goes_in.then(|| Ready::Put(name.clone(), *action, value))
            }
            out => Some(Ready::Out(out.clone())),
        })
        .collect()
}

fn apply(mutations: &[Ready], trailers: &mut HeaderMap) {
    for mutation in mutations {
        match mutation {
            Ready::Out(mutation) => take_out(mutation, trailers),
            Ready::Put(name, action, value) => {
                headers::put(trailers, (name, *action), value.clone());
            }
        }
    }
}

fn change_query(
    exchange: &Exchange,
    mutations: &[QueryMutation],
    request: &mut Request<RequestBody>,
) {
    let values: Vec<Option<HeaderValue>> = mutations
        .iter()
        .map(|mutation| match mutation {
            QueryMutation::Put(_, value, _) => {
                Some(headers::value_of(exchange, value, Some(request), None))
            }
            QueryMutation::Remove(_) => None,
        })
        .collect();
    let target = target::path(request.uri());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut query = Query::parse(query);
    for (mutation, value) in mutations.iter().zip(values) {
        let value = value.as_ref().map_or("", |value| value.to_str().unwrap_or(""));
        query.change(mutation, value);
    }
    let changed = query.write(path);
    target::set_path(request, &changed);
}

/// A query, by its keys in order, as Envoy writes it back.
#[derive(Debug, Default)]
struct Query(std::collections::BTreeMap<String, Vec<String>>);

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| {
                percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
            };
            query.0.entry(decoded(key)).or_default().push(decoded(value));
        }
        query
    }

    fn change(&mut self, mutation: &QueryMutation, value: &str) {
        match mutation {
            QueryMutation::Remove(key) => {
                self.0.remove(key);
            }
            QueryMutation::Put(key, _, action) => {
                let there = self.0.contains_key(key);
                match action {
                    HeaderAppend::AddIfAbsent if there => {}
                    HeaderAppend::OverwriteIfExists if !there => {}
                    HeaderAppend::AppendIfExistsOrAdd | HeaderAppend::AddIfAbsent => {
                        self.0.entry(key.clone()).or_default().push(value.to_owned());
                    }
                    HeaderAppend::OverwriteIfExistsOrAdd | HeaderAppend::OverwriteIfExists => {
                        self.0.insert(key.clone(), vec![value.to_owned()]);
                    }
                }
            }
        }
    }

    fn write(&self, path: &str) -> String {
        use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
        /// RFC 3986 section 2.3: unreserved.
        const SET: &AsciiSet =
            &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
        let mut text = path.to_owned();
        let mut mark = '?';
        for (key, values) in &self.0 {
            for value in values {
                text.push(mark);
                mark = '&';
                text.extend(utf8_percent_encode(key, SET));
                text.push('=');
                text.extend(utf8_percent_encode(value, SET));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_changed_by_key() {
        let put =
            |key: &str, action| QueryMutation::Put(key.to_owned(), Template::default(), action);
        let mut query = Query::parse("b=1&a=%20x&b=2");
        query.change(&put("b", HeaderAppend::AppendIfExistsOrAdd), "3");
        query.change(&put("a", HeaderAppend::AddIfAbsent), "no");
        query.change(&put("c", HeaderAppend::OverwriteIfExists), "no");
        query.change(&put("d", HeaderAppend::OverwriteIfExistsOrAdd), "&");
        assert_eq!(query.write("/p"), "/p?a=%20x&b=1&b=2&b=3&d=%26");
        query.change(&QueryMutation::Remove("b".to_owned()), "");
        query.change(&put("a", HeaderAppend::OverwriteIfExists), "y");
        assert_eq!(query.write("/p"), "/p?a=y&d=%26");
    }
}
