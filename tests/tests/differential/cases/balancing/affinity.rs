//! Stateful sessions, and endpoints that headers name.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::differential::case::{Case, get};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

use super::{MANAGER, address, all, with_servers};

const FILTERS: &str = "
- name: session
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSession
    session_state:
      name: envoy.http.stateful_session.cookie
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState
        cookie: {name: where, path: /at, attributes: [{name: SameSite, value: Strict}]}
";

const ON_PURPOSE: OnPurpose = &[(
    "a-session-that-expires.0",
    "headers: only envoy {set-cookie: ",
    "it says when it expires, by the clock there and here",
)];

/// What the cookie of a session at this server says.
fn cookie(index: usize) -> String {
    let text = address(index).to_string();
    let mut place = vec![10, u8::try_from(text.len()).expect("a short address")];
    place.extend_from_slice(text.as_bytes());
    format!("where={}", STANDARD.encode(place))
}

fn header(index: usize) -> String {
    STANDARD.encode(address(index).to_string())
}

fn route(cluster: &str, session: &str) -> &'static str {
    let settings = if session.is_empty() {
        String::new()
    } else {
        format!(
            ", typed_per_filter_config: {{session: {{'@type': type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute, {session}}}}}"
        )
    };
    format!(
        "{{routes: [{{name: r, match: {{prefix: /}}, route: {{cluster: {cluster}}}{settings}}}]}}"
    )
    .leak()
}

fn clusters() -> String {
    let health = |status: &str| {
        format!(
            "[{{lb_endpoints: [{{endpoint: {{address: @e0@}}}}, {{endpoint: {{address: @e1@}}, health_status: {status}}}]}}]"
        )
    };
    let pair = |name: &str, status: &str, more: &str| {
        format!(
            "- {{name: {name}, type: STATIC, {more} load_assignment: {{cluster_name: {name}, endpoints: {}}}}}\n",
            health(status)
        )
    };
    let named = "load_balancing_policy: {policies: [{typed_extension_config: {name: lb, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost,
        override_host_sources: [{header: x-to}, {header: x-or-to}],
        fallback_policy: {policies: [{typed_extension_config: {name: lb, typed_config: {
            '@type': type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin}}}]}}}}]}";
    [
        all("eight", "", "lb_policy: ROUND_ROBIN"),
        pair("pair-sick", "UNHEALTHY", ""),
        pair("leaving", "DRAINING", ""),
        pair("sick-is-fine", "UNHEALTHY", "common_lb_config: {override_host_status: {statuses: [UNHEALTHY]}},"),
        pair("pair-degraded", "DEGRADED", ""),
        "- {name: only, type: STATIC, load_assignment: {cluster_name: only, endpoints: [{lb_endpoints: [{endpoint: {address: @e0@}}]}]}}\n".to_owned(),
        all("named", "", named),
    ]
    .concat()
}

fn cases() -> Vec<Case> {
    const STRICT: &str = "stateful_session: {strict: true, session_state: {name: envoy.http.stateful_session.cookie, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState, cookie: {name: where}}}}";
    const BY_HEADER: &str = "stateful_session: {session_state: {name: envoy.http.stateful_session.header, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState, name: x-session}}}";
    const EXPIRES: &str = "stateful_session: {session_state: {name: envoy.http.stateful_session.cookie, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState, cookie: {name: where, ttl: 100s}}}}";
    let eight = |path: &str, index: usize| get(path).header("cookie", &cookie(index));
    let mut stays = Case::new("a session stays where it is", route("eight", ""));
    for index in [3, 5, 3, 7, 0, 1] {
        stays = stays.ask(eight("/at/home", index), "200 - r eight");
    }
    let mut by_header = Case::new("a session in a header", route("eight", BY_HEADER));
    for index in [2, 4, 6] {
        by_header = by_header.ask(get("/").header("x-session", &header(index)), "200 - r eight");
    }
    vec![
        stays,
        by_header,
        Case::new("a session begins", route("only", ""))
            .ask(get("/at"), "200 - r only")
            .ask(get("/at?x=y"), "200 - r only")
            .ask(get("/attic"), "200 - r only")
            .ask(get("/"), "200 - r only")
            .ask(get("/at").does("status=503"), "503 - r only")
            .ask(eight("/at", 0), "200 - r only")
            .ask(eight("/at", 5), "200 - r only")
            .ask(get("/at").header("cookie", "where=nonsense"), "200 - r only")
            .ask(get("/at").header("cookie", "where=\"\""), "200 - r only"),
        Case::new("a session begins in a header", route("only", BY_HEADER))
            .ask(get("/"), "200 - r only")
            .ask(get("/").header("x-session", &header(0)), "200 - r only")
            .ask(get("/").header("x-session", &header(6)), "200 - r only")
            .ask(get("/").header("x-session", "!"), "200 - r only"),
        Case::new("no session on this route", route("only", "disabled: true"))
            .ask(get("/at"), "200 - r only"),
        Case::new("a strict session", route("only", STRICT))
            .ask(eight("/", 0), "200 - r only")
            .ask(eight("/", 1), "503 UH r only")
            .ask(get("/"), "200 - r only"),
        Case::new("a session that expires", route("only", EXPIRES)).ask(get("/"), "200 - r only"),
        Case::new("a session at a sick endpoint", route("pair-sick", ""))
            .ask(eight("/at", 1), "200 - r pair-sick")
            .ask(eight("/at", 0), "200 - r pair-sick"),
        Case::new("a session at an endpoint that leaves", route("leaving", ""))
            .ask(eight("/at", 1), "200 - r leaving"),
        Case::new("a session at a degraded endpoint", route("pair-degraded", ""))
            .ask(eight("/at", 1), "200 - r pair-degraded"),
        Case::new("a session where sick ones are fine", route("sick-is-fine", ""))
            .ask(eight("/at", 1), "200 - r sick-is-fine")
            .ask(eight("/at", 0), "200 - r sick-is-fine"),
        Case::new("a header names the endpoint", route("named", "disabled: true"))
            .ask(get("/").header("x-to", &address(3).to_string()), "200 - r named")
            .ask(get("/").header("x-or-to", &address(4).to_string()), "200 - r named")
            .ask(
                get("/").header("x-to", &format!("{},{}", address(6), address(2))),
                "200 - r named",
            )
            .ask(get("/").header("x-to", &format!("127.0.0.1:1, {}", address(5))), "200 - r named"),
    ]
}

#[tokio::test]
async fn sessions_stay() -> anyhow::Result<()> {
    same(Part {
        cases: cases(),
        manager: MANAGER,
        filters: FILTERS,
        clusters: with_servers(&clusters()),
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}
