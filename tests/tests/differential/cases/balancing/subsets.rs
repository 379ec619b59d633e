//! Subsets by metadata.

use crate::differential::case::{Case, get};
use crate::differential::part::Part;
use crate::differential::same;

use super::{MANAGER, with_servers};

/// Of `e0` to `e5`, so that every subset has one endpoint.
const ENDPOINTS: &str = "[
  {endpoint: {address: @e0@}, metadata: {filter_metadata: {envoy.lb: {version: v1, stage: prod, many: [x, y]}}}},
  {endpoint: {address: @e1@}, metadata: {filter_metadata: {envoy.lb: {version: v2, stage: prod, number: 1}}}},
  {endpoint: {address: @e2@}, metadata: {filter_metadata: {envoy.lb: {version: v1, stage: test, number: '1'}}}},
  {endpoint: {address: @e3@}, metadata: {filter_metadata: {envoy.lb: {version: v3, flag: true, default: yes-it-is}}}},
  {endpoint: {address: @e4@}, metadata: {filter_metadata: {envoy.lb: {version: v4}}}, health_status: UNHEALTHY},
  {endpoint: {address: @e5@}}]";

const SELECTORS: &str =
    "subset_selectors: [{keys: [stage, version]}, {keys: [number]}, {keys: [flag]}, {keys: [many]},
  {keys: [version], fallback_policy: NO_FALLBACK},
  {keys: [version, flag], fallback_policy: KEYS_SUBSET, fallback_keys_subset: [flag]},
  {keys: [version, default], fallback_policy: DEFAULT_SUBSET},
  {keys: [stage, number], fallback_policy: NO_FALLBACK}]";

fn cluster(name: &str, config: &str, more: &str) -> String {
    format!(
        "- {{name: {name}, type: STATIC, lb_subset_config: {{{config}}}, {more} common_lb_config: {{healthy_panic_threshold: {{value: 0}}}},
  load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: {ENDPOINTS}}}]}}}}\n"
    )
}

fn clusters() -> String {
    let default = "fallback_policy: DEFAULT_SUBSET, default_subset: {default: yes-it-is}";
    let typed = "{policies: [{typed_extension_config: {name: lb, typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.subset.v3.Subset";
    let child = "subset_lb_policy: {policies: [{typed_extension_config: {name: lb, typed_config: {'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin}}}]}";
    [
        cluster("none", &format!("fallback_policy: NO_FALLBACK, {SELECTORS}"), ""),
        cluster("default", &format!("{default}, {SELECTORS}"), ""),
        cluster("empty-default", &format!("fallback_policy: DEFAULT_SUBSET, default_subset: {{nobody: has-this}}, {SELECTORS}"), ""),
        cluster("panic-any", "fallback_policy: DEFAULT_SUBSET, default_subset: {nobody: has-this}, panic_mode_any: true, subset_selectors: [{keys: [version]}]", ""),
        cluster("lists", &format!("{default}, list_as_any: true, {SELECTORS}"), ""),
        cluster("single", &format!("{default}, subset_selectors: [{{keys: [version], single_host_per_subset: true}}]"), ""),
        cluster("hashed", &format!("{default}, subset_selectors: [{{keys: [stage]}}, {{keys: [version]}}]"), "lb_policy: RING_HASH,"),
        format!("- {{name: typed, type: STATIC, load_balancing_policy: {typed}, {default}, allow_redundant_keys: true, {child}, subset_selectors: [{{keys: [stage, version]}}, {{keys: [version]}}]}}}}}}]}},
  load_assignment: {{cluster_name: typed, endpoints: [{{lb_endpoints: {ENDPOINTS}}}]}}}}\n"),
    ]
    .concat()
}

/// One request to a cluster with this `metadata_match`, and what becomes of it.
fn asks(cluster: &str, wanted: &[(&str, &'static str)]) -> Case {
    let name: &'static str = format!("subsets of {cluster}").leak();
    let routes: Vec<String> = wanted
        .iter()
        .enumerate()
        .map(|(index, (fields, _))| {
            let metadata = match *fields {
                "" => String::new(),
                fields => {
                    format!(", metadata_match: {{filter_metadata: {{envoy.lb: {{{fields}}}}}}}")
                }
            };
            format!(
                "{{name: r, match: {{path: /{index}}}, route: {{cluster: {cluster}{metadata}}}}}"
            )
        })
        .collect();
    let mut case = Case::new(name, format!("{{routes: [{}]}}", routes.join(", ")).leak());
    for (index, (_, outcome)) in wanted.iter().enumerate() {
        let expected: &'static str = format!("{outcome} r {cluster}").leak();
        case = case.ask(get(&format!("/{index}")), expected);
    }
    case
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    const WELL: &str = "200 -";
    const NOBODY: &str = "503 UH";
    let mut cases = vec![
        asks("none", &[
            ("", NOBODY),
            ("version: v2", WELL),
            ("version: v3", WELL),
            ("version: v4", NOBODY),
            ("version: v9", NOBODY),
            ("stage: test, version: v1", WELL),
            ("version: v1, stage: prod", WELL),
            ("stage: prod, version: v3", NOBODY),
            ("stage: prod, version: v2, number: 1", NOBODY),
            ("number: 1", WELL),
            ("number: '1'", WELL),
            ("number: 2", NOBODY),
            ("flag: true", WELL),
            ("flag: 'true'", NOBODY),
            ("many: [x, y]", WELL),
            ("many: x", NOBODY),
            ("unknown: key", NOBODY),
            ("version: v9, flag: true", WELL),
            ("version: v9, flag: false", NOBODY),
        ]),
        asks("default", &[
            ("", WELL),
            ("version: v2", WELL),
            ("version: v9", NOBODY),
            ("stage: test, version: v9", WELL),
            ("stage: test, number: 7", NOBODY),
            ("version: v9, default: x", WELL),
            ("unknown: key", WELL),
            ("version: v9, flag: false", WELL),
        ]),
        asks("empty-default", &[("", NOBODY), ("number: 1", WELL), ("number: 3", NOBODY)]),
        asks("lists", &[("many: x", WELL), ("many: y", WELL), ("many: [x, y]", WELL), ("many: z", WELL)]),
        asks("single", &[("version: v2", WELL), ("version: v3", WELL), ("version: v9", WELL)]),
        asks("typed", &[
            ("stage: test, version: v1", WELL),
            ("version: v2, more: keys", WELL),
            ("stage: prod, version: v2, more: keys", WELL),
            ("more: keys", WELL),
            ("", WELL),
        ]),
        asks("panic-any", &[("version: v3", WELL)]),
        Case::new("subsets of weighted clusters", "{routes: [
            {name: r, match: {path: /of-entry}, route: {weighted_clusters: {clusters: [
                {name: none, weight: 1, metadata_match: {filter_metadata: {envoy.lb: {version: v2}}}}]}}},
            {name: r, match: {path: /of-both}, route: {metadata_match: {filter_metadata: {envoy.lb: {stage: test, version: v2}}}, weighted_clusters: {clusters: [
                {name: none, weight: 1, metadata_match: {filter_metadata: {envoy.lb: {version: v1}}}}]}}},
            {name: r, match: {path: /of-route}, route: {metadata_match: {filter_metadata: {envoy.lb: {number: 1}, other: {a: b}}}, weighted_clusters: {clusters: [
                {name: none, weight: 1}]}}}]}")
            .ask(get("/of-entry"), "200 - r none")
            .ask(get("/of-both"), "200 - r none")
            .ask(get("/of-route"), "200 - r none"),
        asks("a", &[("version: v1", WELL)]),
    ];
    let mut hashed = Case::new(
        "subsets that are hashed",
        "{routes: [{name: r, match: {prefix: /}, route: {cluster: hashed, metadata_match: {filter_metadata: {envoy.lb: {stage: prod}}},
            hash_policy: [{header: {header_name: x-key}}]}}]}",
    );
    for key in 0..20 {
        hashed = hashed.ask(get("/").header("x-key", &format!("k{key}")), "200 - r hashed");
    }
    cases.push(hashed);
    cases
}

#[tokio::test]
async fn subsets_are_the_same() -> anyhow::Result<()> {
    same(Part {
        cases: cases(),
        manager: MANAGER,
        clusters: with_servers(&clusters()),
        // Envoy counts how many subsets there are for each of its threads, the main one included.
        metrics: &[
            "cluster.none.lb_subsets_selected",
            "cluster.none.lb_subsets_fallback",
            "cluster.default.lb_subsets_selected",
            "cluster.default.lb_subsets_fallback",
            "cluster.empty-default.lb_subsets_selected",
            "cluster.empty-default.lb_subsets_fallback",
            "cluster.lists.lb_subsets_selected",
            "cluster.lists.lb_subsets_fallback",
            "cluster.panic-any.lb_subsets_fallback",
            "cluster.typed.lb_subsets_selected",
            "cluster.typed.lb_subsets_fallback",
        ],
        ..Part::default()
    })
    .await
}
