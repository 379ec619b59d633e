//! Holds every message, enum and service of ours against the official xDS v3 descriptors, which
//! the PyPI package `xds-protos` carries. `pillion.*` is our own and not compared.
//!
//! Needs Python 3 with venv and, the first time, PyPI. Without them the test says so and passes,
//! unless `CI` is set.

#[path = "official/compare.rs"]
mod compare;
#[path = "official/venv.rs"]
mod venv;

use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

use compare::differences;
use venv::Venv;

/// xds-protos of the gRPC release that the other tests run against.
const PINS: &[&str] = &["xds-protos==1.85.0", "protobuf==7.36.2"];

/// What Envoy 1.40 has, which the other tests run, and the package does not have yet.
const NEWER: &[&str] = &[
    "envoy.config.route.v3.CookieMatcher: no such message",
    "envoy.config.route.v3.RouteMatch.cookies: no such field",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig.",
    "envoy.extensions.filters.http.adaptive_concurrency.v3.GradientControllerConfig.\
     ConcurrencyLimitCalculationParams.min_concurrency_limit: no such field",
    "envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit.NamedBucket",
    "envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit.named_bucket_",
    "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost.selected_host_key: no such field",
];

fn ours() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(&*pillion_xds::descriptors::file_descriptor_set())
        .expect("the embedded descriptors decode");
    // Peak EWMA is contrib in Envoy, and not in the package.
    let elsewhere =
        ["google.protobuf", "envoy.extensions.load_balancing_policies.peak_ewma.v3alpha"];
    set.file.retain(|file| {
        !file.package().starts_with("pillion.") && !elsewhere.contains(&file.package())
    });
    set
}

fn official(ours: &FileDescriptorSet) -> Result<FileDescriptorSet, String> {
    let venv = Venv::ensure("venv-xds", PINS)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/dump_descriptors.py");
    let names: Vec<String> = ours.file.iter().map(|f| f.name().to_owned()).collect();
    let bytes = venv.run(&script, &names)?;
    FileDescriptorSet::decode(bytes.as_slice()).map_err(|e| format!("damaged output: {e}"))
}

#[test]
fn our_protos_agree_with_the_official_ones() {
    let ours = ours();
    let official = match official(&ours) {
        Ok(official) => official,
        Err(missing) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped, the official descriptors cannot be had: {missing}");
            return;
        }
        Err(missing) => panic!("the official descriptors cannot be had: {missing}"),
    };
    let (mut found, counts) = differences(&ours, &official);
    found.retain(|text| !NEWER.iter().any(|start| text.starts_with(start)));
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
    assert!(
        counts.messages > 500 && counts.fields > 2000 && counts.enums > 50 && counts.services > 6,
        "too little was compared: {counts:?}"
    );
}

/// Changes one thing in a copy of our descriptors and returns the differences to the original.
fn after(file: &str, change: impl FnOnce(&mut FileDescriptorProto)) -> Vec<String> {
    let original = ours();
    let mut changed = original.clone();
    let file = changed.file.iter_mut().find(|f| f.name() == file).expect("the file is ours");
    change(file);
    differences(&changed, &original).0
}

const ADDRESS: &str = "envoy/config/core/v3/address.proto";

fn message<'a>(file: &'a mut FileDescriptorProto, name: &str) -> &'a mut DescriptorProto {
    file.message_type.iter_mut().find(|m| m.name() == name).expect("the message is ours")
}

fn field<'a>(
    file: &'a mut FileDescriptorProto,
    of: &str,
    name: &str,
) -> &'a mut FieldDescriptorProto {
    let fields = &mut message(file, of).field;
    fields.iter_mut().find(|f| f.name() == name).expect("the field is ours")
}

#[test]
fn a_changed_field_is_seen() {
    let pipe = "envoy.config.core.v3.Pipe";
    let number = after(ADDRESS, |f| field(f, "Pipe", "path").number = Some(7));
    assert_eq!(number, [format!("{pipe}.path: number is 7, officially 1")]);
    let name = after(ADDRESS, |f| field(f, "Pipe", "path").name = Some("file".into()));
    assert_eq!(name, [format!("{pipe}.file: no such field")]);
    let kind = after(ADDRESS, |f| field(f, "Pipe", "mode").set_type(Type::Uint64));
    assert_eq!(kind, [format!("{pipe}.mode: type is Uint64, officially Uint32")]);
    let label = after(ADDRESS, |f| field(f, "Pipe", "mode").set_label(Label::Repeated));
    assert_eq!(label, [format!("{pipe}.mode: label is Repeated, officially Optional")]);
    let json = after(ADDRESS, |f| field(f, "Pipe", "mode").json_name = Some("Mode".into()));
    assert_eq!(json, [format!("{pipe}.mode: JSON name is \"Mode\", officially \"mode\"")]);
}

#[test]
fn a_changed_type_name_or_oneof_is_seen() {
    let address = "envoy.config.core.v3.Address";
    let other = after(ADDRESS, |f| {
        field(f, "Address", "pipe").type_name = Some(".envoy.config.core.v3.CidrRange".into());
    });
    assert_eq!(
        other,
        [format!(
            "{address}.pipe: type name is \".envoy.config.core.v3.CidrRange\", officially \
             \".envoy.config.core.v3.Pipe\""
        )]
    );
    let loose = after(ADDRESS, |f| field(f, "Address", "pipe").oneof_index = None);
    assert_eq!(loose, [format!("{address}.pipe: oneof is None, officially Some(\"address\")")]);
}

#[test]
fn changed_enums_messages_and_methods_are_seen() {
    let values = after("envoy/config/core/v3/base.proto", |f| {
        f.enum_type[0].value[1].number = Some(9);
    });
    assert_eq!(values.len(), 1, "{values:?}");
    let renamed = after(ADDRESS, |f| message(f, "Pipe").name = Some("Tube".into()));
    assert_eq!(renamed, ["envoy.config.core.v3.Tube: no such message"]);
    let unary = after("envoy/service/discovery/v3/ads.proto", |f| {
        f.service[0].method[0].server_streaming = Some(false);
    });
    assert_eq!(
        unary,
        ["envoy.service.discovery.v3.AggregatedDiscoveryService.StreamAggregatedResources: \
          response stream is false, officially true"]
    );
}
