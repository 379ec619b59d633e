//! Header mutations.

use http::HeaderName;
use pillion_xds::envoy::config::core::v3 as core;

use super::at::At;
use crate::model::Name;
use crate::model::filter::Overrides;
use crate::model::format::Template;
use crate::model::headers::{HeaderAdd, HeaderAppend, HeaderOps};

/// Additions and removals, with the places that they are configured at.
pub(super) fn ops(
    at: &At<'_>,
    (add_field, add): (&str, &[core::HeaderValueOption]),
    (remove_field, remove): (&str, &[String]),
) -> HeaderOps {
    HeaderOps {
        remove: at.field(remove_field).each(remove, |at, name| {
            let name = name_of(at, name)?;
            at.expect(name != "host", "`host` cannot be removed")?;
            Some(name)
        }),
        add: at.field(add_field).each(add, addition),
    }
}

/// Whether changes of answers tell something about the request; `filters` may add some.
pub(super) fn tell_request(response: &HeaderOps, filters: &Overrides) -> bool {
    response.tells_request() || filters.iter().any(|(_, said)| said.tells_request())
}

/// A header name; `:authority` means `host`, no other pseudo-header can be changed.
pub(super) fn name_of(at: &At<'_>, name: &str) -> Option<HeaderName> {
    if name.eq_ignore_ascii_case(":authority") {
        return Some(http::header::HOST);
    }
    match name.parse() {
        Ok(name) => Some(name),
        Err(_) => at.refuse(format!("`{name}` is no header name that can be changed")),
    }
}

/// An attribute of a cookie: what `Set-Cookie` may carry (RFC 6265 section 4.1.1).
pub(super) fn cookie_attribute(at: &At<'_>, name: &str, value: &str) -> Option<(Name, Name)> {
    let text = |text: &str| text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b';');
    at.expect(!name.is_empty() && text(name) && text(value), "is no cookie attribute")?;
    Some((name.into(), value.into()))
}

/// One addition.
pub(super) fn addition(at: &At<'_>, option: &core::HeaderValueOption) -> Option<HeaderAdd> {
    use core::header_value_option::HeaderAppendAction as Action;
    let header_at = at.field("header");
    let header = header_at.required(option.header.as_ref())?;
    let raw = String::from_utf8(header.raw_value.clone());
    let text = match raw {
        Ok(raw) if header.value.is_empty() => raw,
        Ok(_) => header.value.clone(),
        Err(_) => return header_at.field("raw_value").refuse("is not UTF-8"),
    };
    let value = match Template::parse(&text) {
        Ok(value) => value.omitting(),
        Err(error) => return header_at.field("value").refuse(error),
    };
    let action = match (option.append, option.append_action()) {
        // The deprecated switch wins where it is set.
        (Some(true), _) => HeaderAppend::AppendIfExistsOrAdd,
        (Some(false), _) => HeaderAppend::OverwriteIfExistsOrAdd,
        (None, Action::AppendIfExistsOrAdd) => HeaderAppend::AppendIfExistsOrAdd,
        (None, Action::AddIfAbsent) => HeaderAppend::AddIfAbsent,
        (None, Action::OverwriteIfExistsOrAdd) => HeaderAppend::OverwriteIfExistsOrAdd,
        (None, Action::OverwriteIfExists) => HeaderAppend::OverwriteIfExists,
    };
    let name = name_of(&header_at.field("key"), &header.key)?;
    Some(HeaderAdd { name, value, action, keep_empty: option.keep_empty_value })
}
