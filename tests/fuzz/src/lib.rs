//! Fuzz targets: one a file, each a function that takes any bytes and must not panic. Besides, each
//! says what must hold of the result.
//!
//! libFuzzer calls them through `fuzz_targets/`; the tests call them with every file of `seeds/` and
//! with small changes of each.

mod bootstrap;
mod headers;
mod jwt;
mod log_format;
mod path;
mod proxy_protocol;
mod resource;
mod routes;
mod sniff;
mod trace_context;

/// A target.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder in `seeds/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("bootstrap", bootstrap::target),
    ("headers", headers::target),
    ("jwt", jwt::target),
    ("log_format", log_format::target),
    ("path", path::target),
    ("proxy_protocol", proxy_protocol::target),
    ("resource", resource::target),
    ("routes", routes::target),
    ("sniff", sniff::target),
    ("trace_context", trace_context::target),
];

/// Calls the target of that name.
///
/// # Panics
/// When the target finds something wrong, or when there is none of that name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a known target");
    target(data);
}
