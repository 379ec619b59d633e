//! Samplers, as they are written in YAML.

use std::time::Duration;

use pillion_xds::envoy::config::core::v3::TypedExtensionConfig;
use pillion_xds::json;

use super::*;
use crate::xds::translate::at::Sink;

type Made = (Sampler, Option<Tail>);

fn read(yaml: &str) -> Result<Made, Vec<(String, String)>> {
    let config: TypedExtensionConfig = json::from_text(yaml).unwrap();
    let sink = Sink::default();
    let made = both_ends(&At::root(&sink).field("sampler"), &config);
    let refused = sink.into_inner().into_iter().map(|one| (one.field, one.reason)).collect();
    made.ok_or(refused)
}

fn tail(fields: &str) -> String {
    format!(
        "{{name: t, typed_config: {{'@type': type.googleapis.com/pillion.trace.v1.TailSampler{fields}}}}}"
    )
}

#[test]
fn a_tail_sampler_has_a_head_and_a_limit() {
    let want =
        Tail { slower_than: Some(Duration::from_millis(500)), failed: true, per_second: 100 };
    let made = read(&tail(", slower_than: 0.5s, failed: true"));
    assert_eq!(made, Ok((Sampler::Manager, Some(want))));
    let head = ", failed: true, per_second: 7, head: {name: h, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3.AlwaysOnSamplerConfig}}";
    let want = Tail { slower_than: None, failed: true, per_second: 7 };
    assert_eq!(read(&tail(head)), Ok((Sampler::AlwaysOn, Some(want))));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let nested = format!(", failed: true, head: {}", tail(", failed: true"));
    for (fields, field, reason) in [
        ("", "sampler.typed_config", "keeps nothing: expected slower_than or failed"),
        (", slower_than: 0s", "sampler.typed_config.slower_than", "expected more than 0 s"),
        (", failed: true, per_second: 0", "sampler.typed_config.per_second", "expected at least 1"),
        (
            nested.as_str(),
            "sampler.typed_config.head.typed_config",
            "a tail sampler stands outermost only",
        ),
    ] {
        let refused = read(&tail(fields)).unwrap_err();
        assert_eq!(refused, [(field.to_owned(), reason.to_owned())], "{fields}");
    }
}
