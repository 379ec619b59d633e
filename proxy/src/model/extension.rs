//! HTTP filters whose settings come from elsewhere (ECDS: `config_discovery`).

use std::sync::Arc;

use super::Name;
use super::filter::FilterKind;
use super::kept::Kept;
use super::source::Reference;

/// `ExtensionConfigSource` of an HTTP filter.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// Its settings: an [`Extension`] of the snapshot.
    pub reference: Reference,
    /// What holds while there are none. None: requests are refused.
    pub default: Option<Arc<Extension>>,
}

/// `TypedExtensionConfig` of an HTTP filter.
#[derive(Debug)]
pub struct Extension {
    /// Its name: the filter's.
    pub name: Name,
    /// The full name of its message.
    pub type_name: Name,
    /// What it does. None: nothing here.
    pub kind: Option<FilterKind>,
    /// The filter as it lives with these settings.
    pub live: Kept,
}
