//! Header mutation: headers, query and trailers, by the filter itself and by routes.

use http::Method;

use crate::differential::case::{Case, get, grpc, post, request};
use crate::differential::part::{OnPurpose, Part};
use crate::differential::same;

const FILTERS: &str = "
- name: mutate
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
    mutations:
      request_mutations:
      - append: {header: {key: x-all, value: filter}, append_action: APPEND_IF_EXISTS_OR_ADD}
      - append: {header: {key: x-who, value: filter}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
      - remove: x-gone
      response_mutations:
      - append: {header: {key: x-answer, value: filter}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
      - append: {header: {key: x-asked, value: '%REQ(X-ASK)%'}}
- name: special
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
    most_specific_header_mutations_wins: true";

const ON_PURPOSE: OnPurpose = &[(
    "mutations-of-the-query.4",
    "",
    "values are encoded again when they are written back; Envoy writes a path with a blank in it",
)];

#[tokio::test]
async fn header_mutation() -> anyhow::Result<()> {
    same(Part {
        cases: [headers(), levels(), query(), trailers(), replies()]
            .into_iter()
            .flatten()
            .collect(),
        filters: FILTERS,
        on_purpose: ON_PURPOSE,
        ..Part::default()
    })
    .await
}

fn headers() -> Vec<Case> {
    vec![
        Case::new("mutations of the filter", "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}}]}")
            .ask(get("/"), "200 - r a")
            .ask(get("/").header("x-all", "client").header("x-gone", "x"), "200 - r a")
            .ask(get("/").header("x-who", "client").header("x-ask", "this"), "200 - r a")
            .ask(get("/").does("header=x-answer:backend"), "200 - r a")
            .ask(get("/").does("status=500 header=x-asked:backend"), "500 - r a")
            .ask(grpc("hello"), "200 - r a"),
        Case::new(
            "every action of a mutation",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}, typed_per_filter_config: {mutate: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute,
                mutations: {
                    request_mutations: [
                        {append: {header: {key: x-add, value: new}, append_action: APPEND_IF_EXISTS_OR_ADD}},
                        {append: {header: {key: x-absent, value: new}, append_action: ADD_IF_ABSENT}},
                        {append: {header: {key: x-over, value: new}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}},
                        {append: {header: {key: x-there, value: new}, append_action: OVERWRITE_IF_EXISTS}},
                        {append: {header: {key: x-empty, value: ''}}},
                        {append: {header: {key: x-kept, value: ''}, keep_empty_value: true}},
                        {append: {header: {key: x-path, value: '%REQ(:PATH)%'}}},
                        {append: {header: {key: x-seen, value: '%REQ(X-ADD)%'}}},
                        {remove: x-who}],
                    response_mutations: [
                        {append: {header: {key: x-add, value: new}}},
                        {append: {header: {key: x-code, value: '%RESPONSE_CODE%'}}},
                        {append: {header: {key: x-there, value: new}, append_action: OVERWRITE_IF_EXISTS}},
                        {remove: x-answer}]}}}}]}",
        )
        .ask(get("/p?q=1"), "200 - r a")
        .ask(
            get("/")
                .header("x-add", "old")
                .header("x-absent", "old")
                .header("x-over", "old")
                .header("x-there", "old")
                .header("x-empty", "old"),
            "200 - r a",
        )
        .ask(get("/").does("header=x-add:old header=x-there:old status=404"), "404 - r a"),
        Case::new(
            "headers removed by their names",
            "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}, typed_per_filter_config: {mutate: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute,
                mutations: {
                    request_mutations: [{remove_on_match: {key_matcher: {prefix: x-secret-}}}],
                    response_mutations: [{remove_on_match: {key_matcher: {suffix: -internal}}}]}}}}]}",
        )
        .ask(
            get("/").header("x-secret-a", "1").header("X-Secret-B", "2").header("x-secret", "3"),
            "200 - r a",
        )
        .ask(get("/").does("header=x-a-internal:1 header=x-internal-b:2"), "200 - r a"),
    ]
}

const LEVELS: &str = "{routes: [
        {name: one, match: {prefix: /one}, route: {cluster: a}, typed_per_filter_config: {NAME: {
            '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute,
            mutations: {
                request_mutations: [
                    {append: {header: {key: x-who, value: route}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}},
                    {append: {header: {key: x-all, value: route}}}],
                response_mutations: [
                    {append: {header: {key: x-answer, value: route}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]}}}},
        {name: weighted, match: {prefix: /weighted}, route: {weighted_clusters: {clusters: [
            {name: a, weight: 1, typed_per_filter_config: {NAME: {
                '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute,
                mutations: {
                    request_mutations: [{append: {header: {key: x-all, value: weighted}}}],
                    response_mutations: [{append: {header: {key: x-weighted, value: 'yes'}}}]}}}}]}}},
        {name: 'off', match: {prefix: /off}, route: {cluster: a}, typed_per_filter_config: {NAME: {
            '@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}},
        {name: rest, match: {prefix: /}, route: {cluster: a}}],
    typed_per_filter_config: {NAME: {
        '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute,
        mutations: {
            request_mutations: [
                {append: {header: {key: x-who, value: host}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}},
                {append: {header: {key: x-all, value: host}}}],
            response_mutations: [
                {append: {header: {key: x-answer, value: host}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]}}}}";

fn levels() -> Vec<Case> {
    let of = |name: &'static str, filter: &str| {
        let vhost: &'static str = Box::leak(LEVELS.replace("NAME", filter).into_boxed_str());
        Case::new(name, vhost)
            .ask(get("/one"), "200 - one a")
            .ask(get("/rest"), "200 - rest a")
            .ask(get("/weighted"), "200 - weighted a")
            .ask(get("/off"), "200 - off a")
    };
    vec![of("levels of mutations", "mutate"), of("the most specific mutation", "special")]
}

fn query() -> Vec<Case> {
    vec![Case::new(
        "mutations of the query",
        "{routes: [{name: r, match: {prefix: /}, route: {cluster: a}, typed_per_filter_config: {mutate: {
            '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute,
            mutations: {query_parameter_mutations: [
                {append: {record: {key: add, value: '1'}, action: APPEND_IF_EXISTS_OR_ADD}},
                {append: {record: {key: absent, value: '1'}, action: ADD_IF_ABSENT}},
                {append: {record: {key: over, value: '%REQ(X-ASK)%'}, action: OVERWRITE_IF_EXISTS_OR_ADD}},
                {append: {record: {key: there, value: '1'}, action: OVERWRITE_IF_EXISTS}},
                {remove: gone}]}}}}]}",
    )
    .ask(get("/p"), "200 - r a")
    .ask(get("/p?gone=1").header("x-ask", "asked"), "200 - r a")
    .ask(get("/p?add=0&absent=0&over=0&there=0&gone=0&rest"), "200 - r a")
    .ask(get("/p?z=1&a=2&z=3"), "200 - r a")
    .ask(get("/p?a=%20x"), "400 - r a")]
}

fn trailers() -> Vec<Case> {
    vec![Case::new(
        "mutations of trailers",
        "{routes: [{name: r, match: {prefix: /}, route: {cluster: h2}, typed_per_filter_config: {mutate: {
            '@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute,
            mutations: {
                response_trailers_mutations: [
                    {append: {header: {key: x-end, value: 'yes'}}},
                    {remove: x-trailer}],
                request_trailers_mutations: [
                    {append: {header: {key: x-end, value: 'yes'}}}]}}}}]}",
    )
    .ask(get("/").http2().does("trailers"), "200 - r h2")
    .ask(get("/").http2(), "200 - r h2")
    .ask(post("/", "body").http2().chunked().trailer("x-sum", "1"), "200 - r h2")
    .ask(grpc("hello").does("grpc-trailer=0"), "200 - r h2")]
}

fn replies() -> Vec<Case> {
    vec![
        Case::new(
            "mutations of own answers",
            "{routes: [
                {name: direct, match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: hello}}},
                {name: redirect, match: {prefix: /redirect}, redirect: {path_redirect: /}},
                {name: down, match: {prefix: /down}, route: {cluster: refused}},
                {name: empty, match: {prefix: /empty}, route: {cluster: empty}}]}",
        )
        .ask(get("/direct").header("x-ask", "this"), "200 - direct -")
        .ask(request(Method::HEAD, "/direct"), "200 - direct -")
        .ask(get("/redirect"), "301 - redirect -")
        .ask(get("/down").header("x-ask", "this"), "503 UF down refused")
        .ask(get("/empty"), "503 UH empty empty")
        .ask(get("/nowhere").header("x-ask", "this"), "404 NR - -")
        .ask(get("/").host("nobody.test"), "404 NR - -"),
    ]
}
