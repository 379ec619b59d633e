//! One address in several places.

use std::path::Path;

use crate::differential::case::{Case, get};
use crate::differential::part::Part;
use crate::differential::same;

use super::{MANAGER, with_servers};

fn at(endpoint: &str, health: &str) -> String {
    format!("{{endpoint: {{address: {endpoint}}}, health_status: {health}}}")
}

fn zone(name: &str, more: &str, endpoints: &[String]) -> String {
    format!("{{locality: {{zone: {name}}}, {more} lb_endpoints: [{}]}}", endpoints.join(", "))
}

fn cluster(name: &str, more: &str, zones: &[String]) -> String {
    format!(
        "- {{name: {name}, {more} load_assignment: {{cluster_name: {name}, endpoints: [{}]}}}}\n",
        zones.join(", ")
    )
}

fn clusters(eds: &Path) -> String {
    let (well, ill) = ("HEALTHY", "UNHEALTHY");
    let two = |first: &str, second: &str| {
        [
            zone("one", "", &[at("@e0@", first)]),
            zone("two", "", &[at("@e0@", second), at("@e1@", "UNHEALTHY")]),
        ]
    };
    let mixed = mixed();
    let weighted = [
        zone("one", "load_balancing_weight: 1,", &[at("@e0@", well)]),
        zone("two", "load_balancing_weight: 99,", &[at("@e0@", well)]),
    ];
    let levels =
        [zone("one", "", &[at("@e0@", ill)]), zone("two", "priority: 1,", &[at("@e0@", well)])];
    let within = [zone("one", "", &[at("@e0@", well), at("@e0@", well), at("@e1@", well)])];
    let calm = "common_lb_config: {healthy_panic_threshold: {value: 0}},";
    let by_locality = "type: STATIC, common_lb_config: {locality_weighted_lb_config: {}},";
    [
        cluster("well-second", &format!("type: STATIC, {calm}"), &two(ill, well)),
        cluster("well-first", &format!("type: STATIC, {calm}"), &two(well, ill)),
        cluster("by-name", &format!("type: STRICT_DNS, {calm}"), &two(ill, well)),
        cluster("ring", "type: STATIC, lb_policy: RING_HASH,", &mixed),
        cluster("maglev", "type: STATIC, lb_policy: MAGLEV,", &mixed),
        cluster("weighted", by_locality, &weighted),
        cluster("levels", "type: STATIC,", &levels),
        format!(
            "- {{name: over-eds, type: EDS, lb_policy: RING_HASH, eds_cluster_config: {{eds_config: {{resource_api_version: V3, \
             path_config_source: {{path: '{}'}}}}}}}}\n",
            eds.display()
        ),
        cluster("within", "type: STATIC, lb_policy: RING_HASH,", &within),
    ]
    .concat()
}

fn mixed() -> [String; 2] {
    let all = |endpoints: &[&str]| -> Vec<String> {
        endpoints.iter().map(|endpoint| at(endpoint, "HEALTHY")).collect()
    };
    [zone("one", "", &all(&["@e0@", "@e1@", "@e2@"])), zone("two", "", &all(&["@e0@", "@e3@"]))]
}

fn to(name: &'static str, cluster: &str, times: usize) -> Case {
    let vhost = format!(
        "{{routes: [{{name: r, match: {{prefix: /}}, route: {{cluster: {cluster}, hash_policy: [{{header: {{header_name: x-key}}}}]}}}}]}}"
    );
    let expected: &'static str = format!("200 - r {cluster}").leak();
    let mut case = Case::new(name, vhost.leak());
    for index in 0..times {
        case = case.ask(get("/").header("x-key", &index.to_string()), expected);
    }
    case
}

#[tokio::test]
async fn one_address_in_several_places() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let eds = dir.path().join("eds.yaml");
    let assignment = format!(
        "version_info: '1'\nresources: [{{'@type': type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment, \
         cluster_name: over-eds, endpoints: [{}]}}]\n",
        mixed().join(", ")
    );
    std::fs::write(&eds, with_servers(&assignment))?;
    same(Part {
        cases: vec![
            to("the first place is ill", "well-second", 4),
            to("the second place is ill", "well-first", 4),
            to("places by name", "by-name", 4),
            to("a ring with an address twice", "ring", 16),
            to("maglev with an address twice", "maglev", 16),
            to("places by weight", "weighted", 4),
            to("an address at two priorities", "levels", 4),
            to("over EDS the first place counts", "over-eds", 16),
            to("an address twice in a place", "within", 12),
        ],
        manager: MANAGER,
        clusters: with_servers(&clusters(&eds)),
        metrics: &[
            "cluster.well-second.membership_total",
            "cluster.well-second.membership_healthy",
            "cluster.well-first.membership_total",
            "cluster.by-name.membership_total",
            "cluster.by-name.membership_healthy",
            "cluster.ring.membership_total",
            "cluster.maglev.membership_total",
            "cluster.weighted.membership_total",
            "cluster.levels.membership_total",
            "cluster.within.membership_total",
            "cluster.over-eds.membership_total",
        ],
        ..Part::default()
    })
    .await
}
