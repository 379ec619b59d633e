use super::*;
use crate::model::matcher::StringMatcher;
use crate::telemetry::stats::{Bounds, Which};

fn registry() -> Registry {
    let registry = Registry::new();
    let cluster = registry.scope("cluster", Some(("envoy_cluster_name", "a\"b\\".into())));
    cluster.counter("upstream_rq_total").add(3);
    cluster.counter("upstream_cx_total");
    cluster.gauge("upstream_cx_active").set(-2);
    cluster.histogram("upstream_rq_time").record(7.0);
    let other = registry.scope("cluster", Some(("envoy_cluster_name", "z".into())));
    other.counter("upstream_rq_total").inc();
    other.histogram("upstream_rq_time");
    registry.scope("server", None).gauge("live-now").set(1);
    registry
}

#[test]
fn flat_text_ends_with_the_histograms() {
    let text = flat(&registry(), &Filter::default());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "cluster.a\"b\\.upstream_cx_active: -2");
    assert!(lines.contains(&"cluster.z.upstream_rq_total: 1"));
    let percentiles = lines[lines.len() - 2];
    assert!(
        percentiles.starts_with("cluster.a\"b\\.upstream_rq_time: P0(nan,5) P25(nan,6.25) "),
        "{percentiles}"
    );
    assert!(percentiles.ends_with(" P99.9(nan,9.995) P100(nan,10)"), "{percentiles}");
    assert_eq!(lines[lines.len() - 1], "cluster.z.upstream_rq_time: No recorded values");
}

#[test]
fn filters_by_name_kind_and_use() {
    let registry = registry();
    let names = |filter: Filter| -> Vec<String> {
        let mut names = Vec::new();
        filter.visit(&registry, |sample| names.push(sample.name.to_owned()));
        names
    };
    let name = Some(Regex::new("^cluster\\.z").expect("it is a regex"));
    let kind = Some(Kind::Counter);
    assert_eq!(
        names(Filter { name: name.clone(), kind, ..Filter::default() }),
        ["cluster.z.upstream_rq_total"]
    );
    assert_eq!(
        names(Filter { name, used_only: true, ..Filter::default() }),
        ["cluster.z.upstream_rq_total"]
    );
}

#[test]
fn json_has_values_and_quantiles() {
    let json: Json = serde_json::from_str(&json(&registry(), &Filter::default())).expect("JSON");
    let stats = json["stats"].as_array().expect("a list");
    assert!(stats.contains(&json!({"name": "server.live-now", "value": 1})));
    let histograms = &stats.last().expect("histograms come last")["histograms"];
    assert_eq!(histograms["supported_quantiles"][7], 99.5);
    let computed = &histograms["computed_quantiles"];
    assert_eq!(computed[0]["values"][1], json!({"interval": null, "cumulative": 6.25}));
    assert_eq!(computed[1]["values"][1]["cumulative"], Json::Null);
}

#[test]
fn prometheus_groups_families_and_escapes() {
    let text = prometheus(&registry(), &Filter::default());
    assert_eq!(text.matches("# TYPE envoy_cluster_upstream_rq_total counter\n").count(), 1);
    assert!(text.contains(
        "# TYPE envoy_cluster_upstream_rq_total counter\n\
         envoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\\\"b\\\\\"} 3\n\
         envoy_cluster_upstream_rq_total{envoy_cluster_name=\"z\"} 1\n"
    ));
    assert!(text.contains("# TYPE envoy_server_live_now gauge\nenvoy_server_live_now{} 1\n"));
    let own = "envoy_cluster_name=\"a\\\"b\\\\\"";
    for line in [
        format!("envoy_cluster_upstream_rq_time_bucket{{{own},le=\"5\"}} 0\n"),
        format!("envoy_cluster_upstream_rq_time_bucket{{{own},le=\"10\"}} 1\n"),
        format!("envoy_cluster_upstream_rq_time_bucket{{{own},le=\"+Inf\"}} 1\n"),
        format!("envoy_cluster_upstream_rq_time_sum{{{own}}} 7\n"),
        format!("envoy_cluster_upstream_rq_time_count{{{own}}} 1\n"),
    ] {
        assert!(text.contains(&line), "{line} is missing in\n{text}");
    }
}

#[test]
fn prometheus_never_types_a_name_twice_nor_repeats_a_sample() {
    let registry = Registry::new();
    let scope = registry.scope("a", None);
    scope.counter("b.c").inc();
    scope.counter("b_c").inc();
    scope.gauge("b-c").set(5);
    scope.histogram("b/c");
    let text = prometheus(&registry, &Filter::default());
    let start = "# TYPE envoy_a_b_c counter\nenvoy_a_b_c{} 1\n\
         # TYPE envoy_a_b_c_gauge gauge\nenvoy_a_b_c_gauge{} 5\n\
         # TYPE envoy_a_b_c_histogram histogram\n";
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn labels_are_made_as_the_settings_say() {
    let tag = |name: &str, regex: &str| Tag::Found {
        name: name.into(),
        regex: Regex::new(regex).expect("it is a regex"),
    };
    let settings = Settings {
        tags: vec![
            Tag::Fixed { name: "mesh".into(), value: "shop".into() },
            tag("tier", "^cluster\\.[^.]*(-(gold|silver))\\."),
        ],
        ..Settings::default()
    };
    let count = |settings: Settings| {
        let registry = Registry::with(settings);
        let label = ("envoy_cluster_name", "a-gold".into());
        let scope = registry.scope("cluster", Some(label));
        scope.counter("upstream_rq_total").inc();
        prometheus(&registry, &Filter::default())
    };
    assert_eq!(
        count(settings),
        "# TYPE envoy_cluster_upstream_rq_total counter\n\
         envoy_cluster_upstream_rq_total{envoy_cluster_name=\"a-gold\",mesh=\"shop\",tier=\"gold\"} 1\n"
    );
    assert_eq!(
        count(Settings { no_default_tags: true, ..Settings::default() }),
        "# TYPE envoy_cluster_a_gold_upstream_rq_total counter\n\
         envoy_cluster_a_gold_upstream_rq_total{} 1\n"
    );
}

#[test]
fn what_the_settings_leave_out_is_not_there() {
    let which = |which| {
        let registry = Registry::with(Settings { which: Some(which), ..Settings::default() });
        let scope = registry.scope("a", None);
        let _kept = (scope.counter("b"), scope.counter("c"));
        flat(&registry, &Filter::default())
    };
    let just = || vec![StringMatcher::exact("a.b")];
    assert_eq!(which(Which::Only(just())), "a.b: 0\n");
    assert_eq!(which(Which::AllBut(just())), "a.c: 0\n");
    assert_eq!(which(Which::None), "");
}

#[test]
fn histograms_can_be_shown_as_buckets() {
    let registry = Registry::with(Settings {
        buckets: vec![(StringMatcher::exact("a.took"), Bounds::new(vec![1.0, 2.0]))],
        ..Settings::default()
    });
    let took = registry.scope("a", None).histogram("took");
    [0.5, 1.5, 1.6].into_iter().for_each(|value| took.record(value));
    let of = |buckets| flat(&registry, &Filter { buckets, ..Filter::default() });
    assert_eq!(of(Buckets::Cumulative), "a.took: B1(0,1) B2(0,3)\n");
    assert_eq!(of(Buckets::Disjoint), "a.took: B1(0,1) B2(0,2)\n");
    let summary = prometheus(&registry, &Filter { buckets: Buckets::Summary, ..Filter::default() });
    assert!(summary.contains("# TYPE envoy_a_took summary\n"), "{summary}");
    assert!(summary.contains("envoy_a_took{quantile=\"0.5\"} "), "{summary}");
}
