//! The rules of the protocol that a session must keep, one test each.

use std::sync::Arc;

use super::*;
use crate::snapshot::ResourceType::{Cluster, Endpoint, Listener, Route};

fn set(resources: &[(ResourceType, &str, &str)]) -> Arc<ResourceSet> {
    let make = |(kind, name, body): &(ResourceType, &str, &str)| {
        Resource::new(*kind, *name, body.as_bytes().to_vec())
    };
    Arc::new(resources.iter().map(make).collect())
}

fn session(dialect: Dialect, resources: &[(ResourceType, &str, &str)]) -> Session {
    let mut session = Session::new(dialect, 7);
    session.on_set(set(resources));
    session
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn sotw(kind: ResourceType, names: &[&str], nonce: &str) -> SotwRequest {
    SotwRequest {
        type_url: kind.type_url().to_owned(),
        names: strings(names),
        nonce: nonce.to_owned(),
        ..SotwRequest::default()
    }
}

fn delta(kind: ResourceType, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaRequest {
    DeltaRequest {
        type_url: kind.type_url().to_owned(),
        subscribe: strings(subscribe),
        unsubscribe: strings(unsubscribe),
        ..DeltaRequest::default()
    }
}

fn ack(response: &Response) -> DeltaRequest {
    DeltaRequest { nonce: response.nonce.clone(), ..delta(response.kind, &[], &[]) }
}

fn names(response: &Response) -> Vec<&str> {
    let mut names: Vec<&str> = response.resources.iter().map(|r| &*r.name).collect();
    names.sort_unstable();
    names
}

fn removed(response: &Response) -> Vec<&str> {
    response.removed.iter().map(|name| &**name).collect()
}

/// Everything that is owed now, with each response acknowledged at once (delta).
fn drain_delta(session: &mut Session) -> Vec<Response> {
    let mut responses = Vec::new();
    while let Some(response) = session.next_response() {
        session.on_delta(&ack(&response)).unwrap();
        responses.push(response);
    }
    responses
}

#[test]
fn s2_a_request_without_type_url_ends_the_stream() {
    let mut session = session(Dialect::Delta, &[]);
    assert_eq!(session.on_sotw(&SotwRequest::default()), Err(SessionError::MissingTypeUrl));
    assert_eq!(session.on_delta(&DeltaRequest::default()), Err(SessionError::MissingTypeUrl));
}

#[test]
fn s3_nonces_are_never_used_twice() {
    let mut session = session(Dialect::Delta, &[(Cluster, "a", "1"), (Endpoint, "a", "1")]);
    session.on_delta(&delta(Cluster, &["a"], &[])).unwrap();
    session.on_delta(&delta(Endpoint, &["a"], &[])).unwrap();
    let mut nonces = vec![session.next_response().unwrap().nonce];
    nonces.push(session.next_response().unwrap().nonce);
    let mut other = Session::new(Dialect::Delta, 8);
    other.on_delta(&delta(Cluster, &[], &[])).unwrap();
    nonces.push(other.next_response().unwrap().nonce);
    nonces.sort();
    nonces.dedup();
    assert_eq!(nonces.len(), 3);
}

#[test]
fn s4_and_s5_a_nack_is_remembered_and_the_same_content_is_not_sent_again() {
    let mut session = session(Dialect::StateOfTheWorld, &[(Cluster, "a", "bad")]);
    session.on_sotw(&sotw(Cluster, &[], "")).unwrap();
    let response = session.next_response().unwrap();
    let nack = SotwRequest {
        error: Some("a: no such field".to_owned()),
        ..sotw(Cluster, &[], &response.nonce)
    };
    let outcome = session.on_sotw(&nack).unwrap();
    assert_eq!(outcome, Outcome::Nacked(Cluster, "a: no such field".to_owned()));
    assert_eq!(session.next_response(), None);
    session.on_set(set(&[(Cluster, "a", "bad")]));
    assert_eq!(session.next_response(), None);
    let status = &session.status()[0];
    assert_eq!((status.nacks, status.error.as_deref()), (1, Some("a: no such field")));
    assert_eq!(status.acked, None);

    session.on_set(set(&[(Cluster, "a", "good")]));
    let response = session.next_response().unwrap();
    session.on_sotw(&sotw(Cluster, &[], &response.nonce)).unwrap();
    let status = &session.status()[0];
    assert_eq!((status.acked, &status.error), (Some(response.version), &None));
}

#[test]
fn s6_a_stale_nonce_gets_no_response_in_state_of_the_world() {
    let mut session =
        session(Dialect::StateOfTheWorld, &[(Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    session.on_sotw(&sotw(Endpoint, &["a"], "")).unwrap();
    session.next_response().unwrap();
    let outcome = session.on_sotw(&sotw(Endpoint, &["a", "b"], "7-99")).unwrap();
    assert_eq!(outcome, Outcome::Stale(Endpoint));
    assert_eq!(session.next_response(), None);
}

#[test]
fn s6_a_stale_nonce_does_not_void_a_delta_subscription() {
    let mut session = session(Dialect::Delta, &[(Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    session.on_delta(&delta(Endpoint, &["a"], &[])).unwrap();
    session.next_response().unwrap();
    let request = DeltaRequest { nonce: "7-99".to_owned(), ..delta(Endpoint, &["b"], &[]) };
    session.on_delta(&request).unwrap();
    assert_eq!(names(&session.next_response().unwrap()), ["b"]);
}

#[test]
fn s7_names_added_before_the_first_ack_are_delivered() {
    let mut session =
        session(Dialect::StateOfTheWorld, &[(Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    session.on_sotw(&sotw(Endpoint, &["a"], "")).unwrap();
    let first = session.next_response().unwrap();
    session.on_sotw(&sotw(Endpoint, &["a", "b"], "")).unwrap();
    let second = session.next_response().unwrap();
    assert_eq!(names(&second), ["b"]);
    session.on_sotw(&sotw(Endpoint, &["a", "b"], &first.nonce)).unwrap();
    assert_eq!(session.next_response(), None);
    session.on_sotw(&sotw(Endpoint, &["a", "b"], &second.nonce)).unwrap();
    assert_eq!(session.next_response(), None);
}

#[test]
fn s8_the_wildcard_in_state_of_the_world() {
    let mut session =
        session(Dialect::StateOfTheWorld, &[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    session.on_sotw(&sotw(Cluster, &[], "")).unwrap();
    let all = session.next_response().unwrap();
    assert_eq!(names(&all), ["a", "b"]);
    session.on_sotw(&sotw(Cluster, &["*", "a"], &all.nonce)).unwrap();
    let all_and_a = session.next_response().unwrap();
    assert_eq!(names(&all_and_a), ["a", "b"]);
    session.on_sotw(&sotw(Cluster, &["a"], &all_and_a.nonce)).unwrap();
    session.on_set(set(&[(Cluster, "a", "2"), (Cluster, "b", "2")]));
    let only_a = session.next_response().unwrap();
    assert_eq!(names(&only_a), ["a"]);
    session.on_sotw(&sotw(Cluster, &[], &only_a.nonce)).unwrap();
    session.on_set(set(&[(Cluster, "a", "3"), (Cluster, "b", "3")]));
    assert_eq!(session.next_response(), None, "an empty list after names means none");
}

#[test]
fn s8_the_wildcard_in_delta() {
    let mut session = session(Dialect::Delta, &[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    session.on_delta(&delta(Cluster, &[], &[])).unwrap();
    assert_eq!(names(&drain_delta(&mut session)[0]), ["a", "b"]);
    session.on_delta(&delta(Cluster, &["a"], &[])).unwrap();
    drain_delta(&mut session);
    session.on_set(set(&[(Cluster, "a", "2"), (Cluster, "b", "2")]));
    assert_eq!(names(&drain_delta(&mut session)[0]), ["a", "b"]);
    session.on_delta(&delta(Cluster, &[], &["*"])).unwrap();
    session.on_set(set(&[(Cluster, "a", "3"), (Cluster, "b", "3")]));
    assert_eq!(names(&drain_delta(&mut session)[0]), ["a"]);
    session.on_delta(&delta(Cluster, &[], &["a"])).unwrap();
    session.on_set(set(&[(Cluster, "a", "4"), (Cluster, "b", "4")]));
    assert_eq!(drain_delta(&mut session), []);
}

#[test]
fn s8_there_is_no_wildcard_for_endpoints() {
    let mut session = session(Dialect::Delta, &[(Endpoint, "a", "1")]);
    session.on_delta(&delta(Endpoint, &[], &[])).unwrap();
    assert_eq!(session.next_response(), None);
}

#[test]
fn s9_clusters_are_whole_and_endpoints_only_what_changed() {
    let before =
        [(Cluster, "a", "1"), (Cluster, "b", "1"), (Endpoint, "a", "1"), (Endpoint, "b", "1")];
    let mut session = session(Dialect::StateOfTheWorld, &before);
    session.on_sotw(&sotw(Cluster, &[], "")).unwrap();
    session.on_sotw(&sotw(Endpoint, &["a", "b"], "")).unwrap();
    while session.next_response().is_some() {}
    session.on_set(set(&[(Cluster, "b", "2"), (Endpoint, "a", "1"), (Endpoint, "b", "2")]));
    let clusters = session.next_response().unwrap();
    assert_eq!((clusters.kind, names(&clusters)), (Cluster, vec!["b"]));
    let endpoints = session.next_response().unwrap();
    assert_eq!((endpoints.kind, names(&endpoints)), (Endpoint, vec!["b"]));
}

#[test]
fn s10_a_name_subscribed_anew_is_sent_even_if_it_did_not_change() {
    let mut session =
        session(Dialect::StateOfTheWorld, &[(Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    session.on_sotw(&sotw(Endpoint, &["a", "b"], "")).unwrap();
    let first = session.next_response().unwrap();
    session.on_sotw(&sotw(Endpoint, &["b"], &first.nonce)).unwrap();
    assert_eq!(session.next_response(), None);
    session.on_sotw(&sotw(Endpoint, &["a", "b"], &first.nonce)).unwrap();
    assert_eq!(names(&session.next_response().unwrap()), ["a"]);
}

#[test]
fn s11_unknown_names_are_remembered() {
    let mut delta_stream = session(Dialect::Delta, &[]);
    delta_stream.on_delta(&delta(Route, &["r"], &[])).unwrap();
    let response = delta_stream.next_response().unwrap();
    assert_eq!((removed(&response), response.resources.len()), (vec!["r"], 0));
    let mut sotw_stream = session(Dialect::StateOfTheWorld, &[]);
    sotw_stream.on_sotw(&sotw(Route, &["r"], "")).unwrap();
    assert_eq!(sotw_stream.next_response(), None);
    for stream in [&mut delta_stream, &mut sotw_stream] {
        stream.on_set(set(&[(Route, "r", "1")]));
        assert_eq!(names(&stream.next_response().unwrap()), ["r"]);
    }
}

#[test]
fn s13_the_first_wildcard_is_answered_even_if_there_is_nothing() {
    let mut session = session(Dialect::Delta, &[]);
    session.on_delta(&delta(Cluster, &[], &[])).unwrap();
    let response = session.next_response().unwrap();
    assert!(response.resources.is_empty() && response.removed.is_empty());
    session.on_delta(&ack(&response)).unwrap();
    assert_eq!(session.next_response(), None);
}

#[test]
fn s14_after_a_reconnect_only_differences_are_sent() {
    let now = [(Endpoint, "same", "1"), (Endpoint, "changed", "2")];
    let mut session = session(Dialect::Delta, &now);
    let version = |body: &str| Version::of(body.as_bytes()).to_string();
    let request = DeltaRequest {
        initial_versions: vec![
            ("same".to_owned(), version("1")),
            ("changed".to_owned(), version("1")),
            ("vanished".to_owned(), "no version of ours".to_owned()),
        ],
        ..delta(Endpoint, &["same", "changed", "vanished"], &[])
    };
    session.on_delta(&request).unwrap();
    let response = session.next_response().unwrap();
    assert_eq!((names(&response), removed(&response)), (vec!["changed"], vec!["vanished"]));
}

#[test]
fn s14_a_wildcard_reconnect_removes_what_vanished() {
    let mut session = session(Dialect::Delta, &[(Cluster, "a", "1")]);
    let version = Version::of(b"1").to_string();
    let request = DeltaRequest {
        initial_versions: vec![("a".to_owned(), version.clone()), ("b".to_owned(), version)],
        ..delta(Cluster, &[], &[])
    };
    session.on_delta(&request).unwrap();
    let response = session.next_response().unwrap();
    assert_eq!((names(&response), removed(&response)), (vec![], vec!["b"]));
}

#[test]
fn s14_a_named_state_of_the_world_reconnect_removes_what_vanished() {
    let mut session = session(Dialect::StateOfTheWorld, &[]);
    let request = SotwRequest { version: "old".to_owned(), ..sotw(Listener, &["l"], "") };
    session.on_sotw(&request).unwrap();
    assert_eq!(session.next_response().unwrap().resources, []);
}

#[test]
fn s15_unsubscribing_a_name_under_a_wildcard_is_answered() {
    let mut session = session(Dialect::Delta, &[(Cluster, "a", "1")]);
    session.on_delta(&delta(Cluster, &["*", "a", "gone"], &[])).unwrap();
    drain_delta(&mut session);
    session.on_delta(&delta(Cluster, &[], &["a", "gone", "phantom"])).unwrap();
    let response = session.next_response().unwrap();
    assert_eq!((names(&response), removed(&response)), (vec!["a"], vec!["gone"]));
}

#[test]
fn s16_a_repeated_delta_subscription_is_sent_again() {
    let mut session = session(Dialect::Delta, &[(Endpoint, "a", "1")]);
    session.on_delta(&delta(Endpoint, &["a"], &[])).unwrap();
    drain_delta(&mut session);
    session.on_delta(&delta(Endpoint, &["a"], &[])).unwrap();
    assert_eq!(names(&session.next_response().unwrap()), ["a"]);
}

/// A client with route `r` over cluster `old`, everything acknowledged.
fn shop_client() -> Session {
    let mut session = session(
        Dialect::Delta,
        &[(Cluster, "old", "1"), (Endpoint, "old", "1"), (Listener, "l", "1"), (Route, "r", "old")],
    );
    session.on_delta(&delta(Cluster, &[], &[])).unwrap();
    session.on_delta(&delta(Listener, &[], &[])).unwrap();
    session.on_delta(&delta(Endpoint, &["old"], &[])).unwrap();
    session.on_delta(&delta(Route, &["r"], &[])).unwrap();
    drain_delta(&mut session);
    session
}

fn moved() -> Arc<ResourceSet> {
    set(&[(Cluster, "new", "1"), (Endpoint, "new", "1"), (Listener, "l", "1"), (Route, "r", "new")])
}

#[test]
fn s17_make_before_break() {
    let mut session = shop_client();
    session.on_set(moved());
    let clusters = session.next_response().unwrap();
    assert_eq!((names(&clusters), removed(&clusters)), (vec!["new"], vec![]));
    assert_eq!(session.next_response(), None, "the route waits for the cluster");
    session.on_delta(&ack(&clusters)).unwrap();
    assert_eq!(session.next_response(), None, "the route waits for the endpoints");
    assert!(session.is_withholding());
    session.on_delta(&delta(Endpoint, &["new"], &[])).unwrap();
    let endpoints = session.next_response().unwrap();
    assert_eq!((endpoints.kind, names(&endpoints)), (Endpoint, vec!["new"]));
    session.on_delta(&ack(&endpoints)).unwrap();
    let routes = session.next_response().unwrap();
    assert_eq!((routes.kind, names(&routes)), (Route, vec!["r"]));
    assert_eq!(session.next_response(), None, "the old cluster waits for the route");
    session.on_delta(&ack(&routes)).unwrap();
    let clusters = session.next_response().unwrap();
    assert_eq!((clusters.kind, removed(&clusters)), (Cluster, vec!["old"]));
    let endpoints = session.next_response().unwrap();
    assert_eq!((endpoints.kind, removed(&endpoints)), (Endpoint, vec!["old"]));
    assert_eq!(session.next_response(), None);
}

#[test]
fn s17_a_refused_route_keeps_the_old_cluster() {
    let mut session = shop_client();
    session.on_set(moved());
    session.on_delta(&delta(Endpoint, &["new"], &[])).unwrap();
    let mut refused = false;
    while let Some(response) = session.next_response() {
        assert!(!removed(&response).contains(&"old"), "{response:?}");
        let mut answer = ack(&response);
        if response.kind == Route {
            answer.error = Some("no".to_owned());
            refused = true;
        }
        session.on_delta(&answer).unwrap();
    }
    assert!(refused);
    session.on_set(set(&[(Cluster, "new", "1"), (Endpoint, "new", "1"), (Route, "r", "fixed")]));
    let gone: Vec<String> =
        drain_delta(&mut session).iter().flat_map(removed).map(str::to_owned).collect();
    assert!(gone.contains(&"old".to_owned()), "{gone:?}");
}

#[test]
fn s17_make_before_break_in_state_of_the_world() {
    let mut session = Session::new(Dialect::StateOfTheWorld, 1);
    session.on_set(set(&[(Cluster, "old", "1"), (Listener, "l", "1"), (Route, "r", "old")]));
    let answer = |session: &mut Session, response: &Response| {
        let wanted: &[&str] = if response.kind == Route { &["r"] } else { &[] };
        session.on_sotw(&sotw(response.kind, wanted, &response.nonce)).unwrap();
    };
    session.on_sotw(&sotw(Cluster, &[], "")).unwrap();
    session.on_sotw(&sotw(Listener, &[], "")).unwrap();
    session.on_sotw(&sotw(Route, &["r"], "")).unwrap();
    while let Some(response) = session.next_response() {
        answer(&mut session, &response);
    }
    session.on_set(set(&[(Cluster, "new", "1"), (Listener, "l", "1"), (Route, "r", "new")]));
    let mut seen = Vec::new();
    while let Some(response) = session.next_response() {
        seen.push((response.kind, names(&response).join(",")));
        answer(&mut session, &response);
    }
    let expected = [(Cluster, "new,old"), (Route, "r"), (Cluster, "new")];
    assert_eq!(seen, expected.map(|(kind, names)| (kind, names.to_owned())));
}

#[test]
fn s17_a_client_that_never_asks_for_endpoints_is_waited_for_in_vain() {
    let mut session = shop_client();
    session.on_set(moved());
    drain_delta(&mut session);
    assert!(session.is_withholding() && !session.may_have_next());
    session.stop_waiting();
    assert!(session.may_have_next());
    assert_eq!(session.next_response().unwrap().kind, Route);
}

#[test]
fn s18_endpoints_follow_a_changed_cluster_even_if_they_did_not_change() {
    for dialect in [Dialect::Delta, Dialect::StateOfTheWorld] {
        let mut session = session(dialect, &[(Cluster, "a", "1"), (Endpoint, "a", "1")]);
        let (clusters, endpoints) = if dialect == Dialect::Delta {
            session.on_delta(&delta(Cluster, &[], &[])).unwrap();
            session.on_delta(&delta(Endpoint, &["a"], &[])).unwrap();
            (session.next_response().unwrap(), session.next_response().unwrap())
        } else {
            session.on_sotw(&sotw(Cluster, &[], "")).unwrap();
            session.on_sotw(&sotw(Endpoint, &["a"], "")).unwrap();
            (session.next_response().unwrap(), session.next_response().unwrap())
        };
        assert_eq!((clusters.kind, endpoints.kind), (Cluster, Endpoint));
        assert_eq!(session.next_response(), None);
        session.on_set(set(&[(Cluster, "a", "2"), (Endpoint, "a", "1")]));
        assert_eq!(session.next_response().unwrap().kind, Cluster);
        let again = session.next_response().unwrap();
        assert_eq!((again.kind, names(&again)), (Endpoint, vec!["a"]), "{dialect:?}");
        assert_eq!(session.next_response(), None);
    }
}

#[test]
fn s19_the_version_of_equal_content_is_equal_on_every_stream() {
    let version = |stream: u64| {
        let mut session = Session::new(Dialect::Delta, stream);
        session.on_set(set(&[(Cluster, "a", "1"), (Cluster, "b", "1")]));
        session.on_delta(&delta(Cluster, &[], &[])).unwrap();
        session.next_response().unwrap().version
    };
    assert_eq!(version(1), version(2));
}

#[test]
fn s22_other_types_leave_the_stream_alone() {
    let mut session = session(Dialect::StateOfTheWorld, &[]);
    let request =
        SotwRequest { type_url: "type.googleapis.com/x.Y".to_owned(), ..SotwRequest::default() };
    assert_eq!(session.on_sotw(&request), Ok(Outcome::UnknownType));
    assert_eq!(session.next_response(), None);
}

#[test]
fn a_client_that_answers_nothing_is_sent_a_bounded_number_of_responses() {
    let mut session = session(Dialect::Delta, &[(Endpoint, "a", "0")]);
    session.on_delta(&delta(Endpoint, &["a"], &[])).unwrap();
    let mut responses = Vec::new();
    for round in 1..100 {
        responses.extend(session.next_response());
        session.on_set(set(&[(Endpoint, "a", &round.to_string())]));
    }
    assert_eq!(responses.len(), MAX_OUTSTANDING);
    session.on_delta(&ack(responses.last().unwrap())).unwrap();
    let newest = session.next_response().unwrap();
    assert_eq!(newest.resources[0].body, "99", "what lies between is skipped");
}

#[test]
fn too_many_names_end_the_stream() {
    let mut session = session(Dialect::Delta, &[]);
    let request = DeltaRequest {
        subscribe: (0..=MAX_NAMES).map(|n| n.to_string()).collect(),
        ..delta(Endpoint, &[], &[])
    };
    assert_eq!(session.on_delta(&request), Err(SessionError::TooManyNames("eds")));
}
