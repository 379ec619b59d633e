//! Aggregates of clusters, zones, transport sockets by metadata.

use crate::differential::case::{Case, get};
use crate::differential::part::Part;
use crate::differential::same;

use super::{MANAGER, with_servers};

/// This proxy is in zone `here`; half of its kind is.
const BOOTSTRAP: &str = "
node: {id: proxy-1, cluster: us, locality: {zone: here}}
cluster_manager: {local_cluster_name: us}
";

const AGGREGATE: &str =
    "lb_policy: CLUSTER_PROVIDED, cluster_type: {name: envoy.clusters.aggregate, typed_config: {
    '@type': type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig";

const TLS: &str = "{name: envoy.transport_sockets.tls, typed_config: {
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: localhost}}";
const PLAIN: &str = "{name: envoy.transport_sockets.raw_buffer, typed_config: {
    '@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}";

fn one(name: &str, endpoint: &str, health: &str) -> String {
    format!(
        "- {{name: {name}, type: STATIC, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [\
         {{endpoint: {{address: {endpoint}}}, health_status: {health}}}]}}]}}}}\n"
    )
}

fn aggregate(name: &str, of: &str) -> String {
    format!("- {{name: {name}, {AGGREGATE}, clusters: [{of}]}}}}}}\n")
}

/// A zone with these endpoints.
fn zone(name: &str, endpoints: &[&str]) -> String {
    let endpoints: Vec<String> =
        endpoints.iter().map(|at| format!("{{endpoint: {{address: {at}}}}}")).collect();
    format!("{{locality: {{zone: {name}}}, lb_endpoints: [{}]}}", endpoints.join(", "))
}

fn zones(name: &str, more: &str, zones: &[String]) -> String {
    format!(
        "- {{name: {name}, type: STATIC, {more} load_assignment: {{cluster_name: {name}, endpoints: [{}]}}}}\n",
        zones.join(", ")
    )
}

/// An endpoint with metadata, and one socket for those that ask for TLS.
fn socket(name: &str, endpoint: &str, metadata: &str, matches: &str) -> String {
    format!(
        "- {{name: {name}, type: STATIC, transport_socket_matches: {matches}, load_assignment: {{cluster_name: {name}, endpoints: [\
         {{lb_endpoints: [{{endpoint: {{address: {endpoint}}}{metadata}}}]}}]}}}}\n"
    )
}

fn clusters() -> String {
    let two = "common_lb_config: {zone_aware_lb_config: {min_cluster_size: 2}},";
    let off = "common_lb_config: {zone_aware_lb_config: {min_cluster_size: 2, routing_enabled: {value: 0}}}, lb_policy: RING_HASH,";
    let forced = "load_balancing_policy: {policies: [{typed_extension_config: {name: lb, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin,
        locality_lb_config: {zone_aware_lb_config: {min_cluster_size: 2, force_local_zone: {min_size: 1}}}}}}]},";
    let wants = ", metadata: {filter_metadata: {envoy.transport_socket_match: {tls: true}}}";
    let by_flag = format!("[{{name: s, match: {{tls: true}}, transport_socket: {TLS}}}]");
    let first = format!(
        "[{{name: p, match: {{tls: no}}, transport_socket: {PLAIN}}}, {{name: s, match: {{}}, transport_socket: {TLS}}}]"
    );
    [
        one("well", "@e0@", "HEALTHY"),
        one("spare", "@e1@", "HEALTHY"),
        one("ill", "@e2@", "UNHEALTHY"),
        aggregate("in-order", "well, spare"),
        aggregate("next", "ill, spare"),
        aggregate("unknown-first", "no-such-cluster, spare"),
        aggregate("nested", "next, well"),
        aggregate("nobody", "no-such-cluster"),
        zones("us", "", &[zone("here", &["@e6@"]), zone("there", &["@e7@"])]),
        zones("near", two, &[zone("there", &["@e1@"]), zone("here", &["@e0@"])]),
        zones("far", off, &[zone("there", &["@e1@"]), zone("here", &["@e0@"])]),
        zones(
            "forced",
            forced,
            &[zone("there", &["@e1@", "@e2@", "@e3@"]), zone("here", &["@e0@"])],
        ),
        socket("asks-for-tls", "@tls@", wants, &by_flag),
        socket("plain-here", "@e0@", "", &by_flag),
        socket("tls-by-rest", "@tls@", "", &first),
        socket("wrong-socket", "@e0@", wants, &by_flag),
    ]
    .concat()
}

fn to(name: &'static str, cluster: &str, times: usize, outcome: &str) -> Case {
    let vhost = format!(
        "{{routes: [{{name: r, match: {{prefix: /}}, route: {{cluster: {cluster}, hash_policy: [{{header: {{header_name: x-key}}}}]}}}}]}}"
    );
    let expected: &'static str = format!("{outcome} r {cluster}").leak();
    let mut case = Case::new(name, vhost.leak());
    for index in 0..times {
        case = case.ask(get("/").header("x-key", &index.to_string()), expected);
    }
    case
}

fn cases() -> Vec<Case> {
    vec![
        to("an aggregate in order", "in-order", 5, "200 -"),
        to("an aggregate whose first cluster is ill", "next", 5, "200 -"),
        to("an aggregate of what does not exist and what does", "unknown-first", 3, "200 -"),
        to("an aggregate of an aggregate", "nested", 3, "200 -"),
        to("an aggregate of nobody", "nobody", 1, "503 UH"),
        to("the own zone takes all that it can", "near", 8, "200 -"),
        to("zones that do not matter", "far", 8, "200 -"),
        to("the own zone is forced", "forced", 8, "200 -"),
        to("an endpoint asks for TLS", "asks-for-tls", 2, "200 -"),
        to("an endpoint does not ask for TLS", "plain-here", 2, "200 -"),
        to("the last socket is for the rest", "tls-by-rest", 2, "200 -"),
        to("TLS to an endpoint that has none", "wrong-socket", 1, "503 UF"),
    ]
}

#[tokio::test]
async fn places_are_the_same() -> anyhow::Result<()> {
    same(Part {
        cases: cases(),
        manager: MANAGER,
        clusters: with_servers(&clusters()),
        bootstrap: BOOTSTRAP,
        on_purpose: &[(
            "an-aggregate-of-an-aggregate",
            "headers",
            "an aggregate in an aggregate stands for its clusters; Envoy finds no hosts of its own in \
             it, and passes over it",
        )],
        ..Part::default()
    })
    .await
}
