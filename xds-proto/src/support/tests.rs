use prost::Message;
use prost_types::Any;

use super::*;
use crate::any::pack;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::listener::v3::Listener;
use crate::json;

fn paths(findings: &[Finding]) -> Vec<(&str, bool)> {
    findings.iter().map(|f| (f.path.as_str(), f.optional)).collect()
}

fn listener(http_filters: &str, hcm: &str) -> Listener {
    json::from_text(&format!(
        r#"
name: in
address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}
connection_balance_config: {{exact_balance: {{}}}}
filter_chains:
- filters:
  - name: first
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
  - name: http
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      {hcm}
      http_filters: [{http_filters}]
"#
    ))
    .expect("the test's own YAML is valid")
}

const ROUTER: &str = r#"{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}"#;

#[test]
fn a_clean_listener_has_no_findings() {
    assert_eq!(check(&listener(ROUTER, "stream_idle_timeout: 5s")), []);
}

#[test]
fn a_refused_field_inside_packed_filters_is_found_by_path() {
    let found = check(&listener(ROUTER, "scoped_routes: {name: x}"));
    assert_eq!(paths(&found), [("filter_chains[0].filters[1].typed_config.scoped_routes", false)]);
    assert!(found[0].refuses());
    assert_eq!(
        found[0].to_string(),
        "filter_chains[0].filters[1].typed_config.scoped_routes: is not supported"
    );
}

#[test]
fn an_unknown_filter_is_found_and_is_optional_excuses_it() {
    let at = "filter_chains[0].filters[1].typed_config.http_filters[0].typed_config";
    let filter = |optional: bool| {
        format!(
            r#"{{name: x, is_optional: {optional}, typed_config: {{"@type": type.googleapis.com/io.example.Filter}}}}, {ROUTER}"#
        )
    };
    assert_eq!(paths(&check(&listener(&filter(false), ""))), [(at, false)]);
    let excused = check(&listener(&filter(true), ""));
    assert_eq!(paths(&excused), [(at, true)]);
    assert!(!excused[0].refuses());
}

#[test]
fn a_refused_extension_is_told_from_an_unknown_one() {
    let filter = format!(
        r#"{{name: x, typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor}}}}, {ROUTER}"#
    );
    let found = check(&listener(&filter, ""));
    assert_eq!(found.len(), 1);
    assert!(matches!(&found[0].kind, FindingKind::RefusedExtension { .. }));
    assert_eq!(
        found[0].to_string(),
        "filter_chains[0].filters[1].typed_config.http_filters[0].typed_config: extension \
         envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor is not supported"
    );
}

#[test]
fn an_optional_supported_filter_is_still_refused_for_its_fields() {
    let filter = r#"{name: router, is_optional: true, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, upstream_http_filters: [{name: x}]}}"#;
    let found = check(&listener(filter, ""));
    assert_eq!(
        paths(&found),
        [(
            "filter_chains[0].filters[1].typed_config.http_filters[0].typed_config.upstream_http_filters",
            false
        )]
    );
}

#[test]
fn metadata_of_an_unknown_type_is_no_extension() {
    let endpoint: crate::envoy::config::endpoint::v3::LbEndpoint = json::from_text(
        r#"{metadata: {typed_filter_metadata: {x: {"@type": type.googleapis.com/io.example.M}}}}"#,
    )
    .expect("the test's own YAML is valid");
    assert_eq!(check(&endpoint), []);
}

#[test]
fn map_keys_stand_in_quotes() {
    // The map itself is applied; what is in it is not known.
    let cluster: Cluster = json::from_text(
        r#"
name: c
typed_extension_protocol_options:
  my.options: {"@type": type.googleapis.com/io.example.Options}
"#,
    )
    .expect("the test's own YAML is valid");
    assert_eq!(
        paths(&check(&cluster)),
        [("typed_extension_protocol_options[\"my.options\"]", false)]
    );
}

fn cluster(policies: &str) -> Cluster {
    json::from_text(&format!("name: c\nload_balancing_policy: {{policies: [{policies}]}}\n"))
        .expect("the test's own YAML is valid")
}

const UNKNOWN_POLICY: &str = r#"{typed_extension_config: {name: x, typed_config: {"@type": type.googleapis.com/io.example.Lb}}}"#;
const ROUND_ROBIN: &str = r#"{typed_extension_config: {name: y, typed_config: {"@type": type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin}}}"#;

#[test]
fn the_first_supported_policy_excuses_the_others() {
    let at = "load_balancing_policy.policies[0].typed_extension_config.typed_config";
    let found = check(&cluster(&format!("{UNKNOWN_POLICY}, {ROUND_ROBIN}")));
    assert_eq!(paths(&found), [(at, true)]);
    assert_eq!(paths(&check(&cluster(UNKNOWN_POLICY))), [(at, false)]);
}

#[test]
fn fields_that_we_do_not_know_are_listed_from_bytes() {
    let mut bytes = listener(ROUTER, "").encode_to_vec();
    // Field 500, varint 1.
    bytes.extend([0xa0, 0x1f, 0x01]);
    assert_eq!(unknown_fields(crate::type_url::LISTENER, &bytes), ["<field 500>"]);
    let resource = Any { type_url: crate::type_url::LISTENER.into(), value: bytes };
    let found = check_any(&resource);
    assert_eq!(paths(&found), [("<field 500>", false)]);
    assert!(!found[0].refuses());
}

#[test]
fn unknown_fields_inside_packed_messages_have_full_paths() {
    let mut message = listener(ROUTER, "");
    let filter = &mut message.filter_chains[0].filters[0];
    let mut packed = pack(&crate::envoy::extensions::filters::network::rbac::v3::Rbac::default());
    packed.value.extend([0xa0, 0x1f, 0x01]);
    filter.config_type =
        Some(crate::envoy::config::listener::v3::filter::ConfigType::TypedConfig(packed));
    assert_eq!(
        unknown_fields(crate::type_url::LISTENER, &message.encode_to_vec()),
        ["filter_chains[0].filters[0].typed_config.<field 500>"]
    );
}

#[test]
fn damaged_bytes_are_a_finding() {
    let resource = Any { type_url: crate::type_url::LISTENER.into(), value: vec![0xff] };
    let found = check_any(&resource);
    assert!(matches!(found[0].kind, FindingKind::MalformedExtension { .. }));
}

#[test]
fn the_table_lists_marks() {
    let table = table();
    let listener = table
        .iter()
        .find(|m| m.name == "envoy.config.listener.v3.Listener")
        .expect("listeners are supported");
    assert_eq!(listener.file, "envoy/config/listener/v3/listener.proto");
    let mark = |name: &str| listener.fields.iter().find(|f| f.name == name).map(|f| f.mark);
    assert_eq!(mark("address"), Some(Mark::Applied));
    assert_eq!(mark("udp_listener_config"), Some(Mark::Refused));
    assert_eq!(mark("connection_balance_config"), Some(Mark::Harmless));
    let routes = table.iter().find(|m| m.name == "envoy.config.route.v3.Route").expect("routes");
    let per_filter = routes.fields.iter().find(|f| f.name == "typed_per_filter_config");
    assert_eq!(per_filter.map(|f| f.type_name.as_str()), Some("map<string, google.protobuf.Any>"));
    assert!(table.iter().all(|m| !m.name.starts_with("pillion.")));
}

/// The tables and the descriptors are made of the same files; so they agree, also about what is no message.
#[test]
fn bytes_are_taken_for_a_message_where_the_descriptors_take_them_for_one() {
    let listener = listener("", "stat_prefix: x").encode_to_vec();
    let of = schema::Message::by_name("envoy.config.listener.v3.Listener").unwrap();
    let descriptor = descriptors::of::<Listener>();
    let mut refused = 0;
    let mut hold = |bytes: &[u8]| {
        let read = prost_reflect::DynamicMessage::decode(descriptor.clone(), bytes);
        assert_eq!(wire::check(of, bytes).is_ok(), read.is_ok(), "{bytes:?}");
        refused += usize::from(read.is_err());
    };
    hold(&listener);
    for end in 0..listener.len() {
        hold(&listener[..end]);
    }
    let mut bytes = listener.clone();
    for at in 0..bytes.len() {
        let before = bytes[at];
        for change in [1, 2, 4, 8, 0x55, 0x80, 0xff] {
            bytes[at] = before ^ change;
            hold(&bytes);
        }
        bytes[at] = before;
    }
    assert!(refused > 100, "{refused}");
    for message in descriptors::pool().all_messages() {
        let known = schema::Message::by_name(message.full_name()).unwrap();
        let fields: Vec<_> = message.fields().map(|f| (f.number(), f.name().to_owned())).collect();
        let told: Vec<_> = known.fields().map(|f| (f.number(), f.name().to_owned())).collect();
        assert_eq!(told.len(), fields.len());
        assert!(fields.iter().all(|one| told.contains(one)), "{}", message.full_name());
    }
}
