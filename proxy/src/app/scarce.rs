//! Watches what may become scarce, and has the server act (Envoy: overload manager).

use std::sync::Arc;
use std::time::Instant;

use super::flags::Flags;
use crate::model::overload::{Action, ActionKind, Monitor, OverloadManager, Resource, Trigger};
use crate::net::cgroup;
use crate::serve::Overload;
use crate::telemetry::stats::{Counter, Gauge, Registry, Scope};

/// `--max-memory` of a sidecar: connections end after their request from this share of it on …
const NO_KEEPALIVE_FROM: f64 = 0.92;
/// … and no request is taken from this share on. As Envoy's documentation for the edge has it.
const NO_REQUESTS_FROM: f64 = 0.95;
/// The names that Envoy has for the two monitors of the flags.
const MEMORY: &str = "envoy.resource_monitors.fixed_heap";
const CONNECTIONS: &str = "envoy.resource_monitors.global_downstream_max_connections";

/// What `--max-memory` and `--max-connections` ask for; a bootstrap says its own.
///
/// # Errors
/// Both say something.
pub(super) fn manager(
    flags: &Flags,
    given: Option<&OverloadManager>,
) -> Result<Option<OverloadManager>, String> {
    if flags.max_memory.is_none() && flags.max_connections.is_none() {
        return Ok(given.cloned());
    }
    if given.is_some() {
        return Err("--max-memory and --max-connections cannot stand beside overload_manager of \
                    the bootstrap: say it there"
            .to_owned());
    }
    let mut made = OverloadManager::default();
    if let Some(bytes) = flags.max_memory {
        made.resources = vec![Resource { name: MEMORY.into(), monitor: Monitor::Memory(bytes.0) }];
        let action = |kind, name: &str, from| Action {
            name: format!("envoy.overload_actions.{name}").into(),
            kind,
            triggers: vec![(0, Trigger::Threshold(from))],
        };
        let stop = ActionKind::StopAcceptingRequests;
        made.actions = vec![
            action(ActionKind::DisableKeepalive, "disable_http_keepalive", NO_KEEPALIVE_FROM),
            action(stop, "stop_accepting_requests", NO_REQUESTS_FROM),
        ];
    }
    made.max_connections = flags.max_connections.map(|most| (CONNECTIONS.into(), most));
    Ok(Some(made))
}

/// `overload.<resource>.`
struct Watched {
    monitor: Monitor,
    /// As it was last known.
    last: Option<f64>,
    pressure: Gauge,
    failed_updates: Counter,
}

/// `overload.<action>.`
struct Taken {
    active: Option<Gauge>,
    scale_percent: Gauge,
    /// Of load shed points.
    shed: Option<(Counter, u64)>,
}

/// Looks at everything again and again; runs for ever.
pub(super) async fn watch(manager: OverloadManager, overload: Arc<Overload>, registry: Registry) {
    let scope = registry.scope("overload", None);
    let mut watched: Vec<_> = manager.resources.iter().map(|one| watched(one, &scope)).collect();
    let fullness = manager.max_connections.as_ref().map(|(name, _)| {
        let scope = scope.scope(name, None);
        scope.counter("failed_updates");
        scope.gauge("pressure")
    });
    let actions: Vec<_> = manager.actions.iter().chain(&manager.points).collect();
    let mut taken: Vec<_> = actions.iter().map(|action| Taken::new(action, &scope)).collect();
    let delay = scope.histogram("refresh_interval_delay");
    let mut ticks = tokio::time::interval(manager.refresh);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut before: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let now = Instant::now();
        if let Some(before) = before.replace(now) {
            delay.record((now - before).as_secs_f64() * 1000.0);
        }
        let pressures: Vec<Option<f64>> = watched.iter_mut().map(Watched::look).collect();
        for (action, told) in actions.iter().zip(&mut taken) {
            let state = action.state(&pressures);
            overload.set(action.kind, state);
            told.tell(state, overload.shed(action.kind));
        }
        if let (Some(gauge), Some(full)) = (&fullness, overload.fullness()) {
            gauge.set((full * 100.0) as i64);
        }
    }
}

fn watched(resource: &Resource, scope: &Scope) -> Watched {
    let scope = scope.scope(&resource.name, None);
    // Envoy's; a look is never passed over here.
    scope.counter("skipped_updates");
    Watched {
        monitor: resource.monitor.clone(),
        last: None,
        pressure: scope.gauge("pressure"),
        failed_updates: scope.counter("failed_updates"),
    }
}

impl Watched {
    /// The pressure, of 0 to 1 or more; where it cannot be read, the last one.
    fn look(&mut self) -> Option<f64> {
        match pressure(&self.monitor) {
            Some(pressure) => {
                self.pressure.set((pressure * 100.0) as i64);
                self.last = Some(pressure);
            }
            None => self.failed_updates.inc(),
        }
        self.last
    }
}

impl Taken {
    fn new(action: &Action, scope: &Scope) -> Self {
        let scope = scope.scope(&action.name, None);
        let point = matches!(action.kind, ActionKind::ShedRequests | ActionKind::ShedConnections);
        if action.kind == ActionKind::ShrinkHeap {
            scope.counter("shrink_count");
        }
        Self {
            active: (!point).then(|| scope.gauge("active")),
            scale_percent: scope.gauge("scale_percent"),
            shed: point.then(|| (scope.counter("shed_load_count"), 0)),
        }
    }

    fn tell(&mut self, state: f64, shed: u64) {
        if let Some(active) = &self.active {
            active.set(i64::from(state >= 1.0));
        }
        // In the precision that Envoy has.
        self.scale_percent.set((state as f32 * 100.0) as i64);
        if let Some((counter, told)) = &mut self.shed {
            counter.add(shed.saturating_sub(*told));
            *told = shed;
        }
    }
}

fn pressure(monitor: &Monitor) -> Option<f64> {
    match monitor {
        Monitor::Memory(most) => Some(resident()? as f64 / *most as f64),
        Monitor::Cgroup(most) => {
            let (used, limit) = cgroup::memory()?;
            let most = most.unwrap_or(u64::MAX).min(limit.unwrap_or(u64::MAX));
            Some(used as f64 / most as f64)
        }
        Monitor::File(path) => {
            let text = std::fs::read_to_string(path).ok()?;
            text.trim().parse().ok().filter(|p| (0.0..=1.0).contains(p))
        }
    }
}

/// Resident memory of this process, in bytes. A read of procfs does not wait for a disk.
fn resident() -> Option<u64> {
    resident_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_words() {
        assert_eq!(resident_of("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(resident_of("Name:\tx\n"), None);
        assert!(resident().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn a_file_that_makes_no_sense_leaves_the_last_pressure() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("pressure");
        let registry = Registry::new();
        let resource = Resource { name: "file".into(), monitor: Monitor::File(path.clone()) };
        let mut one = watched(&resource, &registry.scope("overload", None));
        assert_eq!(one.look(), None);
        for (text, expected) in [("0.25\n", 0.25), ("much", 0.25), ("2", 0.25), ("1", 1.0)] {
            std::fs::write(&path, text).expect("written");
            assert_eq!(one.look(), Some(expected), "{text}");
        }
        assert_eq!(one.failed_updates.get(), 3);
    }
}
