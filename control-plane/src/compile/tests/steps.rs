//! However the world changes, going on from what was there gives what beginning anew gives.

use proptest::prelude::*;

use super::*;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// A workload is written so, or no more.
    Write(u8, Option<Look>),
    /// A sidecar registers a workload so, or it goes.
    Register(u8, Option<Look>),
    /// Something else changes.
    Mesh(bool),
    Routed(bool),
    /// A client asks, or all do.
    Ask(usize),
}

/// What a workload looks like.
#[derive(Debug, Clone)]
struct Look {
    service: usize,
    last: u8,
    ready: bool,
    sidecar: bool,
    account: bool,
}

const OF: [&str; 4] = ["catalog", "cart", "db", "nobody"];

const MORE: &str = "
apiVersion: v1
kind: Service
metadata: {name: front, annotations: {pillion.io/depends-on: \"catalog\", pillion.io/service-accounts: \"default\"}}
spec: {selector: {tier: one}, ports: [{port: 80}]}
";

const ROUTED: &str = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: \"\", kind: Service, name: catalog}]
  rules: [{backendRefs: [{name: catalog, port: 80, weight: 9}, {name: catalog-v2, port: 80}]}]
";

fn look() -> impl Strategy<Value = Look> {
    let of = (0..OF.len(), 1..4_u8, any::<bool>(), any::<bool>(), any::<bool>());
    of.prop_map(|(service, last, ready, sidecar, account)| Look {
        service,
        last,
        ready,
        sidecar,
        account,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..5_u8;
    let some = || proptest::option::weighted(0.7, look());
    prop_oneof![
        4 => (number.clone(), some()).prop_map(|(number, look)| Step::Write(number, look)),
        4 => (number, some()).prop_map(|(number, look)| Step::Register(number, look)),
        1 => any::<bool>().prop_map(Step::Mesh),
        1 => any::<bool>().prop_map(Step::Routed),
        3 => (0..6_usize).prop_map(Step::Ask),
    ]
}

fn workload(number: u8, look: &Look) -> Workload {
    let mut labels = vec![("version", "v2")];
    if look.last == 1 {
        labels.push(("tier", "one"));
    }
    let mut made = registered(OF[look.service], look.last, &labels);
    made.name = Name::new("default", format!("w{number}"));
    made.ready = look.ready;
    made.sidecar_port = look.sidecar.then_some(15006);
    if look.account {
        "default".clone_into(&mut made.service_account);
    }
    made
}

fn nodes() -> Vec<Node> {
    let envoy = with_sidecar(sidecar("cart"), |sidecar| {
        sidecar.certificates = Certificates::None;
    });
    vec![sidecar("cart"), sidecar("front"), envoy, grpc_client(None), grpc_client(Some("p"))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn going_on_gives_what_beginning_anew_gives(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let text = |strict: bool, routed: bool| {
            let mesh = mesh(if strict { "Strict" } else { "Permissive" });
            intent(&format!("{mesh}{MORE}{}", if routed { ROUTED } else { "" }))
        };
        let (mut strict, mut routed) = (false, false);
        let mut wanted = text(strict, routed);
        let mut known = Map::new();
        let mut world = World::new(Arc::clone(&wanted), known.clone());
        for step in steps {
            match &step {
                Step::Write(number, look) => {
                    let name = Name::new("default", format!("w{number}"));
                    let workloads = &mut Arc::make_mut(&mut wanted).workloads;
                    match look {
                        Some(look) => drop(workloads.insert(name, Arc::new(workload(*number, look)))),
                        None => drop(workloads.remove(&name)),
                    }
                }
                Step::Register(number, look) => {
                    let name = Name::new("default", format!("w{number}"));
                    match look {
                        Some(look) => drop(known.insert(name, Arc::new(workload(*number, look)))),
                        None => drop(known.remove(&name)),
                    }
                }
                Step::Mesh(now) => strict = *now,
                Step::Routed(now) => routed = *now,
                Step::Ask(which) => {
                    let all = nodes();
                    for node in all.get(*which).map_or(&all[..], std::slice::from_ref) {
                        let _ = world.for_node(node);
                    }
                    continue;
                }
            }
            let written = wanted.workloads.clone();
            match step {
                Step::Mesh(_) => {
                    wanted = text(strict, routed);
                    Arc::make_mut(&mut wanted).workloads = written;
                }
                Step::Routed(_) => {
                    let routes = text(strict, routed).routes.clone();
                    Arc::make_mut(&mut wanted).routes = routes;
                }
                _ => {}
            }
            world = world.update(Arc::clone(&wanted), known.clone());
            let anew = World::new(Arc::clone(&wanted), known.clone());
            prop_assert_eq!(world.problems(), anew.problems());
            for service in wanted.services.keys() {
                prop_assert_eq!(world.members(service), anew.members(service));
            }
        }
        let anew = World::new(wanted, known);
        for node in nodes() {
            prop_assert_eq!(world.for_node(&node), anew.for_node(&node), "{}", node.id);
        }
    }
}
