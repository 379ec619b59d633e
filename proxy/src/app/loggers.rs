//! Loggers under Envoy's names, each with its level (`/logging`).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::Logs;

/// Envoy's names, and which of our modules log under them.
const NAMES: &[(&str, &[&str])] = &[
    ("admin", &["pillion_proxy::admin"]),
    ("client", &["pillion_proxy::xds::register"]),
    ("config", &["pillion_proxy::xds"]),
    ("conn_handler", &["pillion_proxy::serve::server", "pillion_proxy::serve::identify"]),
    ("connection", &["pillion_proxy::net", "pillion_proxy::serve::connection"]),
    ("ext_authz", &["pillion_proxy::serve::filter::ext_authz"]),
    ("filter", &["pillion_proxy::serve", "pillion_proxy::serve::tcp"]),
    ("health_checker", &["pillion_proxy::cluster::check", "pillion_proxy::cluster::health"]),
    ("http", &["pillion_proxy::serve", "pillion_proxy::http", "hyper"]),
    ("http2", &["h2"]),
    ("jwt", &["pillion_proxy::serve::filter::jwt"]),
    ("main", &["pillion_proxy::app"]),
    ("misc", &["pillion_proxy::telemetry"]),
    ("pool", &["pillion_proxy::cluster::pool"]),
    ("secret", &["pillion_proxy::tls"]),
    ("upstream", &["pillion_proxy::cluster"]),
];

/// What is logged.
#[derive(Debug)]
pub(super) struct Loggers {
    levels: Mutex<Levels>,
    /// None: the embedding program's.
    logs: Option<Logs>,
}

/// Of loggers that were not set one by one, and of those that were.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Levels {
    rest: LevelFilter,
    own: BTreeMap<String, LevelFilter>,
}

impl Loggers {
    /// As it was started.
    pub(super) fn new(logs: Option<Logs>) -> Self {
        let rest = LevelFilter::current();
        Self { levels: Mutex::new(Levels { rest, own: BTreeMap::new() }), logs }
    }

    /// Every logger with its level.
    pub(super) fn levels(&self) -> Vec<(String, LevelFilter)> {
        let levels = self.lock();
        let named = NAMES.iter().map(|(name, _)| (*name).to_owned());
        let more = levels.own.keys().filter(|name| is_target(name)).cloned();
        let of = |name: String| {
            let level = levels.own.get(&name).copied().unwrap_or(levels.rest);
            (name, level)
        };
        named.chain(more).map(of).collect()
    }

    /// Set the level of one logger, or of all.
    pub(super) fn set(&self, logger: Option<&str>, level: LevelFilter) -> Result<(), String> {
        let logs = self.logs.as_ref().ok_or("the log level belongs to the embedding program")?;
        let mut levels = self.lock();
        let mut wanted = levels.clone();
        wanted.set(logger, level)?;
        let filter: Targets = wanted.directives().parse().map_err(|error| format!("{error}"))?;
        logs.reload(filter).map_err(|error| error.to_string())?;
        *levels = wanted;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Levels> {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Levels {
    fn set(&mut self, logger: Option<&str>, level: LevelFilter) -> Result<(), String> {
        match logger {
            None => *self = Self { rest: level, own: BTreeMap::new() },
            Some(name) if is_target(name) || targets(name).is_some() => {
                self.own.insert(name.to_owned(), level);
            }
            Some(name) => return Err(format!("error: unknown logger name {name:?}")),
        }
        Ok(())
    }

    /// As `tracing_subscriber`'s `Targets` reads it; the longest name that fits decides there.
    fn directives(&self) -> String {
        let mut all = self.rest.to_string();
        for (name, level) in &self.own {
            for target in targets(name).unwrap_or(&[name]) {
                all.push_str(&format!(",{target}={level}"));
            }
        }
        all
    }
}

/// A module of ours or of a library, such as `pillion_proxy::xds`, `rustls`.
fn is_target(name: &str) -> bool {
    name.contains("::") || ["pillion_proxy", "hyper", "h2", "rustls", "tower"].contains(&name)
}

fn targets(name: &str) -> Option<&'static [&'static str]> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, targets)| *targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_logger_leaves_the_others_alone() {
        let mut levels = Levels { rest: LevelFilter::INFO, own: BTreeMap::new() };
        levels.set(Some("upstream"), LevelFilter::DEBUG).unwrap();
        levels.set(Some("pillion_proxy::xds::store"), LevelFilter::TRACE).unwrap();
        assert_eq!(
            levels.directives(),
            "info,pillion_proxy::xds::store=trace,pillion_proxy::cluster=debug"
        );
        let before = levels.clone();
        assert!(levels.set(Some("nobody"), LevelFilter::OFF).is_err());
        assert_eq!(levels, before);
        levels.set(None, LevelFilter::WARN).unwrap();
        assert_eq!(levels.directives(), "warn");
    }

    #[test]
    fn who_belongs_to_another_program_is_not_set() {
        let loggers = Loggers::new(None);
        assert!(loggers.set(None, LevelFilter::TRACE).is_err());
        assert!(loggers.levels().iter().any(|(name, _)| name == "upstream"));
    }
}
