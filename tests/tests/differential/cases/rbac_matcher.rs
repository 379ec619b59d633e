//! RBAC by a tree of matchers, and principals and permissions that the other tables have not.

use crate::differential::case::{Case, get, post};
use crate::differential::part::Part;
use crate::differential::same;

const FILTERS: &str = "
- {name: rbac, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC}}";

#[tokio::test]
async fn rbac_by_matchers() -> anyhow::Result<()> {
    same(Part {
        cases: [lists(), trees(), rules()].into_iter().flatten().collect(),
        filters: FILTERS,

        log: "%RESPONSE_CODE_DETAILS%",
        metrics: &["http.http.rbac"],
        ..Part::default()
    })
    .await
}

/// A virtual host with this matcher; `H(x)` is a header as an input, `A(name,WHAT)` an action.
fn with(matcher: &str) -> &'static str {
    let text = expand(matcher);
    let text = format!(
        "{{routes: [{{name: r, match: {{prefix: /}}, route: {{cluster: a}}}}],
        typed_per_filter_config: {{rbac: {{
            '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute,
            rbac: {{matcher: {text}}}}}}}}}"
    );
    Box::leak(text.into_boxed_str())
}

fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['H', 'A', 'I', 'Q']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let Some((args, after)) = from[1..].strip_prefix('(').and_then(|args| args.split_once(')'))
        else {
            out.push_str(&from[..1]);
            rest = &from[1..];
            continue;
        };
        out.push_str(&match &from[..1] {
            "H" => format!("{{name: h, typed_config: {{'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: '{args}'}}}}"),
            "Q" => format!("{{name: q, typed_config: {{'@type': type.googleapis.com/envoy.type.matcher.v3.HttpRequestQueryParamMatchInput, query_param: '{args}'}}}}"),
            "I" => format!("{{name: i, typed_config: {{'@type': type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.{args}}}}}"),
            _ => {
                let (name, action) = args.split_once(',').unwrap_or((args, "ALLOW"));
                format!("{{action: {{name: {name}, typed_config: {{'@type': type.googleapis.com/envoy.config.rbac.v3.Action, name: {name}, action: {action}}}}}}}")
            }
        });
        rest = after;
    }
    out.push_str(rest);
    out
}

fn lists() -> Vec<Case> {
    let single = |input: &str, value: &str| {
        format!("{{single_predicate: {{input: {input}, value_match: {value}}}}}")
    };
    let entry =
        |predicate: &str, follows: &str| format!("{{predicate: {predicate}, on_match: {follows}}}");
    let list = |entries: &[String], more: &str| {
        format!("{{matcher_list: {{matchers: [{}]}}{more}}}", entries.join(", "))
    };
    let root = single("H(x-user)", "{exact: root}");
    let eve = single("H(x-user)", "{exact: eve}");
    let reads = single("H(:method)", "{exact: get, ignore_case: true}");
    let open = single("H(:path)", "{prefix: /open}");
    vec![
        Case::new(
            "matcher lists",
            with(&list(
                &[
                    entry(&eve, "A(eve,DENY)"),
                    entry(
                        &format!("{{and_matcher: {{predicate: [{reads}, {open}]}}}}"),
                        "A(reads,ALLOW)",
                    ),
                    entry(
                        &format!(
                            "{{or_matcher: {{predicate: [{root}, {}]}}}}",
                            single("H(x-admin)", "{contains: es}")
                        ),
                        "A(admins,ALLOW)",
                    ),
                    entry(
                        &format!("{{not_matcher: {}}}", single("H(x-log)", "{prefix: not}")),
                        "A(logs,LOG)",
                    ),
                ],
                "",
            )),
        )
        .ask(get("/open"), "200 - r a")
        .ask(get("/open").header("x-user", "eve"), "403 - r a")
        .ask(post("/open", "x").header("x-log", "not"), "403 - r a")
        .ask(post("/open", "x").header("x-log", "not").header("x-user", "root"), "200 - r a")
        .ask(post("/open", "x").header("x-log", "not").header("x-admin", "yes"), "200 - r a")
        .ask(post("/open", "x"), "200 - r a")
        .ask(
            get("/").header("x-log", "nothing").header("x-user", "a").header("x-user", "root"),
            "403 - r a",
        ),
        Case::new("matcher without a match", with(&list(&[entry(&root, "A(root,ALLOW)")], "")))
            .ask(get("/"), "403 - r a")
            .ask(get("/").header("x-user", "root"), "200 - r a"),
        Case::new(
            "matcher on no match",
            with(&list(&[entry(&eve, "A(eve,DENY)")], ", on_no_match: A(rest,ALLOW)")),
        )
        .ask(get("/"), "200 - r a")
        .ask(get("/").header("x-user", "eve"), "403 - r a"),
    ]
}

fn trees() -> Vec<Case> {
    vec![
        Case::new("matcher exact map", with("{matcher_tree: {input: H(x-user), exact_match_map: {map: {
            root: A(root,ALLOW), eve: A(eve,DENY)}}}}"))
            .ask(get("/").header("x-user", "root"), "200 - r a")
            .ask(get("/").header("x-user", "eve"), "403 - r a")
            .ask(get("/").header("x-user", "joe"), "403 - r a")
            .ask(get("/"), "403 - r a"),
        Case::new("matcher prefix map", with("{matcher_tree: {input: H(:path), prefix_match_map: {map: {
            /: A(all,ALLOW), /admin: A(admin,DENY), /admin/open: A(open,ALLOW)}}}}"))
            .ask(get("/x"), "200 - r a")
            .ask(get("/admin/x"), "403 - r a")
            .ask(get("/admin/open/x"), "200 - r a"),
        Case::new("matcher nested", with("{matcher_tree: {input: H(x-tier), exact_match_map: {map: {
            gold: {matcher: {matcher_tree: {input: H(x-user), exact_match_map: {map: {root: A(root,ALLOW)}}}, on_no_match: A(gold,DENY)}},
            tin: {matcher: {matcher_tree: {input: H(x-user), exact_match_map: {map: {root: A(root,ALLOW)}}}}}}}}}"))
            .ask(get("/").header("x-tier", "gold").header("x-user", "root"), "200 - r a")
            .ask(get("/").header("x-tier", "gold"), "403 - r a")
            .ask(get("/").header("x-tier", "tin").header("x-user", "root"), "200 - r a")
            .ask(get("/").header("x-tier", "tin"), "403 - r a"),
        Case::new("matcher network", with("{matcher_list: {matchers: [
            {predicate: {and_matcher: {predicate: [
                {single_predicate: {input: I(DirectSourceIPInput), value_match: {exact: 127.0.0.1}}},
                {single_predicate: {input: I(SourceIPInput), value_match: {prefix: '127.'}}},
                {single_predicate: {input: I(DestinationIPInput), value_match: {exact: 127.0.0.1}}},
                {single_predicate: {input: I(DestinationPortInput), value_match: {safe_regex: {google_re2: {}, regex: '[0-9]+'}}}},
                {not_matcher: {single_predicate: {input: I(ServerNameInput), value_match: {prefix: x}}}}]}},
             on_match: A(here,ALLOW)}]}}"))
            .ask(get("/"), "200 - r a"),
    ]
}

fn rules() -> Vec<Case> {
    let policies = |policies: &str| -> &'static str {
        let text = format!(
            "{{routes: [{{name: r, match: {{prefix: /}}, route: {{cluster: a}}}}],
            typed_per_filter_config: {{rbac: {{
                '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute,
                rbac: {{rules: {{policies: {{{policies}}}}}}}}}}}}}"
        );
        Box::leak(text.into_boxed_str())
    };
    vec![
        Case::new(
            "rbac addresses",
            policies(
                "here: {
            permissions: [{and_rules: {rules: [
                {destination_ip: {address_prefix: 127.0.0.0, prefix_len: 8}},
                {destination_port_range: {start: 1, end: 65535}},
                {not_rule: {destination_port: 1}},
                {not_rule: {requested_server_name: {exact: x}}}]}}],
            principals: [{and_ids: {ids: [
                {source_ip: {address_prefix: 127.0.0.1, prefix_len: 32}},
                {remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}},
                {direct_remote_ip: {address_prefix: 127.0.0.0, prefix_len: 8}},
                {not_id: {url_path: {path: {prefix: /closed}}}}]}}]}",
            ),
        )
        .ask(get("/"), "200 - r a")
        .ask(get("/closed"), "403 - r a"),
        Case::new(
            "rbac headers",
            policies(
                "some: {
            permissions: [{or_rules: {rules: [
                {header: {name: x-n, range_match: {start: 1, end: 5}}},
                {header: {name: x-n, string_match: {exact: many}}}]}}],
            principals: [{or_ids: {ids: [
                {header: {name: x-user, string_match: {prefix: a}, invert_match: true}},
                {header: {name: x-user, present_match: false}}]}}]}",
            ),
        )
        .ask(get("/").header("x-n", "1"), "200 - r a")
        .ask(get("/").header("x-n", "5"), "403 - r a")
        .ask(get("/").header("x-n", "many").header("x-user", "bob"), "200 - r a")
        .ask(get("/").header("x-n", "many").header("x-user", "amy"), "403 - r a"),
    ]
}
