//! However documents change, going on from what was there gives what beginning anew gives.

use proptest::prelude::*;

use super::super::read;
use super::*;

/// Documents that speak of one another; `#` is a number from 0 to 2.
const PALETTE: [&str; 13] = [
    "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {app: a}, ports: [{port: 8#}]}\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: b}\nspec: {selector: {tier: x, app: b}, ports: [{port: 80}]}\n",
    "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: back}\nspec: {selector: {app: a}, ports: [{port: 80}]}\n",
    "apiVersion: pillion.io/v1alpha1\nkind: Workload\nmetadata: {name: w, labels: {app: a}}\nspec: {address: 10.0.0.#}\n",
    "apiVersion: pillion.io/v1alpha1\nkind: Workload\nmetadata: {name: v, labels: {app: b, tier: x}}\nspec: {address: 10.0.1.#}\n",
    "apiVersion: pillion.io/v1alpha1\nkind: Workload\nmetadata: {name: u}\nspec: {address: 10.0.2.1, service: b, weight: 1#}\n",
    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: [{group: '', kind: Service, name: a}]\n  rules: [{backendRefs: [{name: a, port: 8#}, {name: a, namespace: back, port: 80}]}]\n",
    "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g, namespace: back}\nspec:\n  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]\n  to: [{group: '', kind: Service}]\n",
    "apiVersion: pillion.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p}\nspec: {targetRefs: [{kind: Service, name: a}], timeout: {request: 1#s}}\n",
    "apiVersion: pillion.io/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: q}\nspec: {targetRefs: [{kind: Service, name: a}]}\n",
    "apiVersion: pillion.io/v1alpha1\nkind: Mesh\nmetadata: {name: m#}\nspec: {trustDomain: shop.local}\n",
    "apiVersion: pillion.io/v1alpha1\nkind: Workload\nmetadata: {name: w}\nspec: {addres: 10.0.0.1}\n",
    "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  gatewayClassName: pillion\n  listeners: [{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {x: '#'}}}}}]\n",
];

/// A file: comment lines before its documents, and these.
type Written = (usize, Vec<(usize, u8)>);

fn sheet(file: &str, (lines, documents): &Written) -> Sheet {
    let texts = documents.iter().map(|(at, number)| PALETTE[*at].replace('#', &number.to_string()));
    let text = texts.collect::<Vec<_>>().join("---\n");
    let found = read(file, &format!("{}{text}", "# words\n".repeat(*lines)));
    Sheet { documents: found.documents, problems: found.problems }
}

fn written() -> impl Strategy<Value = Written> {
    (0..2_usize, proptest::collection::vec((0..PALETTE.len(), 0..3_u8), 0..6))
}

/// A file of a service that never changes, and of a route and workloads that do.
fn quiet() -> impl Strategy<Value = Written> {
    let workloads = proptest::collection::vec((3..6_usize, 0..3_u8), 0..4);
    (0..2_usize, 0..3_u8, workloads).prop_map(|(lines, route, more)| {
        (lines, [(1, 0), (6, route)].into_iter().chain(more).collect())
    })
}

proptest! {
    #[test]
    fn going_on_gives_what_beginning_anew_gives(
        steps in proptest::collection::vec(
            (0..4_u8, proptest::option::weighted(0.9, prop_oneof![written(), quiet()])), 1..24),
    ) {
        let mut sheets = Sheets::default();
        let mut assembly = Assembly::default();
        for (file, written) in steps {
            let name = format!("{file}.yaml");
            match &written {
                Some(written) => {
                    sheets.insert(name.clone().into(), Arc::new(sheet(&name, written)));
                }
                None => drop(sheets.remove(std::path::Path::new(&name))),
            }
            assembly = assembly.update(sheets.clone());
            let anew = Assembly::new(sheets.clone());
            prop_assert_eq!(&assembly.parsed.intent, &anew.parsed.intent);
            prop_assert_eq!(&assembly.parsed.problems, &anew.parsed.problems);
            prop_assert_eq!(&assembly.parsed.places, &anew.parsed.places);
            prop_assert_eq!(&assembly.remarks, &anew.remarks);
        }
    }
}

#[test]
fn a_workload_that_comes_changes_or_goes_and_what_a_route_says_are_edits() {
    let one = |documents: &[(usize, u8)], lines: usize| -> Sheets {
        let sheet = sheet("a.yaml", &(lines, documents.to_vec()));
        Sheets::unit(PathBuf::from("a.yaml"), Arc::new(sheet))
    };
    let assembly = Assembly::new(one(&[(0, 0), (6, 0), (3, 0)], 0));
    for (documents, lines) in [
        (&[(0, 0), (6, 0), (3, 1)][..], 0),
        (&[(0, 0), (6, 0)], 0),
        (&[(0, 0), (6, 0), (3, 0), (4, 0)], 0),
        (&[(5, 0), (0, 0), (6, 0), (3, 0)], 2),
        (&[(0, 0), (6, 1), (3, 0)], 0),
    ] {
        assert!(assembly.edits(&one(documents, lines)).is_some(), "{documents:?}");
    }
    for documents in
        [&[(0, 1), (6, 0), (3, 0)][..], &[(0, 0), (3, 0)], &[(0, 0), (6, 0), (3, 0), (3, 1)]]
    {
        assert!(assembly.edits(&one(documents, 0)).is_none(), "{documents:?}");
    }
}
