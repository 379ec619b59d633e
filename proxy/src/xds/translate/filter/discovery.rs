//! `config_discovery`: settings of a filter that come from elsewhere, and what comes.

use std::sync::Arc;

use pillion_xds::any;
use pillion_xds::envoy::config::core::v3 as core;
use prost_types::Any;

use super::{Known, settings};
use crate::model::Name;
use crate::model::extension::{Discovered, Extension};
use crate::model::filter::FilterKind;
use crate::model::kept::Kept;
use crate::xds::translate::at::At;
use crate::xds::translate::{common, source};

/// `ExtensionConfigSource` of the filter of this name.
pub(super) fn discovered(
    at: &At<'_>,
    name: &str,
    config: &core::ExtensionConfigSource,
) -> Option<FilterKind> {
    let types_at = at.field("type_urls");
    types_at.expect(!config.type_urls.is_empty(), "expected at least one")?;
    let types: Vec<Name> = config.type_urls.iter().map(|url| any::type_name(url).into()).collect();
    let default_at = at.field("default_config");
    let default = match &config.default_config {
        Some(packed) => {
            let kind = common::type_of(packed);
            let fits = types.iter().any(|one| **one == *kind);
            default_at.expect(fits, format!("`{kind}` is not among type_urls"))?;
            Some(Arc::new(made(&default_at, name, packed)?))
        }
        None => None,
    };
    let at_once = config.apply_default_config_without_warming;
    at.field("apply_default_config_without_warming")
        .expect(!at_once || default.is_some(), "expected a default_config beside it")?;
    let from = &at.field("config_source");
    let reference = source::reference(from, name, config.config_source.as_ref())?;
    let reference = reference.of_types(types, !at_once);
    Some(FilterKind::Discovered(Arc::new(Discovered { reference, default })))
}

/// `TypedExtensionConfig`
pub(in crate::xds::translate) fn extension(
    at: &At<'_>,
    config: &core::TypedExtensionConfig,
) -> Option<Extension> {
    at.field("name").expect(!config.name.is_empty(), "is empty")?;
    let at = at.field("typed_config");
    made(&at, &config.name, at.required(config.typed_config.as_ref())?)
}

fn made(at: &At<'_>, name: &str, packed: &Any) -> Option<Extension> {
    let type_name = common::type_of(packed);
    let kind = match settings(at, packed) {
        Known::Filter(kind) => Some(kind?),
        Known::Harmless => None,
        Known::No => {
            return at.refuse(format!("HTTP filter `{type_name}` is not supported"));
        }
    };
    Some(Extension { name: name.into(), type_name: type_name.into(), kind, live: Kept::default() })
}
