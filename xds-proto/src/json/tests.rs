use prost::Message;
use prost_reflect::{FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Proto};
use serde_json::json;

use super::*;
use crate::any::{pack, unpack};
use crate::envoy::config::bootstrap::v3::Bootstrap;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::core::v3::HeaderValue;
use crate::envoy::config::listener::v3::{Listener, filter::ConfigType};
use crate::envoy::config::route::v3::RouteAction;
use crate::envoy::extensions::filters::http::jwt_authn::v3::JwtProvider;
use crate::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use crate::envoy::extensions::transport_sockets::tls::v3::Secret;

fn problems<M: Name + Default>(text: &str) -> Vec<String> {
    let error = from_text::<M>(text).err().map(|e| e.problems).unwrap_or_default();
    error.iter().map(ToString::to_string).collect()
}

#[test]
fn reads_yaml_with_both_spellings_and_well_known_types() {
    let cluster: Cluster = from_text(
        "
name: c
connectTimeout: 0.25s
per_connection_buffer_limit_bytes: 1024
type: STRICT_DNS
lbPolicy: LEAST_REQUEST
",
    )
    .expect("valid");
    let timeout = prost_types::Duration { seconds: 0, nanos: 250_000_000 };
    assert_eq!(cluster.connect_timeout, Some(timeout));
    assert_eq!(cluster.per_connection_buffer_limit_bytes, Some(1024));
    assert_eq!(cluster.lb_policy, 1);
}

#[test]
fn packs_typed_config_and_writes_it_back() {
    let text = json!({
        "name": "l",
        "filter_chains": [{"filters": [{
            "name": "tcp",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "s",
                "cluster": "c",
                "idle_timeout": "3600s",
                "max_connect_attempts": 3,
            },
        }]}],
    });
    let listener: Listener = from_text(&text.to_string()).expect("valid");
    let Some(ConfigType::TypedConfig(any)) = &listener.filter_chains[0].filters[0].config_type
    else {
        panic!("no typed_config");
    };
    let tcp: TcpProxy = unpack(any).expect("a TCP proxy");
    assert_eq!(tcp.max_connect_attempts, Some(3));
    assert_eq!(to_json(&listener), text);
    assert_eq!(from_value::<Listener>(&text), Ok(listener));
}

#[test]
fn every_problem_is_reported_with_path_and_place() {
    let text = "
static_resources:
  clusters:
  - name: 5
    connect_timout: 1s
    load_assignment:
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: a, port_value: 99999999999}}}
    type: NONSENSE
";
    let got = problems::<Bootstrap>(text);
    assert_eq!(
        got,
        [
            "line 4 column 11: static_resources.clusters[0].name: expected a string (quote it), \
             got a number",
            "line 5 column 21: static_resources.clusters[0].connect_timout: unknown field of \
             envoy.config.cluster.v3.Cluster; did you mean connect_timeout?",
            "line 9 column 73: static_resources.clusters[0].load_assignment.endpoints[0]\
             .lb_endpoints[0].endpoint.address.socket_address.port_value: expected a whole number \
             from 0 to 4294967295, got a number",
            "line 10 column 11: static_resources.clusters[0].type: expected one of STATIC, \
             STRICT_DNS, LOGICAL_DNS, EDS, ORIGINAL_DST, got \"NONSENSE\"",
        ]
    );
}

#[test]
fn paths_lead_into_packed_messages() {
    let text = r#"
filter_chains:
- filters:
  - name: tcp
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
      idle_timeout: 5
"#;
    assert_eq!(
        problems::<Listener>(text),
        ["line 7 column 21: filter_chains[0].filters[0].typed_config.idle_timeout: expected a \
             duration such as \"1.5s\", got a number"]
    );
}

#[test]
fn oneofs_and_repetitions_are_refused() {
    assert_eq!(
        problems::<RouteAction>("{cluster: a, cluster_header: b}"),
        ["line 1 column 30: cluster_header: cannot be set together with cluster"]
    );
    assert_eq!(
        problems::<Cluster>("{connect_timeout: 1s, connectTimeout: 2s}"),
        ["line 1 column 39: connect_timeout: is given twice"]
    );
}

#[test]
fn unknown_fields_can_be_listed_instead() {
    let parsed = parse::<Cluster>("{name: c, nonsense: {a: 1}}", UnknownFields::List)
        .expect("unknown fields are allowed");
    assert_eq!(parsed.message.name, "c");
    assert_eq!(parsed.unknown.len(), 1);
    assert_eq!(parsed.unknown[0].path, "nonsense");
}

#[test]
fn places_find_the_nearest_field() {
    let text = "name: c\nload_assignment:\n  cluster_name: x\n";
    let parsed = parse::<Cluster>(text, UnknownFields::Refuse).expect("valid");
    let line = |path: &str| parsed.places.find(path).map(|p| p.line);
    assert_eq!(line("load_assignment.cluster_name"), Some(3));
    assert_eq!(line("load_assignment.cluster_name.deeper[4]"), Some(3));
    assert_eq!(line("elsewhere"), None);
}

#[test]
fn a_field_named_value_is_no_trap() {
    let text = "common_lb_config: {healthy_panic_threshold: {value: 12.5}}";
    let cluster: Cluster = from_text(text).expect("valid");
    let json = json!({"common_lb_config": {"healthy_panic_threshold": {"value": 12.5}}});
    assert_eq!(to_json(&cluster), json);
    assert_eq!(from_text::<Cluster>(&json.to_string()), Ok(cluster));
}

#[test]
fn booleans_and_names_are_told_apart_by_the_field() {
    let listener: Listener =
        from_text("{name: on, bind_to_port: no, use_original_dst: true}").expect("valid");
    assert_eq!(listener.name, "on");
    assert_eq!(listener.bind_to_port, Some(false));
    assert_eq!(listener.use_original_dst, Some(true));
}

#[test]
fn structs_take_any_shape() {
    let text = "{id: n, metadata: {a: [1, null, {b: true}], c: x}}";
    let node: crate::envoy::config::core::v3::Node = from_text(text).expect("valid");
    assert_eq!(
        to_json(&node),
        json!({"id": "n", "metadata": {"a": [1.0, null, {"b": true}], "c": "x"}})
    );
}

#[test]
fn json_with_tabs_is_read_too() {
    let cluster: Cluster =
        from_text("{\n\t\"name\": \"c\",\n\t\"type\": \"EDS\"\n}").expect("valid");
    assert_eq!(cluster.name, "c");
}

#[test]
fn broken_yaml_says_where_without_quoting_the_text() {
    let error =
        from_text::<Secret>("name: x\ntls_certificate:\n  private_key: {inline_string: 'KEYKEY\n")
            .expect_err("the quote is open");
    assert_eq!(error.problems.len(), 1);
    assert!(error.problems[0].position.is_some(), "{error}");
    assert!(!error.to_string().contains("KEYKEY"), "{error}");
}

#[test]
fn an_empty_text_is_an_empty_message() {
    assert_eq!(from_text::<Cluster>(""), Ok(Cluster::default()));
    assert_eq!(problems::<Cluster>("[]"), ["line 1 column 1: expected an object, got a list"]);
}

#[test]
fn unknown_extension_types_keep_their_name() {
    let text = r#"
filter_chains:
- filters:
  - {name: x, typed_config: {"@type": type.googleapis.com/io.example.Filter, a: 1}}
"#;
    let listener: Listener = from_text(text).expect("left to the support check");
    let found = crate::support::check(&listener);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "filter_chains[0].filters[0].typed_config");
}

#[test]
fn opaque_messages_show_type_and_size_only() {
    let any = prost_types::Any { type_url: "t/io.example.X".into(), value: b"SECRET".to_vec() };
    assert_eq!(any_to_json(&any), json!({"@type": "t/io.example.X", "value": "[6 bytes]"}));
}

#[test]
fn packed_well_known_types_stand_under_value() {
    let any = pack(&prost_types::Duration { seconds: 1, nanos: 500_000_000 });
    let json = json!({"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1.500s"});
    assert_eq!(any_to_json(&any), json);
    let extension = json!({"name": "x", "typed_config": json});
    let read: crate::envoy::config::core::v3::TypedExtensionConfig =
        from_value(&extension).expect("valid");
    assert_eq!(read.typed_config, Some(any));
}

#[test]
fn secrets_are_redacted_wherever_they_stand() {
    let secret: Secret = from_text(
        "
name: s
tls_certificate:
  certificate_chain: {inline_string: CHAIN}
  private_key: {inline_string: KEYKEY}
  password: {filename: /etc/password}
",
    )
    .expect("valid");
    assert_eq!(
        to_redacted_json(&secret),
        json!({
            "name": "s",
            "tls_certificate": {
                "certificate_chain": {"inline_string": "CHAIN"},
                "private_key": {"inline_string": "[redacted]"},
                "password": {"filename": "/etc/password"},
            },
        })
    );
    let header = HeaderValue {
        key: "Authorization".into(),
        value: "Bearer KEYKEY".into(),
        ..HeaderValue::default()
    };
    assert_eq!(to_redacted_json(&header), json!({"key": "Authorization", "value": "[redacted]"}));
}

#[test]
fn generic_secrets_and_ticket_keys_are_redacted() {
    let secrets: Bootstrap = from_text(
        "
static_resources:
  secrets:
  - {name: a, generic_secret: {secret: {inline_string: KEYKEY}}}
  - {name: b, session_ticket_keys: {keys: [{inline_bytes: S0VZS0VZ}]}}
",
    )
    .expect("valid");
    let dump = to_redacted_json(&secrets);
    let text = dump.to_string();
    assert!(!text.contains("KEYKEY") && !text.contains("S0VZS0VZ"), "{text}");
    assert_eq!(dump["static_resources"]["secrets"][1]["name"], "b");
}

#[test]
fn keys_of_tokens_are_redacted() {
    let provider: JwtProvider = from_text(
        "{issuer: joe, local_jwks: {inline_string: '{\"keys\":[{\"k\":\"S0VZS0VZ\"}]}'}}",
    )
    .expect("valid");
    let dump = to_redacted_json(&provider);
    assert_eq!(dump, json!({"issuer": "joe", "local_jwks": {"inline_string": "[redacted]"}}));
}

/// A message with one field set, and what that field holds filled in the same way.
fn sample(descriptor: &MessageDescriptor, field: &FieldDescriptor, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    let kind = match field.kind() {
        Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind(),
        kind => kind,
    };
    let one = match &kind {
        Kind::Message(inner) => Proto::Message(sample_content(inner, depth)),
        Kind::Enum(e) => Proto::EnumNumber(e.values().last().expect("enums have values").number()),
        Kind::Bool => Proto::Bool(true),
        Kind::String => Proto::String("text: \"quoted\" [x]".into()),
        Kind::Bytes => Proto::Bytes(vec![0, 255, 62, 63].into()),
        Kind::Float => Proto::F32(1.5),
        Kind::Double => Proto::F64(-0.1),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Proto::I32(i32::MIN),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Proto::I64(i64::MIN),
        Kind::Uint32 | Kind::Fixed32 => Proto::U32(u32::MAX),
        Kind::Uint64 | Kind::Fixed64 => Proto::U64(u64::MAX),
    };
    let value = if field.is_list() {
        Proto::List(vec![one.clone(), one])
    } else if field.is_map() {
        Proto::Map([(MapKey::String("key.with[marks]".into()), one)].into())
    } else {
        one
    };
    message.set_field(field, value);
    message
}

fn sample_content(descriptor: &MessageDescriptor, depth: u32) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    match descriptor.full_name() {
        "google.protobuf.Any" => message
            .transcode_from(&pack(&TcpProxy { stat_prefix: "s".into(), ..TcpProxy::default() }))
            .expect("an Any"),
        "google.protobuf.Duration" => message
            .transcode_from(&prost_types::Duration { seconds: 7, nanos: 5_000_000 })
            .expect("a duration"),
        "google.protobuf.Value" => {
            message.set_field_by_name("string_value", Proto::String("v".into()));
        }
        // Empty ones have a form of their own already.
        _ if depth == 0 || descriptor.package_name() == "google.protobuf" => {}
        _ => {
            if let Some(field) = descriptor.fields().next() {
                return sample(descriptor, &field, depth - 1);
            }
        }
    }
    message
}

#[test]
fn every_field_of_every_message_survives_the_way_through_json() {
    let mut fields = 0;
    for descriptor in descriptors::pool().all_messages() {
        if descriptor.package_name() == "google.protobuf" || descriptor.is_map_entry() {
            continue;
        }
        for field in descriptor.fields() {
            let message = sample(&descriptor, &field, 2);
            let (json, wire) = (dynamic_to_json(&message), message.encode_to_vec());
            let back = read::read(&descriptor, &node::from_value(&json), UnknownFields::Refuse)
                .unwrap_or_else(|e| panic!("{} from {json}: {e}", field.full_name()));
            assert_eq!(back.message.encode_to_vec(), wire, "{} through {json}", field.full_name());
            let yaml = node::from_text(&json.to_string()).expect("JSON is YAML");
            let back = read::read(&descriptor, &yaml, UnknownFields::Refuse)
                .unwrap_or_else(|e| panic!("{} from {json}: {e}", field.full_name()));
            assert_eq!(back.message.encode_to_vec(), wire, "{} through {json}", field.full_name());
            fields += 1;
        }
    }
    assert!(fields > 2000, "only {fields} fields were tried");
}
