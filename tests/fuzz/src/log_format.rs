//! Access log formats, and the command operators of header values.

use pillion_proxy::model::format::Template;
use pillion_proxy::telemetry::format::{self, Record};

pub(super) fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(template) = Template::parse(text) else { return };
    let mut line = String::new();
    format::write(&template, &Record::default(), &mut line);
    if let Some(literal) = template.as_literal() {
        assert_eq!(literal, line, "a text without operators is written as it is");
    }
}
