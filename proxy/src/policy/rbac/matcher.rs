//! Decisions by a tree (`xds.type.matcher.v3.Matcher`).

use std::borrow::Cow;
use std::net::IpAddr;

use percent_encoding::percent_decode_str;

use super::Subject;
use crate::model::Name;
use crate::model::matcher::HeaderKey;
use crate::model::rbac::{
    Action, Branches, Input, Matcher, Outcome, OutcomeKind, Predicate, Range,
};

/// The action that the matcher comes to. None: nothing matches.
pub(super) fn decide<'a>(
    matcher: &'a Matcher,
    subject: &Subject<'_>,
) -> Option<(&'a Name, Action)> {
    let found = match &matcher.branches {
        Branches::None => None,
        Branches::List(list) => {
            let holding = list.iter().filter(|(predicate, _)| holds(predicate, subject));
            holding.filter_map(|(_, outcome)| follow(outcome, subject)).next()
        }
        Branches::Exact(input, map) => {
            let text = read(input, subject);
            text.and_then(|text| map.get(&*text)).and_then(|outcome| follow(outcome, subject))
        }
        Branches::Prefix(input, list) => read(input, subject).and_then(|text| {
            let fitting = list.iter().filter(|(prefix, _)| text.starts_with(prefix.as_str()));
            fitting.filter_map(|(_, outcome)| follow(outcome, subject)).next()
        }),
        Branches::Ranges(input, list) => {
            read(input, subject).and_then(|text| in_ranges(&text, list, subject))
        }
    };
    found.or_else(|| matcher.otherwise.as_ref().and_then(|outcome| follow(outcome, subject)))
}

fn follow<'a>(outcome: &'a Outcome, subject: &Subject<'_>) -> Option<(&'a Name, Action)> {
    let found = match &outcome.kind {
        OutcomeKind::Act(name, action) => Some((name, *action)),
        OutcomeKind::Deeper(matcher) => decide(matcher, subject),
    };
    found.filter(|_| !outcome.keep_matching)
}

fn in_ranges<'a>(
    text: &str,
    list: &'a [Range],
    subject: &Subject<'_>,
) -> Option<(&'a Name, Action)> {
    let address: IpAddr = text.parse().ok()?;
    for range in list.iter().filter(|range| range.net.contains(&address)) {
        let found = follow(&range.outcome, subject);
        if found.is_some() || range.exclusive {
            return found;
        }
    }
    None
}

fn holds(predicate: &Predicate, subject: &Subject<'_>) -> bool {
    match predicate {
        Predicate::Text(input, matcher) => {
            read(input, subject).is_some_and(|text| matcher.matches(&text))
        }
        Predicate::And(all) => all.iter().all(|one| holds(one, subject)),
        Predicate::Or(any) => any.iter().any(|one| holds(one, subject)),
        Predicate::Not(one) => !holds(one, subject),
    }
}

/// None: it is not there.
fn read<'a>(input: &Input, subject: &'a Subject<'_>) -> Option<Cow<'a, str>> {
    let joined = |names: &[String]| (!names.is_empty()).then(|| Cow::Owned(names.join(",")));
    match input {
        Input::Header(key) => header(key, subject),
        Input::Query(name) => {
            let query = subject.request?.path.split_once('?')?.1;
            let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            pairs.find(|(key, _)| decoded(key) == *name).map(|(_, value)| decoded(value).into())
        }
        Input::DestinationIp => Some(subject.destination?.ip().to_string().into()),
        Input::DestinationPort => Some(subject.destination?.port().to_string().into()),
        Input::SourceIp => Some(subject.remote?.to_string().into()),
        Input::DirectSourceIp => Some(subject.direct?.to_string().into()),
        Input::ServerName => subject.server_name.filter(|name| !name.is_empty()).map(Cow::Borrowed),
        Input::UriSan => joined(&subject.peer?.uri_sans),
        Input::DnsSan => joined(&subject.peer?.dns_sans),
        Input::Subject => Some(subject.peer?.subject.as_str().into()),
        Input::Transport => subject.transport.map(Cow::Borrowed),
        Input::Protocols => (!subject.protocols.is_empty())
            .then(|| format!("'{}'", subject.protocols.join("','")).into()),
    }
}

fn header<'a>(key: &HeaderKey, subject: &'a Subject<'_>) -> Option<Cow<'a, str>> {
    let request = subject.request.as_ref()?;
    Some(match key {
        HeaderKey::Method => request.method.into(),
        HeaderKey::Path => request.path.into(),
        HeaderKey::Authority => request.authority().into(),
        HeaderKey::Scheme => request.scheme().into(),
        HeaderKey::Name(name) => {
            let lines = request.headers.get_all(name).iter();
            let lines: Vec<_> =
                lines.map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
            if lines.is_empty() {
                return None;
            }
            lines.join(",").into()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;

    use super::*;
    use crate::model::matcher::{RequestView, StringMatcher};
    use crate::model::rbac::Rbac;

    fn act(name: &str, action: Action) -> Outcome {
        Outcome { kind: OutcomeKind::Act(name.into(), action), keep_matching: false }
    }

    fn user(name: &str) -> Predicate {
        let key = HeaderKey::Name("x-user".parse().unwrap());
        Predicate::Text(Input::Header(key), StringMatcher::exact(name))
    }

    fn ask(matcher: &Matcher, user: Option<&str>, path: &str) -> (bool, Option<String>) {
        let mut headers = HeaderMap::new();
        if let Some(user) = user {
            headers.insert("x-user", user.parse().unwrap());
        }
        let request = RequestView {
            method: "GET",
            path,
            authority: Some("a"),
            scheme: None,
            headers: &headers,
        };
        let subject = Subject { request: Some(request), ..Subject::default() };
        let rules = Rbac { matcher: Some(Arc::new(matcher.clone())), ..Rbac::default() };
        let decision = super::super::decide(&rules, &subject);
        (decision.allowed, decision.policy.map(|name| name.to_string()))
    }

    #[test]
    fn the_first_that_holds_and_nothing_is_a_no() {
        let list = vec![
            (
                Predicate::Not(Box::new(user("root"))),
                Outcome { keep_matching: true, ..act("seen", Action::Allow) },
            ),
            (user("eve"), act("eve", Action::Deny)),
            (Predicate::Or(vec![user("root"), user("joe")]), act("known", Action::Allow)),
        ];
        let mut matcher = Matcher { branches: Branches::List(list), otherwise: None };
        assert_eq!(ask(&matcher, Some("root"), "/"), (true, Some("known".into())));
        assert_eq!(ask(&matcher, Some("eve"), "/"), (false, Some("eve".into())));
        assert_eq!(ask(&matcher, None, "/"), (false, None));
        matcher.otherwise = Some(act("rest", Action::Log));
        assert_eq!(ask(&matcher, None, "/"), (true, Some("rest".into())));
    }

    #[test]
    fn trees_by_text_and_by_the_longest_prefix() {
        let deeper = Matcher {
            branches: Branches::List(vec![(user("root"), act("root", Action::Allow))]),
            otherwise: None,
        };
        let deeper = Outcome { kind: OutcomeKind::Deeper(Arc::new(deeper)), keep_matching: false };
        let list = vec![("/admin".to_owned(), deeper), ("/".to_owned(), act("all", Action::Allow))];
        let tree = Matcher {
            branches: Branches::Prefix(Input::Header(HeaderKey::Path), list),
            otherwise: None,
        };
        assert_eq!(ask(&tree, Some("root"), "/admin/x"), (true, Some("root".into())));
        assert_eq!(ask(&tree, Some("joe"), "/x"), (true, Some("all".into())));
        let map = [("1".to_owned(), act("one", Action::Deny))].into();
        let exact = Matcher {
            branches: Branches::Exact(Input::Query("v".into()), map),
            otherwise: Some(act("other", Action::Allow)),
        };
        assert_eq!(ask(&exact, None, "/?a=2&v=1"), (false, Some("one".into())));
        assert_eq!(ask(&exact, None, "/?v=2"), (true, Some("other".into())));
    }
}
