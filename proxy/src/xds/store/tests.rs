use pillion_xds::envoy::config as pb;
use pillion_xds::envoy::extensions::transport_sockets::tls::v3::Secret as SecretMessage;
use pillion_xds::json;
use proptest::prelude::*;
use prost::{Message, Name as _};
use serde_json::{Value, json};

use super::*;
use crate::xds::translate;

const ADS: &str = r#"{"ads": {}, "resource_api_version": "V3"}"#;
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

fn made<M: Message + prost::Name + Default>(kind: Kind, value: &Value) -> Resource {
    let body = json::from_value::<M>(value).unwrap().encode_to_vec();
    translate::resource(kind, &body).1.unwrap()
}

fn ads() -> Value {
    serde_json::from_str(ADS).unwrap()
}

fn cluster(name: &str, endpoints: &str, secret: Option<&str>) -> Resource {
    let mut value = json!({
        "name": name, "type": "EDS",
        "eds_cluster_config": {"eds_config": ads(), "service_name": endpoints},
    });
    if let Some(secret) = secret {
        value["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": format!("{TLS}.UpstreamTlsContext"),
            "common_tls_context": {
                "validation_context_sds_secret_config": {"name": secret, "sds_config": ads()},
            },
        }});
    }
    made::<pb::cluster::v3::Cluster>(Kind::Cluster, &value)
}

fn endpoints(name: &str) -> Resource {
    made::<pb::endpoint::v3::ClusterLoadAssignment>(Kind::Endpoints, &json!({"cluster_name": name}))
}

fn listener(name: &str, routes: &str) -> Resource {
    let manager = json!({
        "@type": MANAGER,
        "stat_prefix": name,
        "rds": {"route_config_name": routes, "config_source": ads()},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}],
    });
    let value = json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    });
    made::<pb::listener::v3::Listener>(Kind::Listener, &value)
}

fn routes(name: &str) -> Resource {
    made::<pb::route::v3::RouteConfiguration>(Kind::Routes, &json!({"name": name}))
}

fn secret(name: &str) -> Resource {
    assert_eq!(SecretMessage::NAME, "Secret");
    let value =
        json!({"name": name, "validation_context": {"trusted_ca": {"filename": "/ca.pem"}}});
    made::<SecretMessage>(Kind::Secret, &value)
}

/// What may happen to a store.
#[derive(Debug, Clone)]
enum Step {
    Accept(Resource),
    Remove(Kind, Name),
    GiveUp(Kind, Name),
    Assemble,
}

fn step() -> impl Strategy<Value = Step> {
    let name = prop::sample::select(vec!["a", "b", "c"]);
    let other = prop::sample::select(vec!["a", "b"]);
    let kind = prop::sample::select(vec![
        Kind::Cluster,
        Kind::Listener,
        Kind::Endpoints,
        Kind::Routes,
        Kind::Secret,
    ]);
    let resource =
        (kind.clone(), name.clone(), other, any::<bool>()).prop_map(|(kind, name, other, tls)| {
            match kind {
                Kind::Cluster => cluster(name, other, tls.then_some(other)),
                Kind::Listener => listener(name, other),
                Kind::Endpoints => endpoints(name),
                Kind::Routes => routes(name),
                _ => secret(name),
            }
        });
    prop_oneof![
        5 => resource.prop_map(Step::Accept),
        1 => (kind.clone(), name.clone()).prop_map(|(kind, name)| Step::Remove(kind, name.into())),
        1 => (kind, name).prop_map(|(kind, name)| Step::GiveUp(kind, name.into())),
        3 => Just(Step::Assemble),
    ]
}

fn apply(store: &mut Store, step: Step) {
    match step {
        Step::Accept(resource) => store.accept(resource),
        Step::Remove(kind, name) => store.remove(kind, &name),
        Step::GiveUp(kind, name) => store.give_up(kind, name),
        Step::Assemble => {
            // As the client has it.
            if store.take_renamed() {
                store.forget_unwanted();
            }
        }
    }
}

/// Everything that there is has to be looked at.
fn touch_all(store: &mut Store) {
    let published = &store.published;
    for (kind, names) in [
        (Kind::Cluster, store.clusters.keys().chain(published.clusters.keys()).collect::<Vec<_>>()),
        (Kind::Listener, store.listeners.keys().chain(published.listeners.keys()).collect()),
        (Kind::Routes, store.routes.keys().chain(published.routes.keys()).collect()),
        (Kind::Secret, store.secrets.keys().chain(published.secrets.keys()).collect()),
    ] {
        for name in names {
            store.touched.add(kind, name);
        }
    }
    store.renamed = true;
}

fn addresses<T>(map: &Map<Arc<T>>) -> BTreeMap<Name, usize> {
    map.iter().map(|(name, value)| (Arc::clone(name), Arc::as_ptr(value).addr())).collect()
}

fn sorted(made: Option<(Snapshot, Changes)>) -> Option<Changes> {
    made.map(|(_, mut changes)| {
        changes.listeners.sort();
        changes.routes.sort();
        changes.clusters.sort();
        changes.assignments.sort();
        changes.secrets.sort();
        changes
    })
}

#[test]
fn a_cluster_that_serves_while_its_successor_warms_is_told_of_its_endpoints() {
    let mut store = Store::default();
    store.give_up(Kind::Endpoints, "b".into());
    store.accept(cluster("c", "b", None));
    assert_eq!(store.assemble().unwrap().1.clusters, ["c".into()]);
    store.accept(cluster("c", "a", None));
    assert!(store.assemble().is_none());
    store.accept(endpoints("b"));
    assert_eq!(store.assemble().unwrap().1.assignments, ["c".into()]);
    store.accept(endpoints("a"));
    assert_eq!(store.assemble().unwrap().1.clusters, ["c".into()]);
    // Nothing of the old one is left.
    store.accept(endpoints("b"));
    assert!(store.assemble().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn looking_at_what_was_touched_finds_what_looking_at_everything_does(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let (mut quick, mut thorough) = (Store::default(), Store::default());
        for step in steps {
            apply(&mut quick, step.clone());
            touch_all(&mut thorough);
            apply(&mut thorough, step.clone());
            if !matches!(step, Step::Assemble) {
                continue;
            }
            touch_all(&mut thorough);
            let (one, other) = (sorted(quick.assemble()), sorted(thorough.assemble()));
            prop_assert_eq!(one, other);
            let (one, other) = (&quick.published, &thorough.published);
            prop_assert_eq!(addresses(&one.clusters), addresses(&other.clusters));
            prop_assert_eq!(addresses(&one.listeners), addresses(&other.listeners));
            prop_assert_eq!(addresses(&one.routes), addresses(&other.routes));
            prop_assert_eq!(addresses(&one.secrets), addresses(&other.secrets));
            prop_assert_eq!(one.assignments.keys().count(), other.assignments.keys().count());
            prop_assert_eq!(quick.warming(), thorough.warming());
        }
    }
}

#[test]
fn a_cluster_waits_for_its_endpoints_and_a_listener_for_its_routes() {
    let mut store = Store::default();
    store.accept(cluster("a", "e", Some("ca")));
    store.accept(listener("l", "r"));
    assert!(store.assemble().is_none());
    let waiting = [(Kind::Cluster, Name::from("a")), (Kind::Listener, Name::from("l"))];
    assert_eq!(store.warming(), waiting);
    store.accept(endpoints("e"));
    assert!(store.assemble().is_none());
    store.give_up(Kind::Secret, "ca".into());
    let (snapshot, changes) = store.assemble().unwrap();
    assert!(snapshot.clusters.contains_key("a") && snapshot.assignments.contains_key("a"));
    assert_eq!(changes.clusters, changes.assignments);
    store.accept(routes("r"));
    let (_, changes) = store.assemble().unwrap();
    assert_eq!((changes.listeners.len(), changes.routes.len()), (1, 1));
    assert_eq!(store.warming(), []);
    assert!(store.take_renamed());
    store.accept(endpoints("e"));
    let (_, changes) = store.assemble().unwrap();
    assert_eq!(changes.assignments, [Name::from("a")]);
    assert!(changes.clusters.is_empty() && !store.take_renamed());
}
