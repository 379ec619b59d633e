//! Header mutations (`core.v3.HeaderValueOption`).

use http::HeaderName;

use super::format::Template;

/// Additions and removals, in the order they are applied: removals first, as in Envoy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderOps {
    /// Names to take out.
    pub remove: Vec<HeaderName>,
    /// What to put in.
    pub add: Vec<HeaderAdd>,
}

impl HeaderOps {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Whether a value tells something about the exchange, beyond the response at hand.
    pub fn tells_request(&self) -> bool {
        self.add.iter().any(|add| add.value.tells_request())
    }
}

/// One addition.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderAdd {
    /// Which header. `Host` sets the authority.
    pub name: HeaderName,
    /// Its value, with command operators.
    pub value: Template,
    /// What to do if it is there already.
    pub action: HeaderAppend,
    /// Add it even if the value comes out empty.
    pub keep_empty: bool,
}

/// `HeaderAppendAction`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeaderAppend {
    /// Another line.
    #[default]
    AppendIfExistsOrAdd,
    /// Leave what is there.
    AddIfAbsent,
    /// Replace what is there.
    OverwriteIfExistsOrAdd,
    /// Replace, but do not add.
    OverwriteIfExists,
}
