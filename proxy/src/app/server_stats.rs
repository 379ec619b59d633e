//! `server.` and `runtime.`: facts about the process, computed when somebody reads them.

use std::sync::{Arc, Weak};

use super::state::State;
use crate::admin::{self, ServerState, Source as _};
use crate::telemetry::stats::{Fresh as _, Group, Item, Reading, metrics};

/// `server.`
#[derive(Debug)]
struct ServerStats {
    state: Weak<State>,
    concurrency: usize,
}

/// Shows the facts about this proxy among its metrics. Keep what is returned as long as it runs.
pub(super) fn show(
    state: &Arc<State>,
    concurrency: usize,
) -> Arc<dyn std::fmt::Debug + Send + Sync> {
    let registry = &state.registry;
    let server = registry.scope("server", None);
    let stats = Arc::new(ServerStats { state: Arc::downgrade(state), concurrency });
    server.show(Arc::clone(&stats) as _);
    let never = server.group(ServerNever::fresh);
    let runtime = registry.scope("runtime", None).group(Runtime::fresh);
    Arc::new((stats, never, runtime))
}

impl Group for ServerStats {
    fn each(&self, see: &mut dyn FnMut(Item<'_>, Reading)) {
        let Some(state) = self.state.upgrade() else { return };
        let memory = admin::memory_now().unwrap_or_default();
        let now = state.readiness().state;
        let number = match now {
            ServerState::Live => 0,
            ServerState::Draining => 1,
            ServerState::PreInitializing => 2,
            ServerState::Initializing => 3,
        };
        let version = env!("CARGO_PKG_VERSION").split('.').filter_map(|part| part.parse().ok());
        let large = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for (name, value) in [
            ("compilation_settings.fips_mode", 0),
            ("concurrency", self.concurrency as i64),
            ("days_until_first_cert_expiring", state.days_until_expiry()),
            ("live", i64::from(now == ServerState::Live)),
            ("memory_allocated", large(memory.allocated)),
            ("memory_heap_size", large(memory.heap_size)),
            ("memory_physical_size", large(memory.physical)),
            ("parent_connections", 0),
            ("seconds_until_first_ocsp_response_expiring", 0),
            ("state", number),
            ("stats_recent_lookups", 0),
            ("total_connections", state.server.connections()),
            ("uptime", large(state.started.elapsed().as_secs())),
            ("version", version.fold(0, |all, part: i64| all * 1000 + part)),
        ] {
            see(Item::plain(name), Reading::Gauge(value));
        }
        see(Item::plain("static_unknown_fields"), Reading::Counter(state.unknown_fields));
    }

    fn reset(&self) {}
}

metrics! {
    /// What cannot happen: there are no debug assertions and no flushes to sinks.
    struct ServerNever {
        counters {}
        gauges {}
        histograms {}
        never {
            counters [
                "debug_assertion_failures",
                "dropped_stat_flushes",
                "envoy_bug_failures",
                "envoy_notifications",
                "wip_protos",
            ]
            gauges []
        }
    }
}

metrics! {
    /// `runtime.`: there are no runtime layers.
    struct Runtime {
        counters {}
        gauges {}
        histograms {}
        never {
            counters [
                "deprecated_feature_use",
                "load_error",
                "load_success",
                "override_dir_exists",
                "override_dir_not_exists",
            ]
            gauges [
                "admin_overrides_active",
                "deprecated_feature_seen_since_process_start",
                "num_keys",
                "num_layers",
            ]
        }
    }
}
