//! Ring hash and Maglev, and what is hashed.

use crate::differential::case::{Case, get};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

use super::{MANAGER, all, with_servers};

const ON_PURPOSE: OnPurpose = &[(
    "hash-by-a-cookie-that-is-made",
    "headers: only envoy {set-cookie: ",
    "its value is chance there and here",
)];

/// A policy in its typed form.
fn typed(name: &str, fields: &str) -> String {
    let (package, message) = name.split_once('/').expect("package/message");
    format!(
        "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: lb, typed_config: \
         {{'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.{package}.v3.{message}, \
         {fields}}}}}}}]}}"
    )
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn clusters() -> String {
    let weights = "load_balancing_weight: #1";
    let by_name =
        "common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}";
    let bounded = "common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 120}}";
    let key = "metadata: {filter_metadata: {envoy.lb: {hash_key: 'key-#'}}}";
    let consistent = "consistent_hashing_lb_config: {use_hostname_for_hashing: true}";
    let plain = [
        ("ring", "", "lb_policy: RING_HASH"),
        (
            "ring-small",
            "",
            "lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 3, maximum_ring_size: 19}",
        ),
        (
            "ring-cut",
            "",
            "lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 1, maximum_ring_size: 5}",
        ),
        (
            "ring-weights",
            weights,
            "lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 300}",
        ),
        (
            "ring-weights-cut",
            weights,
            "lb_policy: RING_HASH, ring_hash_lb_config: {minimum_ring_size: 300, maximum_ring_size: 301}",
        ),
        (
            "ring-murmur",
            "",
            "lb_policy: RING_HASH, ring_hash_lb_config: {hash_function: MURMUR_HASH_2}",
        ),
        ("ring-key", key, "lb_policy: RING_HASH"),
        ("maglev", "", "lb_policy: MAGLEV"),
        ("maglev-251", "", "lb_policy: MAGLEV, maglev_lb_config: {table_size: 251}"),
        ("maglev-weights", weights, "lb_policy: MAGLEV"),
        ("maglev-weights-251", weights, "lb_policy: MAGLEV, maglev_lb_config: {table_size: 251}"),
        ("maglev-key", key, "lb_policy: MAGLEV"),
    ];
    let mut text: String = plain.iter().map(|(name, each, more)| all(name, each, more)).collect();
    let named = |name: &str, more: &str| all(name, "hostname: 'host-#.test'|", more);
    text += &named("ring-name", &format!("lb_policy: RING_HASH, {by_name}"));
    text += &named("maglev-name", &format!("lb_policy: MAGLEV, {by_name}"));
    text += &all("ring-bounded", "", &format!("lb_policy: RING_HASH, {bounded}"));
    text += &all("maglev-bounded", weights, &format!("lb_policy: MAGLEV, {bounded}"));
    text += &all("ring-typed", weights, &typed("ring_hash/RingHash", "minimum_ring_size: 500"));
    text += &named("ring-typed-name", &typed("ring_hash/RingHash", consistent));
    text +=
        &named("ring-typed-old", &typed("ring_hash/RingHash", "use_hostname_for_hashing: true"));
    text += &all("maglev-typed", weights, &typed("maglev/Maglev", "table_size: 1009"));
    text += &named("maglev-typed-name", &typed("maglev/Maglev", consistent));
    for (name, policy) in [("ring-places", "RING_HASH"), ("maglev-places", "MAGLEV")] {
        text += &format!(
            "- {{name: {name}, type: STATIC, lb_policy: {policy}, common_lb_config: \
             {{locality_weighted_lb_config: {{}}}}, load_assignment: {{cluster_name: {name}, endpoints: [\
             {{locality: {{zone: a}}, load_balancing_weight: 3, lb_endpoints: [\
             {{endpoint: {{address: @e0@}}}}, {{endpoint: {{address: @e1@}}, load_balancing_weight: 4}}]}}, \
             {{locality: {{zone: b}}, load_balancing_weight: 1, lb_endpoints: [{{endpoint: {{address: @e2@}}}}, \
             {{endpoint: {{address: @e3@}}, health_status: UNHEALTHY}}, {{endpoint: {{address: @e4@}}}}]}}, \
             {{locality: {{zone: c}}, lb_endpoints: [{{endpoint: {{address: @e5@}}}}]}}]}}}}\n"
        );
    }
    for (name, policy) in [("ring-levels", "RING_HASH"), ("maglev-levels", "MAGLEV")] {
        text += &format!(
            "- {{name: {name}, type: STATIC, lb_policy: {policy}, load_assignment: {{cluster_name: {name}, endpoints: [\
             {{lb_endpoints: [{{endpoint: {{address: @e0@}}}}, {{endpoint: {{address: @e1@}}, health_status: UNHEALTHY}}]}}, \
             {{priority: 1, lb_endpoints: [{{endpoint: {{address: @e2@}}}}, {{endpoint: {{address: @e3@}}}}]}}]}}}}\n"
        );
    }
    text
}

/// So many keys to a cluster.
fn keys(cluster: &str, count: usize) -> Case {
    let name: &'static str = format!("hash to {cluster}").leak();
    let vhost: &'static str = format!(
        "{{routes: [{{name: r, match: {{prefix: /}}, route: {{cluster: {cluster}, hash_policy: \
         [{{header: {{header_name: x-key}}}}]}}}}]}}"
    )
    .leak();
    let expected: &'static str = format!("200 - r {cluster}").leak();
    let mut case = Case::new(name, vhost);
    for key in 0..count {
        case = case.ask(get("/").header("x-key", &format!("user-{key}")), expected);
    }
    case
}

/// Hash policies, to a ring of eight.
fn policies(name: &'static str, policies: &str) -> Case {
    let vhost = format!(
        "{{routes: [{{name: r, match: {{prefix: /}}, route: {{cluster: ring, hash_policy: [{policies}]}}}}]}}"
    );
    Case::new(name, vhost.leak())
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    const TO_RING: &str = "200 - r ring";
    let mut cases = vec![keys("ring", 200), keys("maglev", 200)];
    for cluster in [
        "ring-small",
        "ring-cut",
        "ring-weights",
        "ring-weights-cut",
        "ring-murmur",
        "ring-key",
        "ring-name",
        "ring-bounded",
        "ring-typed",
        "ring-typed-name",
        "ring-typed-old",
        "ring-places",
        "ring-levels",
        "maglev-251",
        "maglev-weights",
        "maglev-weights-251",
        "maglev-key",
        "maglev-name",
        "maglev-bounded",
        "maglev-typed",
        "maglev-typed-name",
        "maglev-places",
        "maglev-levels",
    ] {
        cases.push(keys(cluster, 30));
    }
    let mut rewritten = policies(
        "hash a header after a rewrite",
        "{header: {header_name: x-key, regex_rewrite: {pattern: {regex: '^/tenant/(\\w+)/.*'}, substitution: 't-\\1'}}}",
    );
    let mut query = policies("hash a query parameter", "{query_parameter: {name: k}}");
    let mut cookie = policies("hash a cookie", "{cookie: {name: s}}");
    for key in 0..12 {
        let path = format!("/tenant/{}/x{key}", key / 3);
        rewritten = rewritten.ask(get("/").header("x-key", &path), TO_RING);
        query = query.ask(get(&format!("/?a=1&k=v{key}&k=again")), TO_RING);
        cookie = cookie.ask(get("/").header("cookie", &format!("a=b; s=v{key}; c=d")), TO_RING);
    }
    cases.extend([
        rewritten,
        query,
        cookie,
        policies("hash a quoted cookie", "{cookie: {name: s, ttl: 60s}}")
            .ask(get("/").header("cookie", "s=\"quoted\""), TO_RING),
        policies("hash by the address of the client", "{connection_properties: {source_ip: true}}")
            .ask(get("/"), TO_RING)
            .ask(get("/again"), TO_RING),
        policies("hash several lines of a header", "{header: {header_name: x-key}}")
            .ask(get("/").header("x-key", "b").header("x-key", "a"), TO_RING)
            .ask(get("/").header("x-key", "a").header("x-key", "b"), TO_RING)
            .ask(get("/").header("x-key", "a").header("x-key", "b").header("x-key", "c"), TO_RING)
            .ask(get("/").header("x-key", ""), TO_RING),
        policies("hash more than one thing", "{header: {header_name: x-a}}, {header: {header_name: x-b}}")
            .ask(get("/").header("x-a", "1").header("x-b", "2"), TO_RING)
            .ask(get("/").header("x-a", "2").header("x-b", "1"), TO_RING)
            .ask(get("/").header("x-a", "same").header("x-b", "same"), TO_RING)
            .ask(get("/").header("x-b", "2"), TO_RING),
        policies("a terminal policy ends the list", "{header: {header_name: x-a}, terminal: true}, {header: {header_name: x-b}}")
            .ask(get("/").header("x-a", "1").header("x-b", "2"), TO_RING)
            .ask(get("/").header("x-a", "1").header("x-b", "3"), TO_RING)
            .ask(get("/").header("x-b", "2"), TO_RING),
        Case::new("hash by a cookie that is made", "{routes: [{name: r, match: {prefix: /}, route: {cluster: only, hash_policy: [{cookie: {
            name: s, ttl: 60s, path: /x, attributes: [{name: SameSite, value: Lax}, {name: Secure}]}}]}}]}")
            .ask(get("/"), "200 - r only")
            .ask(get("/").header("cookie", "s=here"), "200 - r only"),
        Case::new("no cookie is made where nobody hashes", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a, hash_policy: [{cookie: {name: s, ttl: 60s}}]}}]}")
            .ask(get("/"), "200 - r a"),
        Case::new("a retry goes on along the ring", "{routes: [{name: r, match: {prefix: /}, route: {cluster: ring, hash_policy: [{header: {header_name: x-key}}], retry_policy: {
            retry_on: 5xx, num_retries: 3, host_selection_retry_max_attempts: 5, retry_back_off: {base_interval: 0.001s},
            retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}}}]}")
            .ask(get("/").header("x-key", "a").does("status=500"), "500 URX r ring")
            .ask(get("/").header("x-key", "b").does("status=500"), "500 URX r ring")
            .ask(get("/").header("x-key", "c").does("status=500"), "500 URX r ring"),
        Case::new("a retry goes on in the table", "{routes: [{name: r, match: {prefix: /}, route: {cluster: maglev, hash_policy: [{header: {header_name: x-key}}], retry_policy: {
            retry_on: 5xx, num_retries: 3, host_selection_retry_max_attempts: 5, retry_back_off: {base_interval: 0.001s},
            retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]}}}]}")
            .ask(get("/").header("x-key", "a").does("status=500"), "500 URX r maglev")
            .ask(get("/").header("x-key", "b").does("status=500"), "500 URX r maglev")
            .ask(get("/").header("x-key", "c").does("status=500"), "500 URX r maglev"),
    ]);
    cases
}

#[tokio::test]
async fn rings_and_tables_are_the_same() -> anyhow::Result<()> {
    let only = "- {name: only, type: STATIC, lb_policy: RING_HASH, load_assignment: {cluster_name: only, endpoints: [{lb_endpoints: [{endpoint: {address: @e0@}}]}]}}\n";
    same(Part {
        cases: cases(),
        manager: MANAGER,
        clusters: with_servers(&(clusters() + only)),
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}
