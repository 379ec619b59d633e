//! The rules one by one (named C1 to C14 after our checklist of client rules), then a simulated
//! server that does everything a server may do, in any order.

use super::*;

#[path = "session_simulated_tests.rs"]
mod simulated;

const NEVER: Duration = Duration::ZERO;

fn judge(_: Kind, body: &Bytes) -> Judged<String> {
    let text = String::from_utf8_lossy(body).into_owned();
    let Some((name, value)) = text.split_once('=') else {
        return Judged { name: None, result: Err(vec!["is no resource".into()]) };
    };
    let result = match value.strip_prefix("bad") {
        Some(_) => Err(vec![format!("value: {value} is bad")]),
        None => Ok(value.to_owned()),
    };
    Judged { name: Some(name.to_owned()), result }
}

fn offer(kind: Kind, name: &str, value: &str, version: &str) -> Offer {
    Offer {
        name: name.into(),
        version: version.into(),
        type_url: kind.type_url().into(),
        body: Some(Bytes::from(format!("{name}={value}"))),
        ttl: None,
    }
}

fn response(kind: Kind, nonce: &str, resources: Vec<Offer>) -> Response {
    Response {
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        version: format!("v{nonce}"),
        resources,
        ..Response::default()
    }
}

fn names(names: &[&str]) -> Vec<Name> {
    names.iter().map(|name| Name::from(*name)).collect()
}

fn add(list: &[&str]) -> Vec<(Name, Duration)> {
    list.iter().map(|name| (Name::from(*name), NEVER)).collect()
}

fn started(variant: Variant, now: Instant) -> Session {
    let mut session = Session::new(variant);
    session.want_everything(Kind::Cluster, NEVER, now);
    session.connected(now);
    session
}

#[test]
fn c1_first_request_has_names_node_and_neither_version_nor_nonce() {
    let now = Instant::now();
    for variant in [Variant::Delta, Variant::World] {
        let mut session = Session::new(variant);
        session.want_everything(Kind::Cluster, NEVER, now);
        assert_eq!(session.subscribe(Kind::Endpoints, add(&["b", "a"]), &[], now), None);
        let requests = session.connected(now);
        assert_eq!(requests.len(), 2);
        assert!(requests[0].first && !requests[1].first);
        assert!(requests.iter().all(|r| r.nonce.is_empty() && r.error.is_none()));
        let asked: Vec<_> = requests
            .iter()
            .map(|request| match &request.ask {
                Ask::World { version, names } => {
                    assert_eq!(version, "");
                    names.clone()
                }
                Ask::Delta { subscribe, .. } => subscribe.clone(),
            })
            .collect();
        assert_eq!(asked, [names(&[]), names(&["a", "b"])]);
    }
}

#[test]
fn c2_one_answer_with_the_nonce_and_the_accepted_version() {
    let now = Instant::now();
    let mut session = started(Variant::World, now);
    let good = response(Kind::Cluster, "1", vec![offer(Kind::Cluster, "a", "x", "")]);
    let reply = session.receive(good, now, judge).reply.expect("an answer");
    assert_eq!((reply.nonce.as_str(), &reply.error), ("1", &None));
    assert_eq!(reply.ask, Ask::World { version: "v1".into(), names: vec![] });

    let bad = response(Kind::Cluster, "2", vec![offer(Kind::Cluster, "a", "bad", "")]);
    let reply = session.receive(bad, now, judge).reply.expect("an answer");
    assert_eq!(reply.nonce, "2");
    assert_eq!(reply.error.as_deref(), Some("a: value: bad is bad"));
    assert_eq!(reply.ask, Ask::World { version: "v1".into(), names: vec![] });
}

#[test]
fn c3_later_world_requests_carry_the_nonce_and_delta_ones_none() {
    let now = Instant::now();
    for (variant, nonce) in [(Variant::World, "7"), (Variant::Delta, "")] {
        let mut session = started(variant, now);
        session.subscribe(Kind::Endpoints, add(&["a"]), &[], now).expect("a first request");
        session.receive(response(Kind::Endpoints, "7", vec![]), now, judge);
        let more = session.subscribe(Kind::Endpoints, add(&["b"]), &names(&["a"]), now);
        let more = more.expect("a request");
        assert_eq!(more.nonce, nonce);
        let expected = match variant {
            Variant::World => Ask::World { version: "v7".into(), names: names(&["b"]) },
            Variant::Delta => Ask::Delta {
                subscribe: names(&["b"]),
                unsubscribe: names(&["a"]),
                initial: BTreeMap::new(),
            },
        };
        assert_eq!(more.ask, expected);
    }
}

#[test]
fn c4_good_ones_beside_a_bad_one_are_applied() {
    let now = Instant::now();
    for variant in [Variant::Delta, Variant::World] {
        let mut session = started(variant, now);
        let first =
            vec![offer(Kind::Cluster, "a", "old", "1"), offer(Kind::Cluster, "b", "old", "1")];
        session.receive(response(Kind::Cluster, "1", first), now, judge);
        let second =
            vec![offer(Kind::Cluster, "a", "bad", "2"), offer(Kind::Cluster, "b", "new", "2")];
        let received = session.receive(response(Kind::Cluster, "2", second), now, judge);
        assert_eq!(received.accepted.len(), 1);
        assert_eq!(received.accepted[0].resource, "new");
        assert!(received.removed.is_empty());
        let held: Vec<_> = session.held(Kind::Cluster).map(|(n, v)| (n.to_string(), v)).collect();
        assert_eq!(held, [("a".to_owned(), "1"), ("b".to_owned(), "2")]);
    }
}

#[test]
fn c5_doubles_and_wrong_types_are_refused_unasked_ones_pass() {
    let now = Instant::now();
    let mut session = started(Variant::Delta, now);
    let mut wrong = offer(Kind::Cluster, "w", "x", "1");
    wrong.type_url = Kind::Listener.type_url().into();
    let resources = vec![
        offer(Kind::Cluster, "a", "1", "1"),
        offer(Kind::Cluster, "a", "2", "1"),
        offer(Kind::Cluster, "a", "3", "1"),
        wrong,
    ];
    let received = session.receive(response(Kind::Cluster, "1", resources), now, judge);
    assert!(received.accepted.is_empty());
    let error = received.reply.and_then(|reply| reply.error).expect("a NACK");
    assert!(error.contains("a: is in the response twice"), "{error}");
    assert!(error.contains("w: has type type.googleapis.com/envoy.config.listener"), "{error}");

    session.subscribe(Kind::Endpoints, add(&["a"]), &[], now);
    let resources =
        vec![offer(Kind::Endpoints, "z", "bad", "1"), offer(Kind::Endpoints, "a", "1", "1")];
    let received = session.receive(response(Kind::Endpoints, "2", resources), now, judge);
    assert_eq!(received.accepted.len(), 1);
    assert_eq!(received.reply.and_then(|reply| reply.error), None);

    let unknown = Response { type_url: "type.googleapis.com/x".into(), ..Default::default() };
    let received = session.receive(unknown, now, judge);
    assert!(received.kind.is_none() && received.reply.is_none());
}

#[test]
fn c5_a_wrapper_with_another_name_is_refused() {
    let now = Instant::now();
    let mut session = started(Variant::Delta, now);
    let mut liar = offer(Kind::Cluster, "a", "1", "1");
    liar.name = "b".into();
    let received = session.receive(response(Kind::Cluster, "1", vec![liar]), now, judge);
    let error = received.reply.and_then(|reply| reply.error).expect("a NACK");
    assert_eq!(error, "b: calls itself \"a\", another name than its wrapper's");
}

#[test]
fn c6_absence_deletes_clusters_and_listeners_only() {
    let now = Instant::now();
    let mut session = started(Variant::World, now);
    session.subscribe(Kind::Endpoints, add(&["a", "b"]), &[], now);
    for kind in [Kind::Cluster, Kind::Endpoints] {
        let both = vec![offer(kind, "a", "1", ""), offer(kind, "b", "1", "")];
        session.receive(response(kind, "1", both), now, judge);
        let one = vec![offer(kind, "b", "1", "")];
        let received = session.receive(response(kind, "2", one), now, judge);
        let gone = if kind == Kind::Cluster { names(&["a"]) } else { vec![] };
        assert_eq!(received.removed, gone);
    }
    // An unreadable resource may be the one that seems absent.
    let mut unreadable = offer(Kind::Cluster, "", "", "");
    unreadable.body = Some(Bytes::from_static(b"\xff"));
    let received = session.receive(response(Kind::Cluster, "3", vec![unreadable]), now, judge);
    assert!(received.removed.is_empty());
    assert!(received.reply.and_then(|reply| reply.error).is_some());
}

#[test]
fn c7_waiting_ends_after_the_timeout_unless_answered() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut session = Session::new(Variant::Delta);
    session.want_everything(Kind::Cluster, 15 * second, now);
    session.connected(now);
    let wanted = vec![("a".into(), 2 * second), ("b".into(), 2 * second), ("c".into(), NEVER)];
    session.subscribe(Kind::Routes, wanted, &[], now);
    assert_eq!(session.next_deadline(), Some(now + 2 * second));
    let answer = response(Kind::Routes, "1", vec![offer(Kind::Routes, "a", "1", "1")]);
    session.receive(answer, now, judge);
    assert!(session.due(now + second).is_empty());
    let due = session.due(now + 3 * second);
    assert_eq!(due.missing, [(Kind::Routes, "b".into())]);
    assert_eq!(session.due(now + 15 * second).silent, [Kind::Cluster]);
    assert_eq!(session.next_deadline(), None);
}

#[test]
fn c7_a_server_that_comes_and_goes_does_not_set_the_clock_back() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut session = Session::new(Variant::World);
    session.subscribe(Kind::Secret, vec![("a".into(), 3 * second)], &[], now);
    for try_at in 0..3 {
        session.connected(now + try_at * second);
        session.disconnected();
    }
    assert_eq!(session.next_deadline(), Some(now + 3 * second));
    assert_eq!(session.due(now + 3 * second).missing, [(Kind::Secret, "a".into())]);
}

#[test]
fn settings_of_filters_go_when_delta_says_so_and_other_named_ones_stay() {
    let now = Instant::now();
    for kind in [Kind::Extension, Kind::Secret] {
        let mut session = started(Variant::Delta, now);
        session.subscribe(kind, add(&["a"]), &[], now);
        session.receive(response(kind, "1", vec![offer(kind, "a", "1", "1")]), now, judge);
        let mut gone = response(kind, "2", vec![]);
        gone.removed = vec!["a".into()];
        let received = session.receive(gone, now, judge);
        let removed = if kind == Kind::Extension { names(&["a"]) } else { vec![] };
        assert_eq!((received.removed, received.absent), (removed, names(&["a"])), "{kind}");
    }
}

#[test]
fn c9_removal_of_what_is_not_held_is_ignored_and_of_endpoints_only_ends_the_wait() {
    let now = Instant::now();
    let mut session = started(Variant::Delta, now);
    session.subscribe(Kind::Endpoints, add(&["a"]), &[], now);
    let mut gone = response(Kind::Cluster, "1", vec![]);
    gone.removed = vec!["nobody".into()];
    assert!(session.receive(gone, now, judge).removed.is_empty());
    let mut gone = response(Kind::Endpoints, "2", vec![]);
    gone.removed = vec!["a".into(), "unasked".into()];
    let received = session.receive(gone, now, judge);
    assert_eq!((received.removed, received.absent), (vec![], names(&["a"])));
}

#[test]
fn c10_a_new_stream_says_what_is_held() {
    let now = Instant::now();
    for variant in [Variant::Delta, Variant::World] {
        let mut session = started(variant, now);
        let answer = response(Kind::Cluster, "1", vec![offer(Kind::Cluster, "a", "1", "h1")]);
        session.receive(answer, now, judge);
        session.disconnected();
        let requests = session.connected(now);
        assert!(requests[0].first);
        let expected = match variant {
            Variant::World => Ask::World { version: "v1".into(), names: vec![] },
            Variant::Delta => Ask::Delta {
                subscribe: vec![],
                unsubscribe: vec![],
                initial: BTreeMap::from([("a".into(), "h1".into())]),
            },
        };
        assert_eq!(requests[0].ask, expected);
        assert_eq!(requests[0].nonce, "");
    }
}

#[test]
fn c11_a_resource_expires_unless_a_heartbeat_comes() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut session = started(Variant::Delta, now);
    let mut mortal = offer(Kind::Cluster, "a", "1", "1");
    mortal.ttl = Some(3 * second);
    session.receive(response(Kind::Cluster, "1", vec![mortal.clone()]), now, judge);
    mortal.body = None;
    let beat = response(Kind::Cluster, "2", vec![mortal]);
    let received = session.receive(beat, now + 2 * second, judge);
    assert!(received.accepted.is_empty() && received.removed.is_empty());
    assert!(session.due(now + 4 * second).is_empty());
    assert_eq!(session.due(now + 5 * second).expired, [(Kind::Cluster, "a".into())]);
}

#[test]
fn c12_names_are_compared_bytewise() {
    let now = Instant::now();
    let mut session = started(Variant::World, now);
    session.subscribe(Kind::Endpoints, add(&["Shop"]), &[], now);
    let answer = response(Kind::Endpoints, "1", vec![offer(Kind::Endpoints, "shop", "1", "")]);
    assert!(session.receive(answer, now, judge).accepted.is_empty());
}

#[test]
fn c13_all_names_of_one_change_go_in_one_request() {
    let now = Instant::now();
    let mut session = started(Variant::Delta, now);
    let request = session.subscribe(Kind::Endpoints, add(&["a", "b", "c"]), &[], now);
    let Some(Request { ask: Ask::Delta { subscribe, .. }, .. }) = request else {
        panic!("expected a delta request")
    };
    assert_eq!(subscribe, names(&["a", "b", "c"]));
}

#[test]
fn c14_no_endpoints_wanted_is_said_as_an_empty_list() {
    let now = Instant::now();
    let mut session = started(Variant::World, now);
    session.subscribe(Kind::Endpoints, add(&["a"]), &[], now);
    let request = session.subscribe(Kind::Endpoints, vec![], &names(&["a"]), now);
    assert_eq!(
        request.map(|request| request.ask),
        Some(Ask::World { version: String::new(), names: vec![] })
    );
    // And on a new stream it is not asked for at all: that would mean everything.
    session.disconnected();
    assert!(session.connected(now).iter().all(|request| request.kind == Kind::Cluster));
}
