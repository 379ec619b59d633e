//! What the bootstrap says of metrics: `stats_config`.

use regex::Regex;

use super::Bounds;
use crate::model::matcher::StringMatcher;

/// `envoy.config.metrics.v3.StatsConfig`
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Labels that are made of flat names, in order, besides the usual ones.
    pub tags: Vec<Tag>,
    /// The usual labels are not made: they stay part of the name.
    pub no_default_tags: bool,
    /// Which metrics there are. None: all of them.
    pub which: Option<Which>,
    /// Buckets of histograms: the first whose matcher fits the flat name holds.
    pub buckets: Vec<(StringMatcher, Bounds)>,
}

/// `envoy.config.metrics.v3.TagSpecifier`
#[derive(Clone, Debug)]
pub enum Tag {
    /// Every metric has this label.
    Fixed {
        /// Name of the label.
        name: String,
        /// Its value.
        value: String,
    },
    /// What the expression finds: its first group is cut out of the name, and its second one is the
    /// value (the first, if there is no second).
    Found {
        /// Name of the label.
        name: String,
        /// Looked for anywhere in the flat name.
        regex: Regex,
    },
}

/// `envoy.config.metrics.v3.StatsMatcher`
#[derive(Clone, Debug)]
pub enum Which {
    /// None at all.
    None,
    /// Those that one of these fits.
    Only(Vec<StringMatcher>),
    /// All but those.
    AllBut(Vec<StringMatcher>),
}

impl Settings {
    /// Whether there is a metric of this flat name.
    pub fn accepts(&self, name: &str) -> bool {
        let fits = |all: &[StringMatcher]| all.iter().any(|one| one.matches(name));
        match &self.which {
            None => true,
            Some(Which::None) => false,
            Some(Which::Only(these)) => fits(these),
            Some(Which::AllBut(these)) => !fits(these),
        }
    }

    /// The buckets of the histogram with this flat name.
    pub fn bounds(&self, name: &str) -> Bounds {
        let found = self.buckets.iter().find(|(matcher, _)| matcher.matches(name));
        found.map_or_else(Bounds::default, |(_, bounds)| bounds.clone())
    }

    /// Whether labels have to be made of names.
    pub fn has_tags(&self) -> bool {
        self.no_default_tags || !self.tags.is_empty()
    }
}
